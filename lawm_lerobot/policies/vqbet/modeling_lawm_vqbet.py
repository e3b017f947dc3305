"""``lawm_vqbet``: LeRobot's VQ-BeT with LAWM pretraining."""

from __future__ import annotations

from collections.abc import Sequence

from lerobot.configs import PreTrainedConfig
from lerobot.policies.vqbet.modeling_vqbet import VQBeTPolicy
from torch import nn

from lawm_lerobot.checkpoints.transfer import OtherActions, Reinitialise, Rule
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.vqbet.configuration_lawm_vqbet import LawmVqbetConfig


class LawmVqbetPolicy(LawmPolicy, VQBeTPolicy):
    """VQ-BeT that predicts latent actions by codes in pretraining, actions afterwards.

    Codes pass no gradient, so there is no `predict_latents`: latents are the inverse dynamics'. VQ-BeT learns its codes in
    its first ``n_vqvae_training_steps``, in each stage anew, and keeps them.

    In the ``finetune`` stage this is `VQBeTPolicy`: same tensors, same names, same cost.
    """

    config_class = LawmVqbetConfig
    name = "lawm_vqbet"

    @property
    def latent_head(self) -> nn.Parameter:
        return self.vqbet.action_head.map_to_cbet_preds_offset[0].weight

    def transfer_rules(self, source: PreTrainedConfig) -> Sequence[Rule]:
        return [
            OtherActions("vqbet.action_head.*", "codes and predicts actions, which are of another kind now"),
            Reinitialise("vqbet.state_projector.*", "embeds the robot's state, which differs between robots"),
            Reinitialise("vqbet.select_target_actions_indices", "fixed by the length of the chunk"),
            Reinitialise("vqbet.rgb_encoder.pool.pos_grid", "fixed coordinates for the images' size"),
        ]

"""``lawm_vqbet``: LeRobot's VQ-BeT with LAWM pretraining."""

from __future__ import annotations

from collections.abc import Sequence

from helpers.outside_vqbet.configuration_lawm_vqbet import LawmVqbetConfig
from lerobot.configs import PreTrainedConfig
from lerobot.policies.vqbet.modeling_vqbet import VQBeTPolicy
from torch import nn

from lawm_lerobot.checkpoints.transfer import OtherActions, Reinitialise, Rule
from lawm_lerobot.policies.common.policy import LawmPolicy


class LawmVqbetPolicy(LawmPolicy, VQBeTPolicy):
    """Its actions are codes of a codebook, so its latents pass no gradient: there is no `predict_latents`."""

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

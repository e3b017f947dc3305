"""``lawm_act``: LeRobot's ACT with LAWM pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lerobot.configs import PreTrainedConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.utils.constants import OBS_IMAGES
from torch import Tensor, nn

from lawm_lerobot.checkpoints.transfer import (
    InterpolateRows,
    KeepIfPresent,
    MatchRows,
    OtherActions,
    Reinitialise,
    Rule,
)
from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
from lawm_lerobot.policies.common.policy import LawmPolicy


class LawmActPolicy(LawmPolicy, ACTPolicy):
    """Action Chunking Transformer whose chunk holds latent actions in pretraining, actions afterwards.

    In the ``finetune`` stage this is `ACTPolicy`: same tensors, same names, same cost.
    """

    config_class = LawmActConfig
    name = "lawm_act"

    def predict_latents(self, batch: dict[str, Any]) -> Tensor:
        # ACT encodes the actions to imitate (its VAE) when in training mode, and takes the latent of its
        # prior otherwise. Only the flag of the top module decides; dropout below stays as it is.
        was_training = self.model.training
        self.model.training = False
        try:
            return self.model({**batch, OBS_IMAGES: [batch[key] for key in self.config.image_features]})[0]
        finally:
            self.model.training = was_training

    @property
    def latent_head(self) -> nn.Parameter:
        return self.model.action_head.weight

    def transfer_rules(self, source: PreTrainedConfig) -> Sequence[Rule]:
        other_state = "embeds the robot's state, which differs between robots"
        return [
            OtherActions("model.action_head.*", "predicts actions, which are of another kind now"),
            OtherActions(
                "model.vae_encoder_action_input_proj.*", "embeds actions, which are of another kind now"
            ),
            Reinitialise("model.*robot_state_input_proj.*", other_state),
            Reinitialise("model.encoder_env_state_input_proj.*", other_state),
            Reinitialise("model.vae_encoder_pos_enc", "fixed sinusoids for the new chunk length"),
            KeepIfPresent("model.vae_encoder*", "ACT's VAE is used in one of the two stages only"),
            InterpolateRows("model.decoder_pos_embed.weight", "action queries stretched to the new chunk"),
            MatchRows("model.encoder_1d_feature_pos_embed.weight", _tokens(source), _tokens(self.config)),
        ]


def _tokens(config: PreTrainedConfig) -> list[str]:
    """ACT's tokens before the image's, in its order: one row each in its table of positions."""
    tokens = ["latent"]
    if config.robot_state_feature:
        tokens.append("state")
    if config.env_state_feature:
        tokens.append("environment_state")
    return tokens

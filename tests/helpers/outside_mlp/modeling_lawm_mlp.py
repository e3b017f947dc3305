"""``lawm_mlp``: the MLP with LAWM pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helpers.outside_mlp.configuration_lawm_mlp import LawmMLPConfig
from helpers.outside_mlp.modeling_mlp import MLPPolicy
from lerobot.configs import PreTrainedConfig
from torch import Tensor, nn

from lawm_lerobot.checkpoints.transfer import OtherActions, Reinitialise, Rule
from lawm_lerobot.policies.common.policy import LawmPolicy


class LawmMLPPolicy(LawmPolicy, MLPPolicy):
    """The MLP, of latent actions in pretraining."""

    config_class = LawmMLPConfig
    name = "lawm_mlp"

    def predict_latents(self, batch: dict[str, Any]) -> Tensor:
        return self.chunk(batch)

    @property
    def latent_head(self) -> nn.Parameter:
        return self.head.weight

    def transfer_rules(self, source: PreTrainedConfig) -> Sequence[Rule]:
        return [
            OtherActions("head.*", "predicts actions, which are of another kind now"),
            Reinitialise("state_in.*", "embeds the robot's state, which differs between robots"),
        ]

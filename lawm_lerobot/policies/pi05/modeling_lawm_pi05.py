"""``lawm_pi05``: LeRobot's pi0.5 with LAWM pretraining."""

from __future__ import annotations

from typing import Any

from lerobot.policies.pi05.modeling_pi05 import PI05Policy
from torch import Tensor

from lawm_lerobot.policies.pi05.configuration_lawm_pi05 import LawmPI05Config
from lawm_lerobot.policies.vla.policy import FlowVLAPolicy, OpenPIPolicy


class LawmPI05Policy(OpenPIPolicy, FlowVLAPolicy, PI05Policy):
    """pi0.5 whose flow ends in latent actions in pretraining, in actions afterwards.

    In the ``finetune`` stage this is `PI05Policy`: same tensors, same names, same cost.
    """

    config_class = LawmPI05Config
    name = "lawm_pi05"

    def state_inputs(self, batch: dict[str, Any]) -> tuple[Tensor, ...]:
        return ()  # The prompt has it.

"""``lawm_pi0``: LeRobot's pi0 with LAWM pretraining."""

from __future__ import annotations

from lerobot.policies.pi0.modeling_pi0 import PI0Policy

from lawm_lerobot.policies.pi0.configuration_lawm_pi0 import LawmPI0Config
from lawm_lerobot.policies.vla.policy import FlowVLAPolicy, OpenPIPolicy


class LawmPI0Policy(OpenPIPolicy, FlowVLAPolicy, PI0Policy):
    """pi0 whose flow ends in latent actions in pretraining, in actions afterwards.

    In the ``finetune`` stage this is `PI0Policy`: same tensors, same names, same cost.
    """

    config_class = LawmPI0Config
    name = "lawm_pi0"

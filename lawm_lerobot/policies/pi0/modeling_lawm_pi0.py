"""``lawm_pi0``: LeRobot's pi0 with LAWM pretraining."""

from __future__ import annotations

from lerobot.policies.pi0.modeling_pi0 import PI0Policy

from lawm_lerobot.policies.flow_vla.policy import OpenPIPolicy
from lawm_lerobot.policies.pi0.configuration_lawm_pi0 import LawmPI0Config


class LawmPI0Policy(OpenPIPolicy, PI0Policy):
    """pi0 whose flow ends in latent actions in pretraining, in actions afterwards.

    In the ``finetune`` stage this is `PI0Policy`: same tensors, same names, same cost.
    """

    config_class = LawmPI0Config
    name = "lawm_pi0"

"""``lawm_smolvla``: LeRobot's SmolVLA with LAWM pretraining."""

from __future__ import annotations

from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

from lawm_lerobot.policies.smolvla.configuration_lawm_smolvla import LawmSmolVLAConfig
from lawm_lerobot.policies.vla.policy import FlowVLAPolicy


class LawmSmolVLAPolicy(FlowVLAPolicy, SmolVLAPolicy):
    """SmolVLA whose flow ends in latent actions in pretraining, in actions afterwards.

    In the ``finetune`` stage this is `SmolVLAPolicy`: same tensors, same names, same cost.
    """

    config_class = LawmSmolVLAConfig
    name = "lawm_smolvla"

"""LeRobot's own policies, pretrainable on video without actions. Importing this registers their configs."""

from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
from lawm_lerobot.policies.diffusion.configuration_lawm_diffusion import LawmDiffusionConfig
from lawm_lerobot.policies.multi_task_dit.configuration_lawm_multi_task_dit import LawmMultiTaskDiTConfig
from lawm_lerobot.policies.pi0.configuration_lawm_pi0 import LawmPI0Config
from lawm_lerobot.policies.pi0_fast.configuration_lawm_pi0_fast import LawmPI0FastConfig
from lawm_lerobot.policies.pi05.configuration_lawm_pi05 import LawmPI05Config
from lawm_lerobot.policies.smolvla.configuration_lawm_smolvla import LawmSmolVLAConfig
from lawm_lerobot.policies.vqbet.configuration_lawm_vqbet import LawmVqbetConfig
from lawm_lerobot.policies.xvla.configuration_lawm_xvla import LawmXVLAConfig

__all__ = [
    "LawmActConfig",
    "LawmDiffusionConfig",
    "LawmMultiTaskDiTConfig",
    "LawmPI05Config",
    "LawmPI0Config",
    "LawmPI0FastConfig",
    "LawmSmolVLAConfig",
    "LawmVqbetConfig",
    "LawmXVLAConfig",
]

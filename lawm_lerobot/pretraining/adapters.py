"""Published cards say ``from lawm_lerobot.pretraining.adapters import load_whole_policy``."""

from lawm_lerobot.policies.common.loading import load_whole_policy

__all__ = ["load_whole_policy"]

"""Pretraining checkpoints loaded to look into them, never for control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lerobot.configs import PreTrainedConfig
from lerobot.policies import get_policy_class, make_pre_post_processors

import lawm_lerobot.policies  # noqa: F401  registers the types that a checkpoint may be of
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.policy import LawmPolicy

Preprocessor = Callable[[dict[str, Any]], dict[str, Any]]


def load_pretraining_checkpoint(
    path: str | Path, overrides: Sequence[str] = ()
) -> tuple[LawmPolicy, Preprocessor]:
    """Load the policy, in evaluation mode, and its preprocessor.

    Args:
        path: Directory or Hub id.
        overrides: Flags of the policy's config, without ``--policy.`` (``--device=cpu``).

    Raises:
        ValueError: If the checkpoint is not one of pretraining.
    """
    config = PreTrainedConfig.from_pretrained(path, cli_overrides=list(overrides))
    if not isinstance(config, LawmConfig) or not config.pretraining:
        stage = getattr(config, "stage", "none")
        raise ValueError(
            f"{path} holds a {config.type} policy of stage {stage}, expected a lawm_* pretraining checkpoint: "
            "change --policy.path."
        )
    config.pretrained_path = Path(path)
    policy_class = get_policy_class(config.type)
    policy = policy_class.from_pretrained(path, config=config, allow_pretraining=True)
    preprocessor, _ = make_pre_post_processors(
        config, str(path), preprocessor_overrides={"device_processor": {"device": config.device}}
    )
    return policy, preprocessor

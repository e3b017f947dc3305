"""What the pretraining stage changes about LeRobot's processors."""

from __future__ import annotations

from typing import Any

from lerobot.utils.constants import ACTION

from lawm_lerobot.pretraining.configuration import LawmConfig


def stage_stats(config: LawmConfig, stats: dict[str, dict[str, Any]] | None) -> dict[str, dict] | None:
    """The dataset statistics that this stage's processors keep.

    In pretraining, ``action`` in the policy's features means latent actions: the statistics of whatever
    robot actions the corpus happens to hold must not be applied to them, nor be saved beside them.
    """
    if stats is None or not config.pretraining:
        return stats
    return {key: value for key, value in stats.items() if key != ACTION}

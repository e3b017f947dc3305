"""LeRobot's processors in the pretraining stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from lerobot.processor import ProcessorStep
from lerobot.utils.constants import ACTION

from lawm_lerobot.policies.common.configuration import LawmConfig


class PretrainingStep:
    """A processor step of pretraining that LeRobot without this plugin lacks, mixed in front of LeRobot's own."""

    def plain(self) -> ProcessorStep:
        """LeRobot's own step, which an exported checkpoint has in its place."""
        raise NotImplementedError


def stage_stats(config: LawmConfig, stats: dict[str, dict[str, Any]] | None) -> dict[str, dict] | None:
    """Select the dataset statistics that this stage's processors keep.

    In pretraining, ``action`` in the policy's features means latent actions: the statistics of whatever robot actions
    the corpus happens to hold must not be applied to them, nor be saved beside them.
    """
    if stats is None or not config.pretraining:
        return stats
    return {key: value for key, value in stats.items() if key != ACTION}


def staged(make_processors: Callable[..., Any]) -> Callable[..., Any]:
    """Give a wrapped policy's ``make_<type>_pre_post_processors`` the statistics that the stage keeps.

    The steps keep their own names, so that LeRobot reloads them without this plugin.
    """

    @wraps(make_processors)
    def make(
        config: LawmConfig, dataset_stats: dict[str, dict[str, Any]] | None = None, **kwargs: Any
    ) -> Any:
        return make_processors(config, stage_stats(config, dataset_stats), **kwargs)

    return make

"""LeRobot's processors in the pretraining stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.processor import ProcessorStep
from lerobot.utils.constants import ACTION, OBS_STATE

from lawm_lerobot.policies.common.clips import IS_PAD
from lawm_lerobot.policies.common.configuration import LawmConfig

if TYPE_CHECKING:
    from lerobot.processor import ProcessorStep as _Step
else:
    _Step = object


class PretrainingStep(_Step):
    """A processor step of pretraining that LeRobot without this plugin lacks, mixed in front of LeRobot's own.

    Args:
        plain_class: LeRobot's own step, a dataclass.
    """

    plain_class: ClassVar[type[ProcessorStep]]

    @classmethod
    def of(cls, step: ProcessorStep) -> Self:
        """Make the step that takes the place of one of LeRobot's own."""
        return cls(**_settings(step))

    def plain(self) -> ProcessorStep:
        """Make LeRobot's own step, which an exported checkpoint has in this one's place."""
        return self.plain_class(**_settings(self))


def _settings(step: Any) -> dict[str, Any]:
    return {field.name: getattr(step, field.name) for field in fields(step) if field.init}


class PresentState(PretrainingStep):
    """Mixed in front of LeRobot's step that writes the state into the prompt.

    Of a clip (B,T,S) it writes the first frame's only, and none if the videos have none.
    """

    task_key: str

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        observation = transition[TransitionKey.OBSERVATION] or {}
        state = observation.get(OBS_STATE)
        if state is None:
            tasks = transition[TransitionKey.COMPLEMENTARY_DATA][self.task_key]
            state = torch.zeros(len(tasks), 0)  # (B,0)
        elif state.ndim == 3:
            state = state[:, 0]  # (B,S)
        seen = {**transition, TransitionKey.OBSERVATION: {**observation, OBS_STATE: state}}
        return {**super().__call__(seen), TransitionKey.OBSERVATION: observation}


class PicturesAlone(PretrainingStep):
    """Mixed in front of LeRobot's step that takes all that is named after a camera for a picture: a clip has flags too."""

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        observation = transition[TransitionKey.OBSERVATION] or {}
        flags = {key: value for key, value in observation.items() if key.endswith(IS_PAD)}  # (B,T) each
        rest = {key: value for key, value in observation.items() if key not in flags}
        processed = super().__call__({**transition, TransitionKey.OBSERVATION: rest})
        return {**processed, TransitionKey.OBSERVATION: {**processed[TransitionKey.OBSERVATION], **flags}}


def stage_stats(config: LawmConfig, stats: dict[str, dict[str, Any]] | None) -> dict[str, dict] | None:
    """Select the dataset statistics that this stage's processors keep.

    In pretraining, ``action`` in the policy's features means latent actions: the statistics of whatever robot actions
    the corpus happens to hold must not be applied to them, nor be saved beside them.
    """
    if stats is None or not config.pretraining:
        return stats
    return {key: value for key, value in stats.items() if key != ACTION}


def staged(make_processors: Callable[..., Any], *steps: type[PretrainingStep]) -> Callable[..., Any]:
    """Give a wrapped policy's ``make_<type>_pre_post_processors`` the statistics that the stage keeps.

    The steps keep their own names, so that LeRobot reloads them without this plugin; in pretraining ``steps`` take the
    places of those that they are made of.
    """

    @wraps(make_processors)
    def make(
        config: LawmConfig, dataset_stats: dict[str, dict[str, Any]] | None = None, **kwargs: Any
    ) -> Any:
        preprocessor, postprocessor = make_processors(config, stage_stats(config, dataset_stats), **kwargs)
        for kind in steps if config.pretraining else ():
            preprocessor.steps = [
                kind.of(step) if isinstance(step, kind.plain_class) else step for step in preprocessor.steps
            ]
        return preprocessor, postprocessor

    return make

"""LeRobot's processors in the pretraining stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.processor import ProcessorStep
from lerobot.utils.constants import ACTION, OBS_STATE

from lawm_lerobot.policies.common.configuration import LawmConfig


class PretrainingStep:
    """A processor step of pretraining that LeRobot without this plugin lacks, mixed in front of LeRobot's own."""

    def plain(self) -> ProcessorStep:
        """LeRobot's own step, which an exported checkpoint has in its place."""
        raise NotImplementedError


if TYPE_CHECKING:
    from lerobot.processor import ProcessorStep as _Step
else:
    _Step = object


class PresentState(PretrainingStep, _Step):
    """Mixed in front of LeRobot's step that writes the state into the prompt.

    Of a clip (B,T,S) it writes the first frame's only, and none if the videos have none.
    """

    plain_class: ClassVar[type[ProcessorStep]]
    max_state_dim: int
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

    def plain(self) -> ProcessorStep:
        return self.plain_class(self.max_state_dim, self.task_key)


def stage_stats(config: LawmConfig, stats: dict[str, dict[str, Any]] | None) -> dict[str, dict] | None:
    """Select the dataset statistics that this stage's processors keep.

    In pretraining, ``action`` in the policy's features means latent actions: the statistics of whatever robot actions
    the corpus happens to hold must not be applied to them, nor be saved beside them.
    """
    if stats is None or not config.pretraining:
        return stats
    return {key: value for key, value in stats.items() if key != ACTION}


def staged(
    make_processors: Callable[..., Any], prompt: type[PresentState] | None = None
) -> Callable[..., Any]:
    """Give a wrapped policy's ``make_<type>_pre_post_processors`` the statistics that the stage keeps.

    The steps keep their own names, so that LeRobot reloads them without this plugin; in pretraining the ``prompt`` takes
    the place of the step that it is made of.
    """

    @wraps(make_processors)
    def make(
        config: LawmConfig, dataset_stats: dict[str, dict[str, Any]] | None = None, **kwargs: Any
    ) -> Any:
        preprocessor, postprocessor = make_processors(config, stage_stats(config, dataset_stats), **kwargs)
        if prompt is not None and config.pretraining:
            preprocessor.steps = [
                prompt(step.max_state_dim, step.task_key) if isinstance(step, prompt.plain_class) else step
                for step in preprocessor.steps
            ]
        return preprocessor, postprocessor

    return make

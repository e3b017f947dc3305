"""Pre- and post-processing of ``lawm_pi05``: pi0.5's own, its prompt without the future."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.policies.pi05.processor_pi05 import (
    Pi05PrepareStateTokenizerProcessorStep,
    make_pi05_pre_post_processors,
)
from lerobot.processor import PolicyAction, PolicyProcessorPipeline, ProcessorStepRegistry
from lerobot.utils.constants import OBS_STATE

from lawm_lerobot.policies.common.processing import PretrainingStep, stage_stats
from lawm_lerobot.policies.pi05.configuration_lawm_pi05 import LawmPI05Config


@ProcessorStepRegistry.register("lawm_pi05_prompt")
@dataclass
class PresentStatePrompt(PretrainingStep, Pi05PrepareStateTokenizerProcessorStep):
    """Writes the state into the prompt, of a clip (B,T,S) the first frame's only; none if the videos have none."""

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

    def plain(self) -> Pi05PrepareStateTokenizerProcessorStep:
        return Pi05PrepareStateTokenizerProcessorStep(self.max_state_dim, self.task_key)


def make_lawm_pi05_pre_post_processors(
    config: LawmPI05Config, dataset_stats: dict[str, dict[str, Any]] | None = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]],
    PolicyProcessorPipeline[PolicyAction, PolicyAction],
]:
    """pi0.5's pipelines, in pretraining with `PresentStatePrompt`."""
    preprocessor, postprocessor = make_pi05_pre_post_processors(config, stage_stats(config, dataset_stats))
    if config.pretraining:
        preprocessor.steps = [
            PresentStatePrompt(step.max_state_dim, step.task_key)
            if isinstance(step, Pi05PrepareStateTokenizerProcessorStep)
            else step
            for step in preprocessor.steps
        ]
    return preprocessor, postprocessor

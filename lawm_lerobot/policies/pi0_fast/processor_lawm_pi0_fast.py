"""Pre- and post-processing of ``lawm_pi0_fast``: pi0-FAST's own, its prompt without the future."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lerobot.policies.pi0_fast.processor_pi0_fast import (
    Pi0FastPrepareStateAndLanguageTokenizerProcessorStep,
    make_pi0_fast_pre_post_processors,
)
from lerobot.processor import ProcessorStep, ProcessorStepRegistry

from lawm_lerobot.policies.common.processing import PresentState, staged


@ProcessorStepRegistry.register("lawm_pi0_fast_prompt")
@dataclass
class PresentStatePrompt(PresentState, Pi0FastPrepareStateAndLanguageTokenizerProcessorStep):
    """pi0-FAST's prompt of the task and the present state."""

    plain_class: ClassVar[type[ProcessorStep]] = Pi0FastPrepareStateAndLanguageTokenizerProcessorStep


make_lawm_pi0_fast_pre_post_processors = staged(make_pi0_fast_pre_post_processors, PresentStatePrompt)

"""Pre- and post-processing of ``lawm_pi05``: pi0.5's own, its prompt without the future."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lerobot.policies.pi05.processor_pi05 import (
    Pi05PrepareStateTokenizerProcessorStep,
    make_pi05_pre_post_processors,
)
from lerobot.processor import ProcessorStep, ProcessorStepRegistry

from lawm_lerobot.policies.common.processing import PresentState, staged


@ProcessorStepRegistry.register("lawm_pi05_prompt")
@dataclass
class PresentStatePrompt(PresentState, Pi05PrepareStateTokenizerProcessorStep):
    """pi0.5's prompt of the task and the present state."""

    plain_class: ClassVar[type[ProcessorStep]] = Pi05PrepareStateTokenizerProcessorStep


make_lawm_pi05_pre_post_processors = staged(make_pi05_pre_post_processors, PresentStatePrompt)

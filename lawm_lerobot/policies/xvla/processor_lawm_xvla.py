"""Pre- and post-processing of ``lawm_xvla``: X-VLA's own, which in pretraining leaves a clip's padding flags alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lerobot.policies.xvla.processor_xvla import (
    XVLAImageNetNormalizeProcessorStep,
    XVLAImageToFloatProcessorStep,
    make_xvla_pre_post_processors,
)
from lerobot.processor import ProcessorStep, ProcessorStepRegistry

from lawm_lerobot.policies.common.processing import PicturesAlone, staged


@ProcessorStepRegistry.register("lawm_xvla_image_to_float")
@dataclass
class ClipToFloat(PicturesAlone, XVLAImageToFloatProcessorStep):
    """X-VLA's pictures in [0, 1]."""

    plain_class: ClassVar[type[ProcessorStep]] = XVLAImageToFloatProcessorStep


@ProcessorStepRegistry.register("lawm_xvla_imagenet_normalize")
@dataclass
class ClipNormalize(PicturesAlone, XVLAImageNetNormalizeProcessorStep):
    """X-VLA's pictures by ImageNet's statistics."""

    plain_class: ClassVar[type[ProcessorStep]] = XVLAImageNetNormalizeProcessorStep


make_lawm_xvla_pre_post_processors = staged(make_xvla_pre_post_processors, ClipToFloat, ClipNormalize)

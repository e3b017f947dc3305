"""Observations that are left out of a batch: replaced by what normalisation makes of their mean.

Letters: B batch, n observations of the policy's history, S state dimension, C h w.
"""

from __future__ import annotations

from typing import Any

import torch
from lerobot.configs import FeatureType
from lerobot.lerobot_types import TransitionKey
from lerobot.processor import NormalizerProcessorStep
from lerobot.processor.converters import create_transition
from torch import Tensor

from lawm_lerobot.policies.common.clips import pixel_affine
from lawm_lerobot.policies.common.configuration import LawmConfig


def normalised_mean(config: LawmConfig, key: str, stats: dict[str, dict[str, Any]] | None) -> Tensor:
    """An observation's mean as the policy's preprocessor normalises it: (S) of a state, (C,1,1) of a camera.

    Zeros where normalisation is to zero mean, or without statistics.
    """
    feature = (config.input_features or {})[key]
    visual = feature.type is FeatureType.VISUAL
    shape = (feature.shape[0], 1, 1) if visual else tuple(feature.shape)
    if not stats or key not in stats:
        return torch.zeros(shape)
    mean = torch.as_tensor(stats[key]["mean"], dtype=torch.float32).reshape(shape)
    if visual and config.picture_stats is not None:
        offset, scale = pixel_affine(config, key, stats)
        return (mean - offset) / scale
    step = NormalizerProcessorStep({key: feature}, config.normalization_mapping, {key: stats[key]})
    normalised = step(create_transition(observation={key: mean[None]}))
    return normalised[TransitionKey.OBSERVATION][key][0]


def drop_samples(values: Tensor, mean: Tensor, share: float) -> Tensor:
    """Put the `mean` (S) in place of a random share of the samples (B,[n],S), over their whole history."""
    dropped = torch.rand(len(values), device=values.device) < share  # (B)
    return torch.where(dropped.reshape(-1, *[1] * (values.ndim - 1)), mean.to(values), values)

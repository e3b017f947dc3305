"""Observations that are left out of a batch: replaced by what normalisation makes of their mean.

Letters: B batch, n observations of the policy's history, S state dimension, C h w.
"""

from __future__ import annotations

from typing import Any

import torch
from lerobot.configs import FeatureType, PreTrainedConfig
from lerobot.lerobot_types import TransitionKey
from lerobot.processor import NormalizerProcessorStep
from lerobot.processor.converters import create_transition
from torch import Tensor


def normalised_mean(config: PreTrainedConfig, key: str, stats: dict[str, dict[str, Any]] | None) -> Tensor:
    """An observation's mean as the policy's preprocessor normalises it: (S) of a state, (C,1,1) of a camera.

    Zeros where normalisation is to zero mean, or without statistics.
    """
    feature = config.input_features[key]
    visual = feature.type is FeatureType.VISUAL
    shape = (feature.shape[0], 1, 1) if visual else tuple(feature.shape)
    if not stats or key not in stats:
        return torch.zeros(shape)
    mean = torch.as_tensor(stats[key]["mean"], dtype=torch.float32).reshape(shape)
    step = NormalizerProcessorStep({key: feature}, config.normalization_mapping, {key: stats[key]})
    normalised = step(create_transition(observation={key: mean[None]}))
    return normalised[TransitionKey.OBSERVATION][key][0]


def drop_samples(values: Tensor, mean: Tensor, share: float) -> Tensor:
    """Put the `mean` (S) in place of a random share of the samples (B,[n],S), over their whole history."""
    dropped = torch.rand(len(values), device=values.device) < share  # (B)
    return torch.where(dropped.reshape(-1, *[1] * (values.ndim - 1)), mean.to(values), values)

"""The policy's observation of labelled demonstrations, as plain data for `lawm_lerobot.labels`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lerobot.utils.constants import OBS_STATE

from lawm_lerobot.labels.demonstrations import PolicyViews, Preprocess
from lawm_lerobot.method.latent_action import INVERSE_DYNAMICS
from lawm_lerobot.policies.common.configuration import LawmConfig


def policy_views(
    config: LawmConfig, cameras: Sequence[str], corpus_stats: dict[str, dict[str, Any]] | None
) -> PolicyViews | None:
    """Describe the policy's observation, if its own latents are in use; else it need not look at the demonstrations.

    Args:
        config: The policy's configuration.
        cameras: The image features that the policy sees.
        corpus_stats: The corpus's statistics, which normalise the demonstrations' pictures too. The state is
            normalised by the demonstrations' own.
    """
    if config.latent_action.source == INVERSE_DYNAMICS:
        return None
    shapes = {key: config.image_features[key].shape for key in cameras}
    state = config.robot_state_feature
    pictures = {key: value for key, value in (corpus_stats or {}).items() if key in config.image_features}

    def preprocessor(state_stats: dict[str, Any]) -> Preprocess:
        from lerobot.policies.factory import make_pre_post_processors

        return make_pre_post_processors(config, dataset_stats={**pictures, OBS_STATE: state_stats})[0]

    return PolicyViews(
        {key: (shape[1], shape[2]) for key, shape in shapes.items()},
        tuple(state.shape) if state is not None else None,
        config.wrapped_history,
        preprocessor,
    )

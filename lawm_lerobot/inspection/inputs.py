"""The inputs of a policy, which a dataset must have to be inspected with."""

from __future__ import annotations

from collections.abc import Mapping

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from lawm_lerobot.labels.cameras import policy_features


def require_inputs(
    features: Mapping[str, PolicyFeature], meta: LeRobotDatasetMetadata, repo_id: str, how: str
) -> None:
    """Check that a dataset has some features of a policy.

    Args:
        features: The features, by the dataset's keys.
        meta: The dataset's metadata.
        repo_id: The name of the dataset, for messages.
        how: The verb for messages: "pretrained".

    Raises:
        ValueError: If the dataset lacks one, or has it in another shape. Pictures may have another size.
    """
    offered = policy_features(meta.features)
    for key, wanted in features.items():
        found = offered.get(key)
        if found is None:
            raise ValueError(
                f"The dataset {repo_id} has no '{key}' (it has {', '.join(sorted(meta.features))}), which this "
                f"checkpoint was {how} with: choose another --dataset.repo_id or --policy.path."
            )
        # The world model's frames are resized, and the policy's own network says if it minds the size.
        visual = wanted.type is FeatureType.VISUAL
        ours, theirs = (wanted.shape[0], found.shape[0]) if visual else (wanted.shape, found.shape)
        if ours != theirs:
            what = "channels" if visual else "shape"
            raise ValueError(
                f"'{key}' of the dataset {repo_id} has {what} {theirs}, but this checkpoint was {how} with "
                f"{what} {ours}: choose another --dataset.repo_id or --policy.path."
            )

"""A policy that is asked for its chunk of actions, on observations of a dataset whose parts may be exchanged.

Letters: B observations, n observations of a policy's history, C h w, S state dimension, H actions in a chunk, A.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_IMAGE, OBS_IMAGES, OBS_STATE
from lerobot.utils.random_utils import seeded_context
from torch import Tensor

from lawm_lerobot.policies.common.clips import real_cameras
from lawm_lerobot.policies.common.finite_actions import require_finite

if TYPE_CHECKING:  # It loads LeRobot's datasets, which are slow to load.
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from lawm_lerobot.policies.common.pretraining_checkpoint import Preprocessor

Observation = dict[str, Any]

TASK = "task"
#: What some preprocessors read beside the observation and the task.
PLACES = ("timestamp", "frame_index", "episode_index", "index", "task_index")


class AskedPolicy:
    """A policy with its saved preprocessor, asked on observations as a dataset has them, before any preprocessing.

    Args:
        policy: Any LeRobot policy with an action head.
        preprocessor: The preprocessor that was saved with it.
        predict: The prediction of a chunk (B,H,A) from a preprocessed batch; None takes the policy's own.
    """

    def __init__(
        self,
        policy: PreTrainedPolicy,
        preprocessor: Preprocessor,
        predict: Callable[[dict[str, Any]], Tensor] | None = None,
    ) -> None:
        self.policy = policy
        self.preprocessor = preprocessor
        self.predict = policy.predict_action_chunk if predict is None else predict
        # The policy's names may be others than the dataset's, which the preprocessor then renames.
        renamed = {
            new: old
            for step in getattr(preprocessor, "steps", ())
            for old, new in getattr(step, "rename_map", {}).items()
        }
        features = policy.config.input_features or {}
        real = real_cameras(policy.config)
        self.features: dict[str, PolicyFeature] = {
            renamed.get(key, key): feature
            for key, feature in features.items()
            if feature.type is not FeatureType.VISUAL or key in real
        }
        #: The dataset's cameras that the policy sees, and the numbers that it is given beside them.
        self.cameras = [key for key, ft in self.features.items() if ft.type is FeatureType.VISUAL]
        self.numbers = [key for key in self.features if key not in self.cameras]
        deltas = policy.config.observation_delta_indices or [0]
        self.history = max(1, sum(delta <= 0 for delta in deltas))

    def take(self, dataset: LeRobotDataset, index: int) -> Observation:
        """Read what the policy gets of one frame: cameras (n,C,h,w), numbers (n,S), the task and the frame's place."""
        item = dataset[index]
        taken: Observation = {key: item[key] for key in (TASK, *PLACES) if key in item}
        for key in self.features:
            value = item[key]
            # A dataset that was opened without a history hands out the present alone; what comes later is left out.
            single = value.ndim == (3 if key in self.cameras else 1)
            taken[key] = value[None] if single else value[: self.history]
        return taken

    @torch.no_grad()
    def chunk(self, observation: Observation, seed: int) -> Tensor:
        """Predict the chunk (B,H,A), normalised as the policy puts it out, on the CPU.

        ``observation`` is one of `batched`. With the same seed a policy that samples draws the same noise for each
        of the B observations.
        """
        raw = dict(observation)
        for key in self.cameras:
            if raw[key].dtype == torch.uint8:
                raw[key] = raw[key].float() / 255
        if OBS_STATE not in raw and self.cameras:
            # LeRobot's policies read the device of the state also where they take none.
            raw[OBS_STATE] = raw[self.cameras[0]].new_zeros(*raw[self.cameras[0]].shape[:2], 0)  # (B,n,0)
        self.policy.reset()
        observed = observed_keys(self.policy)
        if not observed:  # Such a policy is given the present alone, as on a robot.
            raw = {key: v[:, -1] if key in self.features or key == OBS_STATE else v for key, v in raw.items()}
        with seeded_context(seed):
            batch = {key: v for key, v in self.preprocessor(raw).items() if v is not None and key != ACTION}
            chunk = self.predict(remembered(self.policy, batch))
        require_finite(chunk, batch)
        self.policy.reset()
        return chunk.float().cpu()


def observed_keys(policy: PreTrainedPolicy) -> list[str]:
    """List what a policy reads from queues, filled by its `select_action` on a robot; empty for most."""
    queues: Mapping[str, deque] = getattr(policy, "_queues", None) or {}
    return [key for key in queues if key != ACTION]


def remembered(policy: PreTrainedPolicy, batch: dict[str, Any], history: int | None = None) -> dict[str, Any]:
    """Fill the queues of `observed_keys` from a preprocessed batch (B,n,...) with a history, and complete the batch.

    With ``history`` the queues hold as many observations, and else as many as they are made for.
    """
    observed = observed_keys(policy)
    if not observed:
        return batch
    images = [batch[key] for key in policy.config.image_features if key in batch]  # (B,n,C,h,w) each
    if images:
        batch = {OBS_IMAGES: torch.stack(images, dim=-4), OBS_IMAGE: images[0], **batch}
    for key in observed:
        if key in batch:
            length, steps = history or policy._queues[key].maxlen or 1, batch[key].unbind(1)
            # The first one stands for what is missing.
            policy._queues[key] = deque([*[steps[0]] * length, *steps], maxlen=length)
    return batch


def batched(observations: Sequence[Observation]) -> Observation:
    """Join observations of `AskedPolicy.take` to a batch; texts become a list."""
    return torch.utils.data.default_collate(list(observations))


def exchanged(own: Observation, other: Observation, keys: Sequence[str]) -> Observation:
    """Make the observation that is ``own`` but for some keys, whose whole history is ``other``'s."""
    return {**own, **{key: other[key] for key in keys}}


def chunk_distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square difference (B,) of two batches of chunks (B,H,A)."""
    return (a - b).square().flatten(1).mean(1).sqrt()


def episodes_of(dataset: LeRobotDataset) -> np.ndarray:
    """List the episode (N,) of every frame that a dataset hands out."""
    column = dataset.hf_dataset.select_columns(["episode_index"]).with_format("arrow")[:]
    return column.column("episode_index").to_numpy().astype(np.int64).reshape(-1)

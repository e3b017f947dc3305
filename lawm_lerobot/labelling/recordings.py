"""The two datasets of a labelling run: video to label, and labelled demonstrations to learn from."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from lerobot.utils.constants import ACTION
from tqdm import tqdm

from lawm_lerobot.labelling.configuration import AUTO, INVERSE_MODEL, LabelActionsConfig
from lawm_lerobot.labelling.decoders import Demonstration
from lawm_lerobot.labels.demonstrations import check_demonstrations, labelled_camera
from lawm_lerobot.labels.episodes import EpisodeReader
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.statistics.ridge import varies

logger = logging.getLogger(__name__)

# Features that LeRobot writes for every dataset.
DEFAULT_FEATURES = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass
class Recordings:
    """Two datasets that fit each other.

    Args:
        corpus: The unlabelled dataset.
        corpus_camera: The camera of the corpus that is decoded.
        demos: The dataset of labelled demonstrations.
        demos_camera: The camera of the demonstrations that the decoders learn from.
        episodes: The demonstrations in use, by their episode.
        image_size: Pixels of the square frames that the decoders see.
    """

    corpus: EpisodeReader
    corpus_camera: str
    demos: EpisodeReader
    demos_camera: str
    episodes: list[int]
    image_size: int

    @cached_property
    def moving(self) -> np.ndarray:
        """(A,) bool: the dimensions of the action that are not the same in all frames of the demonstrations."""
        return varies(np.concatenate([self.demos.numbers(episode, ACTION) for episode in self.episodes]))

    def with_still(self, actions: np.ndarray) -> np.ndarray:
        """(N,moving) -> (N,A): the other dimensions are what they are in the demonstrations, exactly."""
        whole = np.repeat(self.demos.numbers(self.episodes[0], ACTION)[:1], len(actions), 0)
        whole[:, self.moving] = actions
        return whole

    def action_names(self) -> list[str]:
        """Names of the action's dimensions, however the dataset writes them."""
        feature = self.demos.features[ACTION]
        names = feature.get("names")
        if isinstance(names, dict):
            names = next((value for value in names.values() if isinstance(value, list)), list(names))
        dimension = int(feature["shape"][0])
        if not isinstance(names, list) or len(names) != dimension:
            return [f"action_{i}" for i in range(dimension)]
        return [str(name) for name in names]


def open_recordings(config: LabelActionsConfig, policy: LawmPolicy | None) -> Recordings:
    """Open both datasets; raises ValueError if they do not fit each other, the checkpoint or the flags."""
    data, labels = config.dataset, config.labels
    seconds = config.tolerance_s
    corpus = EpisodeReader(data.repo_id, data.root, data.revision, flag="--dataset", tolerance_s=seconds)
    if ACTION in corpus.features:
        raise ValueError(
            f"{data.repo_id} has an 'action' already, expected an unlabelled dataset: change "
            "--dataset.repo_id, or remove it with LeRobot's lerobot-edit-dataset."
        )
    demos = EpisodeReader(labels.repo_id, labels.root, labels.revision, flag="--labels", tolerance_s=seconds)
    episodes = demos.episodes if labels.episodes is None else sorted(set(labels.episodes))
    if len(episodes) < 2 or not set(episodes) <= set(demos.episodes):
        raise ValueError(
            f"Demonstrations {episodes} were asked for, expected at least two of 0 to "
            f"{len(demos.episodes) - 1}, one of them to hold out: change --labels.episodes."
        )
    strides = [policy.config.latent_action.stride] if policy is not None else []
    strides += [config.inverse_model.stride] if config.decoder in (AUTO, INVERSE_MODEL) else []
    check_demonstrations(demos, corpus.fps, max(strides))
    demos.check_finite(ACTION, episodes)
    if policy is not None and policy.config.dataset_fps not in (None, corpus.fps):
        raise ValueError(
            f"The checkpoint was pretrained at {policy.config.dataset_fps} frames per second and "
            f"{data.repo_id} has {corpus.fps}: resample it with lawm-import-videos --fps, or change --policy.path."
        )
    if config.merge:
        features_to_drop(corpus.features, demos.features)  # raises now rather than after the work
    same_as = policy.camera if policy is not None else None
    corpus_camera = labelled_camera(corpus, data.camera, same_as, "--dataset.camera")
    return Recordings(
        corpus,
        corpus_camera,
        demos,
        labelled_camera(demos, labels.camera, corpus_camera, "--labels.camera"),
        episodes,
        config.image_size if policy is None else policy.config.world_model.image_size,
    )


def read_demonstrations(recordings: Recordings) -> list[Demonstration]:
    """Frames and true actions of the demonstrations in use, without the dimensions that never move."""
    demos, size, moving = recordings.demos, (recordings.image_size,) * 2, recordings.moving
    still = [name for name, moves in zip(recordings.action_names(), moving, strict=True) if not moves]
    if not moving.any():
        raise ValueError(
            f"The actions of {demos.dataset.repo_id} are the same in every frame, so there is nothing to decode: "
            "change --labels.repo_id or --labels.episodes."
        )
    if still:
        logger.warning(
            f"{', '.join(still)} never moves in the demonstrations, so it is written as it is there."
        )
    bar = tqdm(recordings.episodes, desc="Reading the demonstrations", unit="episode")
    return [
        Demonstration(
            demos.frames(episode, recordings.demos_camera, size),
            demos.numbers(episode, ACTION)[:, moving],
            number,
        )
        for number, episode in enumerate(bar)
    ]


def features_to_drop(corpus: dict[str, dict], demos: dict[str, dict]) -> tuple[list[str], list[str]]:
    """The features that only the corpus has, and only the demonstrations: without them the two can be merged.

    Raises ValueError if they share no camera, or if a shared feature has two shapes.
    """
    ours = {key: ft for key, ft in corpus.items() if key not in DEFAULT_FEATURES}
    theirs = {key: ft for key, ft in demos.items() if key not in (*DEFAULT_FEATURES, ACTION)}
    # LeRobot's aggregation takes tables through pandas, which language columns do not survive.
    shared = {key for key in ours.keys() & theirs.keys() if ours[key]["dtype"] != "language"}
    advice = "import one of them again (lawm-import-videos --camera, --size), or leave out --merge=true"
    if not any(ours[key]["dtype"] in ("video", "image") for key in shared):
        raise ValueError(
            f"The dataset's features ({', '.join(sorted(ours))}) and the demonstrations' "
            f"({', '.join(sorted(theirs))}) have no camera in common, so they cannot be merged: {advice}."
        )
    for key in sorted(shared):
        found, expected = (
            (ft["dtype"], list(ft["shape"]), ft.get("names")) for ft in (ours[key], theirs[key])
        )
        if found != expected:
            raise ValueError(
                f"{key} is {found} in the dataset and {expected} in the demonstrations, so they cannot be "
                f"merged: {advice}."
            )
    return sorted(ours.keys() - shared), sorted(theirs.keys() - shared)

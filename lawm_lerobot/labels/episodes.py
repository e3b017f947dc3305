"""Whole episodes of a LeRobotDataset, read in order: quicker than its items one by one, which seek for each."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.datasets.video_utils import FrameTimestampError, decode_video_frames
from torch import Tensor

from lawm_lerobot.method.frames import resize_frames

# Frames decoded at a time: full-size pictures of a long episode would fill the memory before they are shrunk.
DECODED_AT_ONCE = 64
# LeRobot's own default.
TOLERANCE_S = 1e-4


def training_dataset(meta: Any) -> Any | None:
    """The dataset that LeRobot trains on, found by its metadata; None without one.

    LeRobot gives a policy the metadata alone, which tells neither the episodes in use nor the image transforms.
    """
    found = None
    for held in gc.get_objects():
        if issubclass(type(held), torch.utils.data.Dataset) and getattr(held, "meta", None) is meta:
            if getattr(held, "episodes", None) is not None:
                return held
            found = held
    return found


def episodes_in_use(meta: Any) -> list[int]:
    """The episodes that LeRobot trains on, of ``--dataset.episodes`` and without an evaluation split."""
    chosen = getattr(training_dataset(meta), "episodes", None)
    return list(range(meta.total_episodes)) if chosen is None else sorted(chosen)


def not_finite(repo_id: str, key: str, episode: int, frames: np.ndarray, flag: str) -> ValueError:
    """The error for values that are NaN or infinite in these frames of an episode."""
    more = f", and in {len(frames) - 1} more of its frames" if len(frames) > 1 else ""
    return ValueError(
        f"{repo_id} has a value of '{key}' that is not finite (NaN or infinite) in episode {episode}, frame "
        f"{frames[0]}{more}, expected finite numbers only: repair it, or leave the episode out with {flag}.episodes."
    )


class EpisodeReader:
    """Frames, numbers and task of whole episodes.

    Args:
        repo_id: The name of the dataset.
        root: The folder of the dataset; None looks it up as LeRobot does, in its cache and then on the Hub.
        revision: The revision of the dataset on the Hub.
        episodes: The episodes to read; None takes all.
        flag: The flags that give the dataset on the command line, for messages: ``--policy.labels``.
        tolerance_s: Seconds by which a picture's time may differ from its frame's, as LeRobot's ``--tolerance_s``.

    Raises:
        ValueError: If the dataset is not there, or lacks one of the episodes.
    """

    def __init__(
        self,
        repo_id: str,
        root: str | Path | None = None,
        revision: str | None = None,
        episodes: Sequence[int] | None = None,
        flag: str = "--dataset",
        tolerance_s: float = TOLERANCE_S,
    ) -> None:
        if root is not None and not (Path(root) / "meta" / "info.json").is_file():
            raise ValueError(
                f"{root} is not a LeRobotDataset (it has no meta/info.json): change {flag}.root."
            )
        chosen = None if episodes is None else sorted(set(episodes))
        total = LeRobotDatasetMetadata(repo_id, root, revision).total_episodes
        if chosen is not None and (not chosen or chosen[0] < 0 or chosen[-1] >= total):
            raise ValueError(
                f"Episodes {chosen} were asked for, but {repo_id} has episodes 0 to {total - 1}: "
                f"change {flag}.episodes."
            )
        self.dataset = LeRobotDataset(
            repo_id,
            root=root,
            revision=revision,
            episodes=chosen,
            return_uint8=True,
            tolerance_s=tolerance_s,
        )
        self.meta = self.dataset.meta
        self.flag = flag
        self.episodes = list(range(total)) if chosen is None else chosen
        self._columns: dict[str, np.ndarray] = {}
        rows = self.column("episode_index")[:, 0].astype(np.int64)
        self._rows = {
            episode: (int(np.searchsorted(rows, episode)), int(np.searchsorted(rows, episode, side="right")))
            for episode in self.episodes
        }

    @property
    def fps(self) -> int:
        return self.meta.fps

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        return self.meta.features

    def column(self, key: str) -> np.ndarray:
        """(N,D) float32 (integers as int64): a feature of numbers over all frames of `episodes`."""
        if key not in self._columns:
            table = self.dataset.hf_dataset.select_columns([key]).with_format("arrow")[:]
            values = table.column(key).to_numpy()
            values = np.stack([np.asarray(value) for value in values]) if values.dtype == object else values
            kind = np.int64 if np.issubdtype(values.dtype, np.integer) else np.float32
            self._columns[key] = values.reshape(len(values), -1).astype(kind)
        return self._columns[key]

    def check_finite(self, key: str, episodes: Sequence[int] | None = None) -> None:
        """Raises ValueError if a feature of numbers is NaN or infinite in one of the episodes; None takes all."""
        for episode in self.episodes if episodes is None else episodes:
            bad = np.flatnonzero(~np.isfinite(self.numbers(episode, key)).all(1))
            if len(bad):
                raise not_finite(self.dataset.repo_id, key, episode, bad, self.flag)

    def length(self, episode: int) -> int:
        first, end = self._rows[episode]
        return end - first

    def numbers(self, episode: int, key: str) -> np.ndarray:
        """(frames,D): the rows of `column` that belong to an episode."""
        first, end = self._rows[episode]
        return self.column(key)[first:end]

    def task(self, episode: int) -> str:
        return str(self.meta.episodes[episode]["tasks"][0])

    def frames(
        self, episode: int, camera: str, size: tuple[int, int] | None = None, span: range | None = None
    ) -> Tensor:
        """(frames,C,h,w) uint8 of one camera, resized to `size` (h,w) as pretraining resizes its clips.

        All frames of the episode, or those of a `span` of neighbouring ones, counted from 0.
        """
        first, end = self._rows[episode]
        span = range(end - first) if span is None else span
        parts = []
        for start in range(span.start, span.stop, DECODED_AT_ONCE):
            stop = min(start + DECODED_AT_ONCE, span.stop)
            images = self._decode(episode, camera, start, stop, first)
            parts.append(images if size is None else resize_frames(images, size))
        return torch.cat(parts)

    def _decode(self, episode: int, camera: str, start: int, stop: int, first: int) -> Tensor:
        """(stop-start,C,h,w) uint8: frames of an episode whose first row is `first`."""
        if camera in self.meta.video_keys:
            path = self.meta.root / self.meta.get_video_file_path(episode, camera)
            offset = float(self.meta.episodes[episode][f"videos/{camera}/from_timestamp"])
            times = [offset + float(time) for time in self.numbers(episode, "timestamp")[start:stop, 0]]
            try:
                return decode_video_frames(path, times, self.dataset.tolerance_s, return_uint8=True)
            except FrameTimestampError as error:
                scope = f"{self.flag}." if self.flag.startswith("--policy") else "--"
                raise ValueError(
                    f"Pictures of {camera} in episode {episode} of {self.dataset.repo_id} are not within "
                    f"{self.dataset.tolerance_s} s of their frames' times: record them anew, or raise {scope}tolerance_s."
                ) from error
        rows = self.dataset.hf_dataset.select_columns([camera])[first + start : first + stop]
        images = torch.stack(rows[camera])
        return images if images.dtype == torch.uint8 else (images * 255).round().to(torch.uint8)

"""Another LeRobotDataset, on this machine or from the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lawm_lerobot.importing.footage import DatasetVideo, ParquetPictures
from lawm_lerobot.importing.reasons import Reason, error_text
from lawm_lerobot.importing.segments import ImportSettingsError, LeftOut, Segment, readable
from lawm_lerobot.importing.sources.base import VideoSource

ACTION = "action"
STATE = "observation.state"


@VideoSource.register_subclass("lerobot")
@dataclass
class LeRobotSource(VideoSource):
    """Episodes of a LeRobotDataset (format v3), resampled and resized like any other video.

    Each chosen camera of each episode becomes an episode of its own, because the result has one camera. Labels, if kept,
    are those of the source frame that is shown (last one before t); actions that are differences between frames lose
    their meaning at another frame rate, so keep `--fps` at the source's for those.

    Args:
        path: Folder of the dataset; without it, `repo_id` is looked up locally and then on the Hub.
        repo_id: Name of the dataset.
        revision: Revision on the Hub.
        cameras: Image features to import, e.g. [observation.images.top]; empty takes all but depth maps.
        episodes: Numbers of the episodes to import; empty takes all of them.
        tolerance_s: Seconds by which a picture's time may differ from its frame's, as LeRobot's `--tolerance_s`; an episode
            ends before one that is further away. None takes the nearest picture, however far it is.
        keep_actions: Keep `action` as labels. Sources of a mixture may differ in them or have none, see docs/labels.md.
        keep_state: Keep `observation.state`. Every source of a mixture must then have one of the same shape.
    """

    repo_id: str = ""
    revision: str | None = None
    cameras: list[str] = field(default_factory=list)
    episodes: list[int] = field(default_factory=list)
    tolerance_s: float | None = None
    keep_actions: bool = False
    keep_state: bool = False

    DEFAULT_LICENSE_NOTE: ClassVar[str] = "as the source dataset's card says"

    def __post_init__(self) -> None:
        self._dataset_meta: Any = None
        self._rows: dict[str, Any] = {}
        # The first row of each data file, over the whole dataset.
        self._file_starts: dict[tuple[int, int], int] = {}

    def title(self) -> str:
        return self.name or (
            f"lerobot:{self.repo_id}" if self.repo_id and self.path is None else super().title()
        )

    def segments(self) -> Iterator[Segment | LeftOut]:
        from lawm_lerobot.labels.cameras import is_depth

        if self.tolerance_s is not None and not self.tolerance_s > 0:
            raise ImportSettingsError(f"--source.tolerance_s={self.tolerance_s} must be seconds above 0.")
        meta = self._meta()
        depth = [key for key in meta.camera_keys if key in meta.depth_keys or is_depth(key)]
        cameras = self.cameras or [key for key in meta.camera_keys if key not in depth]
        if not cameras and depth:
            raise ImportSettingsError(
                f"{self.title()} has depth cameras only ({', '.join(depth)}): name those to import in --source.cameras."
            )
        for key in depth if not self.cameras else ():
            yield self.left_out(key, "a depth camera", f"--source.cameras=[{key}] imports it")
        for camera in cameras:
            if camera not in meta.camera_keys:
                raise ImportSettingsError(
                    f"--source.cameras has {camera}, but {self.title()} has {', '.join(meta.camera_keys) or 'no camera'}."
                )
        for episode in meta.episodes:
            data_file = (episode["data/chunk_index"], episode["data/file_index"])
            start = int(episode["dataset_from_index"])
            self._file_starts[data_file] = min(start, self._file_starts.get(data_file, start))
        wanted = set(self.episodes)
        unknown = wanted - {int(episode["episode_index"]) for episode in meta.episodes}
        if unknown:
            raise ImportSettingsError(
                f"--source.episodes has {', '.join(map(str, sorted(unknown)))}, but {self.title()} has episodes 0 to "
                f"{meta.total_episodes - 1}."
            )
        for episode in meta.episodes:
            index = int(episode["episode_index"])
            if wanted and index not in wanted:
                continue
            fault = self._fault(index)
            if fault is not None:
                yield fault
                continue
            caption = "; ".join(str(task) for task in episode["tasks"])
            for camera in cameras:
                yield self._segment(meta, episode, index, camera, caption)

    def _segment(self, meta: Any, episode: dict, index: int, camera: str, caption: str) -> Segment | LeftOut:
        is_video = meta.features[camera]["dtype"] == "video"
        relative = meta.get_video_file_path(index, camera) if is_video else meta.get_data_file_path(index)
        shown = f"{readable(str(relative))}#episode={index}&camera={camera}"
        # The name comes from the dataset's info.json. Links are fine (the Hub's cache is made of them), `..` is not.
        if relative.is_absolute() or ".." in relative.parts:
            return self.left_out(shown, Reason.LEADS_OUT)
        path = Path(meta.root).absolute() / relative
        if not path.is_file():
            return self.left_out(shown, Reason.NOT_FOUND)
        fields: dict[str, Any] = {
            "relative_path": shown,
            "caption": caption or self.default_caption,
            "caption_source": "task",
            "license_note": self.license_note or self.DEFAULT_LICENSE_NOTE,
            "extra": {"episode": index},
        }
        if is_video:
            start = float(episode[f"videos/{camera}/from_timestamp"])
            end = start + int(episode["length"]) / meta.fps
            footage = DatasetVideo(str(path), start, float(meta.fps), self.tolerance_s)
            return Segment(footage, start_s=start, end_s=end, **fields)
        file_start = self._file_starts[episode["data/chunk_index"], episode["data/file_index"]]
        from_row = int(episode["dataset_from_index"]) - file_start
        to_row = from_row + int(episode["length"])
        return Segment(ParquetPictures(str(path), float(meta.fps), camera, from_row, to_row), **fields)

    def label_features(self) -> dict[str, dict]:
        meta = self._meta()
        features = {}
        for key, wanted in ((ACTION, self.keep_actions), (STATE, self.keep_state)):
            if not wanted:
                continue
            if key not in meta.features:
                flag = "keep_actions" if key == ACTION else "keep_state"
                raise ImportSettingsError(f"--source.{flag}=true, but {self.title()} has no {key}.")
            features[key] = {name: meta.features[key][name] for name in ("dtype", "shape", "names")}
        return features

    def labels(self, segment: Segment, times: np.ndarray) -> dict[str, np.ndarray]:
        numbers = self._numbers(segment.extra["episode"])
        meta = self._meta()
        found: dict[str, np.ndarray] = {}
        for key, values in numbers.items():
            steps = np.floor((times - segment.start_s) * meta.fps + 1e-3).astype(int).clip(0, len(values) - 1)
            found[key] = values[steps].astype(meta.features[key]["dtype"])
        return found

    def _numbers(self, episode: int) -> dict[str, np.ndarray]:
        """(frames,D) of every label that is kept."""
        keys = list(self.label_features())
        if not keys:
            return {}
        import pyarrow.parquet as pq

        meta = self._meta()
        path = str(Path(meta.root) / meta.get_data_file_path(episode))
        if path not in self._rows:
            # One file at a time: segments come in episode order.
            self._rows = {path: pq.read_table(path, columns=[*keys, "episode_index"]).to_pandas()}
        table = self._rows[path]
        rows = table[table["episode_index"] == episode]
        return {key: np.stack([np.atleast_1d(value) for value in rows[key].to_numpy()]) for key in keys}

    def _fault(self, episode: int) -> LeftOut | None:
        """The reason for which the labels of an episode cannot be kept."""
        try:
            numbers = self._numbers(episode)
        except OSError as error:
            return self.left_out(f"episode={episode}", Reason.CANNOT_BE_READ, error_text(error))
        for key, values in numbers.items():
            bad = np.flatnonzero(~np.isfinite(values).all(1))
            if len(bad):
                where = f"{key} in frame {bad[0]}"
                return self.left_out(f"episode={episode}", "a value that is not finite", where)
        return None

    def _meta(self) -> Any:
        if self._dataset_meta is not None:
            return self._dataset_meta
        # LeRobot is imported here and not above: worker processes load this module and do not need it.
        from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata

        if self.path is None and not self.repo_id:
            raise ImportSettingsError("A source of type lerobot needs --source.path or --source.repo_id.")
        if self.path is not None and not (self.path / "meta" / "info.json").is_file():
            raise ImportSettingsError(
                f"--source.path={self.path} is not a LeRobotDataset (no meta/info.json)."
            )
        if self.path is not None:
            self._dataset_meta = LeRobotDatasetMetadata(self.repo_id or "local/source", root=self.path)
        else:
            self._dataset_meta = LeRobotDataset(self.repo_id, revision=self.revision).meta
        return self._dataset_meta

"""Encoded episodes -> a LeRobotDataset, with LeRobot's own metadata classes.

LeRobot's `save_episode` re-copies the current video file (up to 200 MB) and rewrites info and statistics once per
episode, which is quadratic for a hundred thousand of them. Here the same files are written in one pass, packets copied
without decoding. A test compares the result with a dataset written by LeRobot.
"""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.feature_utils import get_hf_features_from_features
from lerobot.datasets.io_utils import write_info, write_stats, write_tasks
from lerobot.datasets.utils import update_chunk_file_indices

from lawm_lerobot.hub.provenance import write_provenance
from lawm_lerobot.importing.config import ImportConfig
from lawm_lerobot.importing.encoding import lerobot_encoder
from lawm_lerobot.importing.tasks import EncodedEpisode

STATISTICS_CHUNK = 500  # episodes whose statistics are merged at a time; all at once would take gigabytes


class _DatasetVideo:
    """One mp4 of the dataset, filled episode by episode with copied packets at exact times."""

    def __init__(self, path: Path, fps: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.fps, self.frames, self.bytes = fps, 0, 0
        self._output = av.open(str(path), "w", options={"movflags": "faststart"})
        self._stream: Any = None
        self._header = b""

    def fits(self, source: Path) -> bool:
        """True if the episode was written with the same codec header; packets of another would not decode."""
        if self._stream is None:
            return True
        with av.open(str(source)) as container:
            header = container.streams.video[0].codec_context.extradata or b""
        return self._header == header

    def append(self, source: Path) -> int:
        """Copy an episode's packets; returns how many frames they are."""
        frames = 0
        with av.open(str(source)) as container:
            stream: Any = container.streams.video[0]
            if self._stream is None:
                self._stream = self._output.add_stream_from_template(stream, opaque=True)
                self._stream.time_base = stream.time_base
                self._header = stream.codec_context.extradata or b""
            # Times are counted in frames from the start of the file: sums of rounded durations would drift.
            shift = Fraction(self.frames, self.fps) / stream.time_base
            assert shift.denominator == 1, "the mp4 time base must hold a whole number of ticks per frame"
            for packet in container.demux(stream):
                if packet.dts is None or packet.pts is None:
                    continue
                packet.pts += int(shift)
                packet.dts += int(shift)
                packet.stream = self._stream
                self._output.mux(packet)
                frames += 1
        self.frames += frames
        self.bytes += source.stat().st_size
        return frames

    def close(self) -> None:
        self._output.close()


class DatasetAssembler:
    """Writes a LeRobotDataset from encoded episodes, in order. Use as a context manager; `finish` completes it."""

    def __init__(self, config: ImportConfig, root: Path, label_features: dict[str, dict]):
        shape = (*config.height_width(), 3)
        picture = {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"]}
        self.meta = LeRobotDatasetMetadata.create(
            repo_id=config.repo_id,
            fps=config.fps,
            features={config.camera: picture, **label_features},
            root=root,
            robot_type=None,
            use_videos=True,
        )
        self.root, self.fps, self.camera = root, config.fps, config.camera
        self.encoder = lerobot_encoder(config.encoder)
        self.meta._metadata_buffer_size = 200
        self._schema = get_hf_features_from_features(self.meta.features).arrow_schema
        self._scalar_features = {
            key: feature for key, feature in self.meta.features.items() if feature["dtype"] != "video"
        }
        self._tasks: dict[str, int] = {}
        self._video: _DatasetVideo | None = None
        self._video_index = (0, 0)
        self._data: pq.ParquetWriter | None = None
        self._data_path = root
        self._data_index = (0, 0)
        self._statistics: list[dict] = []
        self._provenance: list[dict[str, Any]] = []

    def __enter__(self) -> DatasetAssembler:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self._close_files()

    def add(
        self,
        video: Path,
        episode: EncodedEpisode,
        *,
        labels: dict[str, np.ndarray],
        provenance: dict[str, Any],
    ) -> None:
        """Append one episode with its labels for every frame; the caption of `provenance` becomes its task."""
        index, first_row = self.meta.info.total_episodes, self.meta.info.total_frames
        count, caption = episode.frames, provenance["caption"]
        video_meta = self._add_video(video, count)
        task_index = self._tasks.setdefault(caption, len(self._tasks))
        columns: dict[str, np.ndarray] = {
            **labels,
            "timestamp": np.arange(count) / self.fps,
            "frame_index": np.arange(count),
            "episode_index": np.full(count, index),
            "index": np.arange(first_row, first_row + count),
            "task_index": np.full(count, task_index),
        }
        statistics = compute_episode_stats(columns, self._scalar_features)
        statistics[self.camera] = {key: np.array(value) for key, value in episode.statistics.items()}
        data_meta = self._add_rows(columns, first_row, count)
        row: dict[str, Any] = {"episode_index": index, "tasks": [caption], "length": count}
        row |= data_meta | video_meta
        for key, values in statistics.items():
            row.update({f"stats/{key}/{name}": value for name, value in values.items()})
        self.meta._save_episode_metadata(row)
        self.meta.info.total_episodes += 1
        self.meta.info.total_frames += count
        self._statistics.append(statistics)
        if len(self._statistics) >= STATISTICS_CHUNK:
            self._statistics = [aggregate_stats(self._statistics)]
        self._provenance.append({"episode_index": index, **provenance})

    def finish(self) -> None:
        """Write tasks, info, statistics and provenance; the dataset is complete after this."""
        if not self.meta.info.total_episodes:
            raise ValueError("a dataset needs at least one episode")
        self._close_files()
        self.meta.finalize()
        names = pd.Index(list(self._tasks), name="task")
        self.meta.tasks = pd.DataFrame({"task_index": list(self._tasks.values())}, index=names)
        write_tasks(self.meta.tasks, self.root)
        self.meta.info.total_tasks = len(self._tasks)
        self.meta.info.splits = {"train": f"0:{self.meta.info.total_episodes}"}
        self.meta.update_video_info(self.camera, video_encoder=self.encoder)
        write_info(self.meta.info, self.root)
        statistics = aggregate_stats(self._statistics)  # its order changes from process to process
        self.meta.stats = {key: statistics[key] for key in self.meta.features}
        write_stats(self.meta.stats, self.root)
        write_provenance(self._provenance, self.root)

    def _add_video(self, source: Path, frames: int) -> dict[str, Any]:
        limit = self.meta.video_files_size_in_mb * 1024**2
        size = source.stat().st_size
        video = self._video
        if video is not None and (video.bytes + size >= limit or not video.fits(source)):
            video.close()
            video = None
            self._video_index = update_chunk_file_indices(*self._video_index, self.meta.chunks_size)
        chunk, file = self._video_index
        if video is None:
            name = str(self.meta.video_path).format(video_key=self.camera, chunk_index=chunk, file_index=file)
            video = self._video = _DatasetVideo(self.root / name, self.fps)
        start = video.frames
        copied = video.append(source)
        if copied != frames:
            raise RuntimeError(f"{source} has {copied} frames, its record says {frames}")
        key = f"videos/{self.camera}"
        return {
            f"{key}/chunk_index": chunk,
            f"{key}/file_index": file,
            f"{key}/from_timestamp": start / self.fps,
            f"{key}/to_timestamp": video.frames / self.fps,
        }

    def _add_rows(self, columns: dict[str, np.ndarray], first_row: int, count: int) -> dict[str, Any]:
        limit = self.meta.data_files_size_in_mb * 1024**2
        if self._data is not None and self._data_path.stat().st_size >= limit:
            self._data.close()
            self._data = None
            self._data_index = update_chunk_file_indices(*self._data_index, self.meta.chunks_size)
        chunk, file = self._data_index
        if self._data is None:
            self._data_path = self.root / self.meta.data_path.format(chunk_index=chunk, file_index=file)
            self._data_path.parent.mkdir(parents=True, exist_ok=True)
            self._data = pq.ParquetWriter(self._data_path, self._schema, compression="snappy")
        arrays = []
        for field in self._schema:
            values = columns[field.name]
            if self.meta.features[field.name]["shape"] == (1,):
                values = values.reshape(count)  # LeRobot stores features of one number as plain columns
            arrays.append(pa.array(values if values.ndim == 1 else values.tolist(), type=field.type))
        # One row group per episode, as LeRobot writes: a reader of one episode touches one group.
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        self._data.write_table(table, row_group_size=max(1, count))
        return {
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": first_row,
            "dataset_to_index": first_row + count,
        }

    def _close_files(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None
        if self._data is not None:
            self._data.close()
            self._data = None

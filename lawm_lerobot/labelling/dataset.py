"""A copy of an unlabelled dataset with decoded actions; its videos are copied, never decoded.

LeRobot draws every frame of a dataset equally often. So that a few demonstrations have a fixed share of every batch beside
much video, their episodes stand in the tables several times; all copies point at the same pictures of one video file.

Tables stay Arrow's from one file to the other: LeRobot's language columns, lists of records, do not survive pandas, and so
LeRobot's own tools either. Those also add features without statistics, and can only drop an episode by re-encoding the
video that it shares with others. Here a dropped episode's pictures stay in a shared file, unused.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
from lerobot.datasets.feature_utils import get_hf_features_from_features
from lerobot.datasets.io_utils import get_file_size_in_mb, load_info, load_stats, write_info, write_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import DEFAULT_TASKS_PATH, DatasetInfo, update_chunk_file_indices
from lerobot.utils.constants import ACTION

from lawm_lerobot.hub.provenance import PROVENANCE_PATH, read_provenance, write_provenance
from lawm_lerobot.labelling.decoders import DecodedCorpus
from lawm_lerobot.labelling.recordings import Recordings, features_to_drop

logger = logging.getLogger(__name__)

CONFIDENCE = "action_confidence"
CONFIDENCE_FEATURE = {"dtype": "float32", "shape": (1,), "names": None}
# Each copy of an episode has numbers of its own.
NUMBERS = ("episode_index", "index")

Statistics = dict[str, dict[str, np.ndarray]]  # by feature and by name


@dataclass
class _KeptEpisode:
    """An episode of a copied dataset.

    Args:
        first: The dataset index of its first frame.
        end: The dataset index after its last frame.
        chunk: The number of the folder of its data file.
        file: The number of its data file in that folder.
        statistics: Statistics of the features that were added, and of its numbers.
    """

    first: int
    end: int
    chunk: int
    file: int
    statistics: Statistics


class _DataFiles:
    """The data files of a dataset that is being written, an episode a row group as in LeRobot's own.

    Args:
        root: The dataset's folder.
        info: The dataset's metadata, which limit the size and the number of files.
    """

    def __init__(self, root: Path, info: DatasetInfo) -> None:
        self._root, self._info = root, info
        self._chunk, self._file = 0, -1
        self._writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> tuple[int, int]:
        """Write the rows of one episode; returns the numbers of chunk and file they stand in."""
        if (
            self._writer is None
            or not self._writer.schema.equals(rows.schema, check_metadata=True)
            or self._full()
        ):
            self.close()
            self._chunk, self._file = update_chunk_file_indices(
                self._chunk, self._file, self._info.chunks_size
            )
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, rows.schema)
        self._writer.write_table(rows)
        return self._chunk, self._file

    @property
    def _path(self) -> Path:
        return self._root / self._info.data_path.format(chunk_index=self._chunk, file_index=self._file)

    def _full(self) -> bool:
        return get_file_size_in_mb(self._path) >= self._info.data_files_size_in_mb

    def close(self) -> None:
        """Complete the last file."""
        if self._writer is not None:
            self._writer.close()


def copies_for_share(share: float | None, demonstrations: int, corpus: int) -> int:
    """The copies of every demonstration with which they have, as nearly as whole copies can, a share of all frames.

    Args:
        share: The demonstrations' share, below 1; 0 or None asks for one copy.
        demonstrations: Frames of the demonstrations.
        corpus: Frames of the corpus, each of which stands in the dataset once.
    """
    if not share:
        return 1
    return max(round(share / (1 - share) * corpus / demonstrations), 1)


def write_labelled_dataset(
    recordings: Recordings, decoded: DecodedCorpus, repo_id: str, copies: int, root: Path
) -> None:
    """Write the corpus's confidently decoded episodes with `action` and `action_confidence`.

    Args:
        recordings: The corpus and the demonstrations, whose units the actions are in.
        decoded: The decoded actions.
        repo_id: The name of the result.
        copies: Times that every demonstration is put in as well, with a confidence of 1; 0 leaves them out.
        root: The folder to make. Parts of a merged dataset stand beside it.
    """
    corpus, demos = recordings.corpus, recordings.demos
    feature = {key: demos.features[ACTION].get(key) for key in ("dtype", "shape", "names")}
    actions = {
        ACTION: (decoded.actions, {**feature, "dtype": "float32"}),
        CONFIDENCE: (decoded.confidence[:, None], CONFIDENCE_FEATURE),
    }
    robot_type = demos.meta.robot_type
    if not copies:
        copy_with(corpus.dataset, actions, decoded.kept, [], robot_type, root)
        return
    dropped, demos_dropped = features_to_drop(corpus.features, demos.features)
    for key in sorted({*dropped, *demos_dropped}):
        in_both = key in dropped and key in demos_dropped
        reason = "cannot be merged by LeRobot" if in_both else "is in one of the two datasets only"
        logger.warning(f"{key} {reason}, so the merged one does without it.")
    parts = [root.with_name(f"{root.name}.{part}") for part in ("corpus", "demonstrations")]
    copy_with(corpus.dataset, actions, decoded.kept, dropped, robot_type, parts[0])
    certain = {CONFIDENCE: (np.ones((demos.meta.total_frames, 1), np.float32), CONFIDENCE_FEATURE)}
    copy_with(demos.dataset, certain, recordings.episodes, demos_dropped, robot_type, parts[1], copies)
    merge(repo_id, parts, root)


def copy_with(
    dataset: LeRobotDataset,
    added: dict[str, tuple[np.ndarray, dict[str, Any]]],
    keep: Sequence[int],
    without: Sequence[str],
    robot_type: str | None,
    root: Path,
    copies: int = 1,
) -> None:
    """Copy a dataset to ``root`` with more features.

    Statistics are those of the frames as they are written, copies included.

    Args:
        dataset: The dataset, with all of its episodes.
        added: The values (N,D), by dataset index, and the feature, of each feature to add.
        keep: The episodes of the result, in order.
        without: The features to leave out.
        robot_type: The robot whose units the actions are in.
        root: The folder to make.
        copies: Times that each episode stands in the result, one after the other. Copies share the pictures of a video;
            pictures that stand in the tables are in each of them.
    """
    source, info = dataset.root, load_info(dataset.root)
    numbers = {old: range(new * copies, (new + 1) * copies) for new, old in enumerate(keep)}
    whole = len(keep) == info.total_episodes
    info.features = {key: ft for key, ft in info.features.items() if key not in without}
    info.features |= {key: feature for key, (_, feature) in added.items()}
    kept = _copy_frames(source, root, numbers, added, without, info)
    every = _copy_episodes(source, root, numbers, kept, info.features)
    stats: Statistics = {}
    if whole:  # Those of the whole dataset are more exact than what its episodes' quantiles tell.
        every = [episode.statistics for episode in kept.values()]
        stats = load_stats(source) or {}
        for found in stats.values():
            if "count" in found:
                found["count"] = copies * found["count"]
    stats |= aggregate_stats(every)
    write_stats({key: stats[key] for key in info.features if key in stats}, root)
    shutil.copy(source / DEFAULT_TASKS_PATH, root / DEFAULT_TASKS_PATH)
    if (source / PROVENANCE_PATH).is_file():
        rows = {row["episode_index"]: row for row in read_provenance(source)}
        write_provenance(
            [{**rows[old], "episode_index": n} for old, new in numbers.items() if old in rows for n in new],
            root,
        )
    for key in set(dataset.meta.video_keys) - set(without):
        for file in {dataset.meta.get_video_file_path(episode, key) for episode in keep}:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / file, root / file)
    info.total_episodes, info.total_frames = len(kept), max(episode.end for episode in kept.values())
    info.splits = {"train": f"0:{len(kept)}"}
    info.robot_type = robot_type
    write_info(info, root)


def _copy_frames(
    source: Path,
    root: Path,
    numbers: Mapping[int, Sequence[int]],
    added: dict[str, tuple[np.ndarray, dict[str, Any]]],
    without: Sequence[str],
    info: DatasetInfo,
) -> dict[int, _KeptEpisode]:
    """Copy the frames of the episodes in ``numbers``, which has all new numbers of an old one, and return these episodes."""
    kept: dict[int, _KeptEpisode] = {}
    schema = get_hf_features_from_features(info.features).arrow_schema
    judged = {key: info.features[key] for key in (*added, *NUMBERS)}
    frames = 0
    with closing(_DataFiles(root, info)) as files:
        for _, table in _tables(source / "data", numbers):
            table = table.drop_columns([key for key in without if key in table.column_names])
            table = table.replace_schema_metadata(schema.metadata)
            old, episodes = np.array(table["index"]), np.array(table["episode_index"])
            # LeRobot stores, and judges, features of one number as plain columns.
            values = {
                key: values[old, 0] if values.shape[1] == 1 else values[old]
                for key, (values, _) in added.items()
            }
            for key, value in values.items():
                table = _with_column(table, key, value.tolist(), schema.field(key).type)
            for episode in dict.fromkeys(episodes.tolist()):
                rows = np.flatnonzero(episodes == episode)
                part = table.slice(int(rows[0]), len(rows))
                found = {key: value[rows] for key, value in values.items()}
                for number in numbers[episode]:
                    first, end = frames, frames + len(rows)
                    found["episode_index"], found["index"] = np.full(len(rows), number), np.arange(first, end)
                    for key in NUMBERS:
                        part = _with_column(part, key, found[key].tolist())
                    place = files.write(part)
                    kept[number] = _KeptEpisode(first, end, *place, _statistics(found, judged))
                    frames = end
    return kept


def _statistics(values: dict[str, np.ndarray], features: dict[str, dict]) -> Statistics:
    """LeRobot's statistics of an episode, whose quantiles are of one precision or the other as its length and values have it.

    All episodes stand in one column, so they are given in one.
    """
    return {
        key: {name: v.astype(np.float64) if v.dtype.kind == "f" else v for name, v in stats.items()}
        for key, stats in compute_episode_stats(values, features).items()
    }


def _copy_episodes(
    source: Path,
    root: Path,
    numbers: Mapping[int, Sequence[int]],
    kept: dict[int, _KeptEpisode],
    features: dict[str, dict],
) -> list[Statistics]:
    """Copy the table of episodes for those in ``numbers``; returns the statistics of each that is written."""
    every: list[Statistics] = []
    for file, table in _tables(source / "meta" / "episodes", numbers):
        parts = {name: name.split("/") for name in table.column_names}
        gone = [c for c, p in parts.items() if p[0] in ("stats", "videos") and p[1] not in features]
        table = table.drop_columns(gone)
        old = table["episode_index"].to_pylist()
        table = table.take([row for row, number in enumerate(old) for _ in numbers[number]])
        written = [new for number in old for new in numbers[number]]
        episodes = [kept[number] for number in written]
        columns: dict[str, list] = {
            "episode_index": written,
            "dataset_from_index": [episode.first for episode in episodes],
            "dataset_to_index": [episode.end for episode in episodes],
            "data/chunk_index": [episode.chunk for episode in episodes],
            "data/file_index": [episode.file for episode in episodes],
        }
        for key, statistics in episodes[0].statistics.items():
            for name in statistics:
                columns[f"stats/{key}/{name}"] = [
                    episode.statistics[key][name].tolist() for episode in episodes
                ]
        for name, column in columns.items():
            table = _with_column(table, name, column)
        for row in table.select([c for c in table.column_names if c.startswith("stats/")]).to_pylist():
            found: Statistics = {}
            for column, value in row.items():
                _, key, name = column.split("/")
                found.setdefault(key, {})[name] = np.array(value)  # pictures' come nested, (C,1,1)
            every.append(found)
        _write(table.replace_schema_metadata(None), root / file.relative_to(source))
    return every


def _tables(folder: Path, episodes: Mapping[int, Any]) -> Iterator[tuple[Path, pa.Table]]:
    """The files below a folder that have some of the `episodes`, and their rows of these."""
    for file in sorted(folder.glob("*/*.parquet")):
        table = pq.read_table(file)
        table = table.filter(pa.array(np.isin(table["episode_index"], list(episodes))))
        if len(table):
            yield file, table


def _with_column(table: pa.Table, name: str, values: list, kind: pa.DataType | None = None) -> pa.Table:
    column = pa.array(values, type=kind)
    if name not in table.column_names:
        return table.append_column(name, column)
    return table.set_column(table.column_names.index(name), name, column.cast(table[name].type))


def _write(table: pa.Table, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)


def merge(repo_id: str, parts: Sequence[Path], root: Path) -> None:
    """Put datasets together by LeRobot's aggregation. Their video files are copied side by side: files of
    different recordings need not have the same codec settings."""
    aggregate_datasets(
        repo_ids=[repo_id] * len(parts),
        aggr_repo_id=repo_id,
        roots=list(parts),
        aggr_root=root,
        concatenate_videos=False,
    )
    provenance = parts[0] / PROVENANCE_PATH
    if provenance.is_file():
        write_provenance(read_provenance(parts[0]), root)

"""A copy of an unlabelled dataset with decoded actions; its videos are copied, never decoded.

Tables stay Arrow's from one file to the other: LeRobot's language columns, lists of records, do not survive pandas, and so
LeRobot's own tools either. Those also add features without statistics, and can only drop an episode by re-encoding the
video that it shares with others. Here a dropped episode's pictures stay in a shared file, unused.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
from lerobot.datasets.feature_utils import get_hf_features_from_features
from lerobot.datasets.io_utils import load_info, load_stats, write_info, write_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import DEFAULT_TASKS_PATH
from lerobot.utils.constants import ACTION

from lawm_lerobot.hub.provenance import PROVENANCE_PATH, read_provenance, write_provenance
from lawm_lerobot.labelling.decoders import DecodedCorpus
from lawm_lerobot.labelling.recordings import Recordings, features_to_drop

logger = logging.getLogger(__name__)

CONFIDENCE = "action_confidence"
CONFIDENCE_FEATURE = {"dtype": "float32", "shape": (1,), "names": None}

Statistics = dict[str, dict[str, np.ndarray]]  # by feature and by name


@dataclass
class _KeptEpisode:
    """An episode of a copied dataset.

    Args:
        first: The dataset index of its first frame.
        end: The dataset index after its last frame.
        statistics: Statistics of the features that were added.
    """

    first: int
    end: int
    statistics: Statistics


def write_labelled_dataset(
    recordings: Recordings, decoded: DecodedCorpus, repo_id: str, with_demonstrations: bool, root: Path
) -> None:
    """Write the corpus's confidently decoded episodes with `action` and `action_confidence`.

    Args:
        recordings: The corpus and the demonstrations, whose units the actions are in.
        decoded: The decoded actions.
        repo_id: The name of the result.
        with_demonstrations: Put the demonstrations in as well, with a confidence of 1.
        root: The folder to make. Parts of a merged dataset stand beside it.
    """
    corpus, demos = recordings.corpus, recordings.demos
    feature = {key: demos.features[ACTION].get(key) for key in ("dtype", "shape", "names")}
    actions = {
        ACTION: (decoded.actions, {**feature, "dtype": "float32"}),
        CONFIDENCE: (decoded.confidence[:, None], CONFIDENCE_FEATURE),
    }
    robot_type = demos.meta.robot_type
    if not with_demonstrations:
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
    copy_with(demos.dataset, certain, recordings.episodes, demos_dropped, robot_type, parts[1])
    merge(repo_id, parts, root)


def copy_with(
    dataset: LeRobotDataset,
    added: dict[str, tuple[np.ndarray, dict[str, Any]]],
    keep: Sequence[int],
    without: Sequence[str],
    robot_type: str | None,
    root: Path,
) -> None:
    """Copy a dataset to ``root`` with more features.

    Args:
        dataset: The dataset, with all of its episodes.
        added: The values (N,D), by dataset index, and the feature, of each feature to add.
        keep: The episodes of the result, in order.
        without: The features to leave out.
        robot_type: The robot whose units the actions are in.
        root: The folder to make.
    """
    source, new_index = dataset.root, {old: new for new, old in enumerate(keep)}
    info = load_info(source)
    whole = len(keep) == info.total_episodes
    info.features = {key: ft for key, ft in info.features.items() if key not in without}
    info.features |= {key: feature for key, (_, feature) in added.items()}
    kept = _copy_frames(source, root, new_index, added, without, info.features)
    every = _copy_episodes(source, root, new_index, kept, info.features)
    if whole:
        every = [episode.statistics for episode in kept.values()]
    stats = {**((load_stats(source) or {}) if whole else {}), **aggregate_stats(every)}
    write_stats({key: stats[key] for key in info.features if key in stats}, root)
    shutil.copy(source / DEFAULT_TASKS_PATH, root / DEFAULT_TASKS_PATH)
    if (source / PROVENANCE_PATH).is_file():
        rows = {row["episode_index"]: row for row in read_provenance(source)}
        numbered = [{**rows[old], "episode_index": new} for old, new in new_index.items() if old in rows]
        write_provenance(numbered, root)
    for key in set(dataset.meta.video_keys) - set(without):
        for file in {dataset.meta.get_video_file_path(episode, key) for episode in keep}:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / file, root / file)
    info.total_episodes, info.total_frames = len(keep), max(episode.end for episode in kept.values())
    info.splits = {"train": f"0:{len(keep)}"}
    info.robot_type = robot_type
    write_info(info, root)


def _copy_frames(
    source: Path,
    root: Path,
    new_index: dict[int, int],
    added: dict[str, tuple[np.ndarray, dict[str, Any]]],
    without: Sequence[str],
    features: dict[str, dict],
) -> dict[int, _KeptEpisode]:
    """Copy the frames of the episodes in ``new_index``, old number to new; returns these episodes by new number."""
    kept: dict[int, _KeptEpisode] = {}
    schema = get_hf_features_from_features(features).arrow_schema
    frames = 0
    for file, table in _tables(source / "data", new_index):
        table = table.drop_columns([key for key in without if key in table.column_names])
        old, episodes = np.array(table["index"]), np.array(table["episode_index"])
        # LeRobot stores, and judges, features of one number as plain columns.
        values = {
            key: values[old, 0] if values.shape[1] == 1 else values[old] for key, (values, _) in added.items()
        }
        for episode in dict.fromkeys(episodes.tolist()):
            rows = np.flatnonzero(episodes == episode)
            found = compute_episode_stats(
                {key: value[rows] for key, value in values.items()},
                {key: feature for key, (_, feature) in added.items()},
            )
            statistics = {
                # LeRobot's quantiles are of one precision or the other, as an episode's length and values have it;
                # all episodes stand in one column.
                key: {name: v.astype(np.float64) if v.dtype.kind == "f" else v for name, v in stats.items()}
                for key, stats in found.items()
            }
            first = frames + int(rows[0])
            kept[new_index[episode]] = _KeptEpisode(first, first + len(rows), statistics)
        columns = {key: value.tolist() for key, value in values.items()}
        columns["episode_index"] = [new_index[episode] for episode in episodes.tolist()]
        columns["index"] = list(range(frames, frames + len(table)))
        for key, column in columns.items():
            table = _with_column(table, key, column, schema.field(key).type)
        frames += len(table)
        _write(table.replace_schema_metadata(schema.metadata), root / file.relative_to(source))
    return kept


def _copy_episodes(
    source: Path,
    root: Path,
    new_index: dict[int, int],
    kept: dict[int, _KeptEpisode],
    features: dict[str, dict],
) -> list[Statistics]:
    """Copy the table of episodes for those in ``new_index``; returns the statistics of each."""
    every: list[Statistics] = []
    for file, table in _tables(source / "meta" / "episodes", new_index):
        parts = {name: name.split("/") for name in table.column_names}
        gone = [c for c, p in parts.items() if p[0] in ("stats", "videos") and p[1] not in features]
        table = table.drop_columns(gone)
        numbers = [new_index[old] for old in table["episode_index"].to_pylist()]
        episodes = [kept[number] for number in numbers]
        columns: dict[str, list] = {
            "episode_index": numbers,
            "dataset_from_index": [episode.first for episode in episodes],
            "dataset_to_index": [episode.end for episode in episodes],
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


def _tables(folder: Path, episodes: dict[int, int]) -> Iterator[tuple[Path, pa.Table]]:
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

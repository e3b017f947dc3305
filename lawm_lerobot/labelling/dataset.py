"""A copy of an unlabelled dataset with decoded actions, by LeRobot's own dataset tools; videos are copied, never decoded.

What the tools leave undone is done here: they add features without statistics, and can only drop an episode by
re-encoding the video that it shares with others. Here a dropped episode's pictures stay in a shared file, unused.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
from lerobot.datasets.dataset_tools import modify_features
from lerobot.datasets.io_utils import load_info, load_stats, write_info, write_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION

from lawm_lerobot.hub.provenance import PROVENANCE_PATH, read_provenance, write_provenance
from lawm_lerobot.labelling.decoders import DecodedCorpus
from lawm_lerobot.labelling.recordings import Recordings, features_to_drop

logger = logging.getLogger(__name__)

CONFIDENCE = "action_confidence"
CONFIDENCE_FEATURE = {"dtype": "float32", "shape": (1,), "names": None}


@dataclass
class _KeptEpisode:
    """An episode of a copied dataset.

    Args:
        first: The dataset index of its first frame.
        end: The dataset index after its last frame.
        statistics: Statistics of the features that were added, by feature and by name.
    """

    first: int
    end: int
    statistics: dict[str, dict[str, np.ndarray]]


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
    for key in (*dropped, *demos_dropped):
        logger.warning(f"{key} is in one of the two datasets only, so the merged one does without it.")
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
        added: The values (N,D) of every frame, and the feature, of each feature to add.
        keep: The episodes of the result, in order.
        without: The features to leave out.
        robot_type: The robot whose units the actions are in.
        root: The folder to make.
    """
    modify_features(
        dataset,
        add_features=added,
        remove_features=list(without) or None,
        output_dir=root,
        repo_id=dataset.repo_id,
    )
    if (dataset.root / PROVENANCE_PATH).is_file():
        rows = {row["episode_index"]: row for row in read_provenance(dataset.root)}
        write_provenance(
            [{**rows[old], "episode_index": new} for new, old in enumerate(keep) if old in rows], root
        )
    info = load_info(root)
    new_index = {old: new for new, old in enumerate(keep)}
    kept = _reduce_data(root, new_index, {key: info.features[key] for key in added})
    every = _reduce_episodes(root, new_index, kept, info.features)
    if len(keep) == info.total_episodes:
        old_stats = {key: value for key, value in (load_stats(root) or {}).items() if key in info.features}
        stats = {**old_stats, **aggregate_stats([episode.statistics for episode in kept.values()])}
    else:
        stats = aggregate_stats(every)
    write_stats({key: stats[key] for key in info.features if key in stats}, root)
    info.total_episodes, info.total_frames = len(keep), max(episode.end for episode in kept.values())
    info.splits = {"train": f"0:{len(keep)}"}
    info.robot_type = robot_type
    write_info(info, root)
    _remove_unused_videos(root)


def _reduce_data(root: Path, new_index: dict[int, int], added: dict[str, dict]) -> dict[int, _KeptEpisode]:
    """Reduce a dataset's frames, in place, to the episodes in ``new_index``, old number to new.

    Returns those episodes, with the statistics of the features `added`, by their new number.
    """
    kept: dict[int, _KeptEpisode] = {}
    frames = 0
    for file in sorted((root / "data").glob("*/*.parquet")):
        table = pq.read_table(file)
        schema, rows = table.schema, table.to_pandas()
        rows = rows[rows["episode_index"].isin(new_index)].copy()
        if rows.empty:
            file.unlink()
            continue
        rows["episode_index"] = rows["episode_index"].map(new_index)
        rows["index"] = np.arange(frames, frames + len(rows))
        for episode, part in rows.groupby("episode_index"):
            # LeRobot stores, and judges, features of one number as plain columns.
            values = {key: np.stack(part[key].to_list()) for key in added}
            statistics = {
                # LeRobot's quantiles are of one precision or the other, as an episode's length and values have it;
                # all episodes stand in one column.
                key: {name: v.astype(np.float64) if v.dtype.kind == "f" else v for name, v in found.items()}
                for key, found in compute_episode_stats(values, added).items()
            }
            first = int(part["index"].iloc[0])
            kept[int(episode)] = _KeptEpisode(first, first + len(part), statistics)
        frames += len(rows)
        pq.write_table(pa.Table.from_pandas(rows, schema=schema, preserve_index=False), file)
    return kept


def _reduce_episodes(
    root: Path, new_index: dict[int, int], kept: dict[int, _KeptEpisode], features: dict[str, dict]
) -> list[dict[str, dict[str, np.ndarray]]]:
    """Reduce a dataset's table of episodes, in place; returns the statistics of those that stay.

    Columns of features that are not among `features` are left out.
    """
    every: list[dict[str, dict[str, np.ndarray]]] = []
    for file in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        rows = pd.read_parquet(file)
        rows = rows[rows["episode_index"].isin(new_index)].copy()
        if rows.empty:
            file.unlink()
            continue
        rows["episode_index"] = rows["episode_index"].map(new_index)
        gone = [c for c in rows if c.split("/")[0] in ("stats", "videos") and c.split("/")[1] not in features]
        rows = rows.drop(columns=gone)
        episodes = [kept[episode] for episode in rows["episode_index"]]
        rows["dataset_from_index"] = [episode.first for episode in episodes]
        rows["dataset_to_index"] = [episode.end for episode in episodes]
        for key, statistics in episodes[0].statistics.items():
            for name in statistics:
                rows[f"stats/{key}/{name}"] = [episode.statistics[key][name] for episode in episodes]
        every += [_row_statistics(row) for row in rows.to_dict("records")]
        rows.to_parquet(file, index=False)
    return every


def _row_statistics(row: dict[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """An episode's statistics from its row; pictures' come nested, (C,1,1)."""
    statistics: dict[str, dict[str, np.ndarray]] = {}
    for column, value in row.items():
        if column.startswith("stats/"):
            _, key, name = column.split("/")
            nested = np.array(value.tolist() if isinstance(value, np.ndarray) else value)
            if nested.dtype == object:
                nested = np.array([np.stack(part).tolist() for part in value], dtype=np.float64)
            statistics.setdefault(key, {})[name] = nested
    return statistics


def _remove_unused_videos(root: Path) -> None:
    episodes = pd.concat(
        pd.read_parquet(file) for file in sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    )
    for folder in (root / "videos").glob("*"):
        key = f"videos/{folder.name}"
        if f"{key}/chunk_index" not in episodes:
            continue
        used = set(zip(episodes[f"{key}/chunk_index"], episodes[f"{key}/file_index"], strict=True))
        for file in folder.glob("*/*.mp4"):
            if (int(file.parent.name.split("-")[1]), int(file.stem.split("-")[1])) not in used:
                file.unlink()


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

"""A copy of an unlabelled dataset with decoded actions, by LeRobot's own dataset tools; videos are copied, never decoded.

What the tools leave undone is done here: they add features without statistics, and can only drop an episode by
re-encoding the video that it shares with others. Here a dropped episode's pictures stay in a shared file, unused.
"""

from __future__ import annotations

from collections.abc import Sequence
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

CONFIDENCE = "action_confidence"
CONFIDENCE_FEATURE = {"dtype": "float32", "shape": (1,), "names": None}
#: Written by LeRobot for every dataset.
DEFAULT_FEATURES = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def add_labels(
    dataset: LeRobotDataset,
    actions: np.ndarray,
    confidence: np.ndarray,
    action_feature: dict[str, Any],
    robot_type: str | None,
    keep: Sequence[int],
    without: Sequence[str],
    root: Path,
) -> None:
    """Copy a dataset to ``root`` with `action` and `action_confidence`.

    Args:
        dataset: All of its episodes.
        actions: (N,A) float32 of every frame.
        confidence: (N,) float32.
        action_feature: The demonstrations' dtype, shape and names.
        robot_type: The demonstrations', whose units the actions are in.
        keep: Episodes of the result, in order.
        without: Features to leave out.
        root: Must not exist.
    """
    added = {ACTION: (actions, action_feature), CONFIDENCE: (confidence[:, None], CONFIDENCE_FEATURE)}
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
    finish_copy(root, keep, [ACTION, CONFIDENCE], robot_type)


def copy_demonstrations(
    dataset: LeRobotDataset, episodes: Sequence[int], without: Sequence[str], root: Path
) -> None:
    """Copy the demonstrations to ``root``, with a confidence of 1 and without the features ``without``."""
    frames = dataset.meta.total_frames
    added = {CONFIDENCE: (np.ones((frames, 1), np.float32), CONFIDENCE_FEATURE)}
    modify_features(
        dataset,
        add_features=added,
        remove_features=list(without) or None,
        output_dir=root,
        repo_id=dataset.repo_id,
    )
    finish_copy(root, episodes, [CONFIDENCE], dataset.meta.robot_type)


def finish_copy(root: Path, keep: Sequence[int], added: Sequence[str], robot_type: str | None) -> None:
    """Reduce a dataset, in place, to the episodes ``keep``, and write the statistics of ``added`` features."""
    info = load_info(root)
    new_index = {old: new for new, old in enumerate(keep)}
    statistics: dict[int, dict] = {}
    bounds: dict[int, tuple[int, int]] = {}
    frames = 0
    for file in sorted((root / "data").glob("*/*.parquet")):
        table = pq.read_table(file)
        schema, rows = table.schema, table.to_pandas()
        kept = rows[rows["episode_index"].isin(new_index)].copy()
        if kept.empty:
            file.unlink()
            continue
        kept["episode_index"] = kept["episode_index"].map(new_index)
        kept["index"] = np.arange(frames, frames + len(kept))
        for episode, part in kept.groupby("episode_index"):
            # LeRobot stores, and judges, features of one number as plain columns.
            values = {key: np.stack(part[key].to_list()) for key in added}
            features = {key: info.features[key] for key in added}
            statistics[int(episode)] = {
                # LeRobot's quantiles are of one precision or the other, as an episode's length and values have it;
                # all episodes stand in one column.
                key: {name: v.astype(np.float64) if v.dtype.kind == "f" else v for name, v in found.items()}
                for key, found in compute_episode_stats(values, features).items()
            }
            first = int(part["index"].iloc[0])
            bounds[int(episode)] = (first, first + len(part))
        frames += len(kept)
        pq.write_table(pa.Table.from_pandas(kept, schema=schema, preserve_index=False), file)

    everything: list[dict[str, dict[str, np.ndarray]]] = []
    for file in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        rows = pd.read_parquet(file)
        rows = rows[rows["episode_index"].isin(new_index)].copy()
        if rows.empty:
            file.unlink()
            continue
        rows["episode_index"] = rows["episode_index"].map(new_index)
        gone = [
            c for c in rows if c.split("/")[0] in ("stats", "videos") and c.split("/")[1] not in info.features
        ]
        rows = rows.drop(columns=gone)
        rows["dataset_from_index"] = [bounds[episode][0] for episode in rows["episode_index"]]
        rows["dataset_to_index"] = [bounds[episode][1] for episode in rows["episode_index"]]
        for key in added:
            for name in statistics[int(rows["episode_index"].iloc[0])][key]:
                rows[f"stats/{key}/{name}"] = [
                    statistics[episode][key][name] for episode in rows["episode_index"]
                ]
        everything += [_row_statistics(row) for row in rows.to_dict("records")]
        rows.to_parquet(file, index=False)

    if len(keep) == info.total_episodes:
        kept_stats = {key: value for key, value in (load_stats(root) or {}).items() if key in info.features}
        stats = {**kept_stats, **aggregate_stats(list(statistics.values()))}
    else:
        stats = aggregate_stats(everything)
    write_stats({key: stats[key] for key in info.features if key in stats}, root)
    info.total_episodes, info.total_frames = len(keep), frames
    info.splits = {"train": f"0:{len(keep)}"}
    info.robot_type = robot_type
    write_info(info, root)
    _remove_unused_videos(root)


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


def features_to_drop(corpus: dict[str, dict], demos: dict[str, dict]) -> tuple[list[str], list[str]]:
    """What each of two datasets has that the other lacks, so that without it they can be merged.

    Args:
        corpus: Features of the unlabelled dataset.
        demos: Of the demonstrations.

    Raises:
        ValueError: If they share no camera, or a shared feature has two shapes.
    """
    ours = {key: ft for key, ft in corpus.items() if key not in DEFAULT_FEATURES}
    theirs = {key: ft for key, ft in demos.items() if key not in (*DEFAULT_FEATURES, ACTION)}
    shared = ours.keys() & theirs.keys()
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

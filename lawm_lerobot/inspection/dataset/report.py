"""The report on a dataset: what is in it, what moves, what is odd, and the stride to take, on one page."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lerobot
import numpy as np

import lawm_lerobot
from lawm_lerobot.files import write_json, write_text, written_aside
from lawm_lerobot.inspection.dataset.demonstrations import Demonstrations, measure_demonstrations
from lawm_lerobot.inspection.dataset.motion import (
    FRAMES,
    Motion,
    find_copies,
    measure_motion,
    take_stretches,
)
from lawm_lerobot.inspection.dataset.verdict import GOOD, Verdict, judge
from lawm_lerobot.labels.cameras import is_depth, picture_shape
from lawm_lerobot.labels.episodes import EpisodeReader

logger = logging.getLogger(__name__)

PAGE, VALUES, PICTURE = "dataset.md", "dataset.json", "dataset.png"
#: Tasks that the page names.
NAMED = 5


@dataclass(frozen=True)
class Seen:
    """What was read of a dataset, and what it means.

    Args:
        reader: The dataset.
        motions: What moves, by camera.
        demonstrations: The measures of the numbers, if there are actions.
        verdict: What is said of it.
    """

    reader: EpisodeReader
    motions: dict[str, Motion]
    demonstrations: Demonstrations | None
    verdict: Verdict

    def contents(self) -> dict[str, Any]:
        """What is in the dataset, as plain data."""
        reader = self.reader
        lengths = np.array([reader.length(episode) for episode in reader.episodes]) / reader.fps
        tasks = Counter(reader.task(episode) for episode in reader.episodes)
        read = next(iter(self.motions.values()))
        return {
            "episodes": len(lengths),
            "frames": int(round(lengths.sum() * reader.fps)),
            "fps": reader.fps,
            "episode_seconds": {
                "shortest": round(float(lengths.min()), 3),
                "median": round(float(np.median(lengths)), 3),
                "longest": round(float(lengths.max()), 3),
            },
            "cameras": {camera: list(picture_shape(reader.features[camera])) for camera in self.motions},
            "tasks": dict(tasks.most_common()),
            "actions": self.demonstrations is not None,
            "frames_read": len(read.frame),
            "episodes_read": len(np.unique(read.episode)),
        }


def inspect_data(
    repo_id: str, root: Path | None, output_dir: Path, frames: int | None, tolerance_s: float
) -> Verdict:
    """Look at a dataset, and write the report to a new directory.

    Args:
        repo_id: The name of the dataset.
        root: The dataset's directory, if it is not in LeRobot's own cache.
        output_dir: The directory to write.
        frames: The number of frames to read of all cameras together; None takes `FRAMES`.
        tolerance_s: Seconds by which a picture's time may differ from its frame's.

    Raises:
        OSError: If ``output_dir`` holds something.
        ValueError: If the dataset has no camera of colours, or a number that is NaN or infinite.
    """
    reader = EpisodeReader(repo_id, root, tolerance_s=tolerance_s)
    cameras = [key for key in reader.meta.camera_keys if not is_depth(key)]
    if not cameras:
        raise ValueError(
            f"The dataset {repo_id} has no camera (it has {', '.join(sorted(reader.features))}), expected at least one that "
            "is not called depth: change --dataset.repo_id."
        )
    lengths = [reader.length(episode) for episode in reader.episodes]
    stretches = take_stretches(lengths, reader.fps, (frames or FRAMES) // len(cameras))
    motions = {camera: measure_motion(reader, camera, stretches) for camera in cameras}
    demonstrations = measure_demonstrations(reader, motions)
    episode_s = float(np.median(lengths)) / reader.fps
    verdict = judge(motions, reader.fps, episode_s, find_copies(reader, cameras[0]), demonstrations)
    seen = Seen(reader, motions, demonstrations, verdict)
    with written_aside(output_dir) as folder:
        folder.mkdir()
        _write(seen, folder)
    for sentence in verdict.findings.values():
        logger.warning(sentence)
    logger.info(f"Advised: {verdict.stride.sentence}")
    level = logging.INFO if verdict.verdict == GOOD else logging.WARNING
    logger.log(level, f"Dataset: {verdict.verdict}. The report is {output_dir / PAGE}")
    return verdict


def _write(seen: Seen, folder: Path) -> None:
    import matplotlib

    from lawm_lerobot.inspection.dataset.picture import draw_dataset

    matplotlib.use("Agg")
    verdict, contents = seen.verdict, seen.contents()
    about = {
        "dataset": seen.reader.dataset.repo_id,
        "versions": f"lawm_lerobot {lawm_lerobot.__version__}, lerobot {lerobot.__version__}",
    }
    values = {**asdict(verdict), "contents": contents, "about": about}
    if seen.demonstrations is not None:
        values["demonstrations"] = asdict(seen.demonstrations)
    write_json(folder / VALUES, values)
    draw_dataset(seen.motions, seen.demonstrations, verdict, seen.reader.fps, folder / PICTURE)
    write_text(folder / PAGE, _page(verdict, contents, about))


def _page(verdict: Verdict, contents: dict[str, Any], about: dict[str, str]) -> str:
    seconds, tasks = contents["episode_seconds"], contents["tasks"]
    cameras = [f"`{name}` ({width}x{height})" for name, (_, height, width) in contents["cameras"].items()]
    named = [f"“{task}” ({count})" for task, count in list(tasks.items())[:NAMED]]
    more = len(tasks) - NAMED
    lines = [
        f"# {about['dataset']}: {verdict.verdict}",
        "",
        *(f"- **{name}**: {sentence}" for name, sentence in verdict.findings.items()),
        f"- **stride**: {verdict.stride.sentence}",
        "",
        f"![What moves, where and when]({PICTURE})",
        "",
        "## What is in it",
        "",
        f"- {contents['episodes']} episodes of {contents['frames']} frames at {contents['fps']:g} frames per second; an "
        f"episode lasts {seconds['shortest']:.1f} to {seconds['longest']:.1f} s, the median one {seconds['median']:.1f} s",
        f"- cameras: {', '.join(cameras)}",
        f"- tasks, with their episodes: {', '.join(named)}{f' and {more} more' if more > 0 else ''}",
        f"- {'with' if contents['actions'] else 'without'} actions",
        f"- motion was measured on {contents['frames_read']} frames of {contents['episodes_read']} episodes",
        "",
        "## What was looked for and not found",
        "",
        *(f"- **{name}**: {sentence}" for name, sentence in verdict.passed.items()),
        "",
        f"{about['versions']}",
    ]
    return "\n".join(lines) + "\n"

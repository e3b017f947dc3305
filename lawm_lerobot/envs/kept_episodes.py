"""Recorded episodes on disk until their dataset is written, so that an interrupted recording goes on where it was."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count, takewhile
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from lawm_lerobot.envs.recording import (
    ExpertRecording,
    RecordedEpisode,
    check_root_is_free,
    default_root,
    record_expert_episodes,
    write_dataset,
)
from lawm_lerobot.files import read_json, write_json

SETTINGS = "recording.json"
# What an episode says beside its arrays.
SAID = ("task", "instruction", "seed", "success")


@dataclass(frozen=True)
class RecordedDataset:
    """A dataset that is written.

    Args:
        root: Its folder.
        frames: The number of its frames.
        successes: Whether the expert succeeded in each episode, by instruction.
    """

    root: Path
    frames: int
    successes: dict[str, list[bool]]

    def __str__(self) -> str:
        return f"{sum(map(len, self.successes.values()))} episodes, {self.frames} frames: {self.root}"


def record_dataset(
    recording: ExpertRecording,
    repo_id: str,
    root: Path | None = None,
    *,
    workers: int = 0,
    fps: int | None = None,
    with_actions: bool = True,
    with_state: bool = True,
    video: bool = True,
) -> RecordedDataset:
    """Record episodes and write them as a dataset, with a progress bar.

    Until the dataset is whole its episodes lie in ``<root>.episodes``, as large as their pictures, from where the same call
    goes on.

    Args:
        recording: The settings.
        repo_id: Name of the dataset, user/name.
        root: Folder to write; LeRobot's own for repo_id by default.
        workers: Number of processes that simulate and draw.
        fps: Frames per second; the simulation's by default.
        with_actions, with_state, video: Arguments of `write_dataset`.

    Raises:
        FileExistsError: If `root` exists.
        ValueError: If an interrupted recording with other settings lies there.
    """
    root = root or default_root(repo_id)
    check_root_is_free(root)
    kept = root.with_name(root.name + ".episodes")
    total = len(recording.tasks) * recording.episodes_per_task
    successes: dict[str, list[bool]] = {}

    def counted() -> Iterator[RecordedEpisode]:
        for episode in tqdm(keep_episodes(recording, kept, workers), total=total, unit="episode"):
            successes.setdefault(episode.instruction, []).append(episode.success)
            yield episode

    frames = write_dataset(
        counted(),
        recording.robot,
        repo_id=repo_id,
        root=root,
        fps=recording.fps if fps is None else fps,
        with_actions=with_actions,
        with_state=with_state,
        video=video,
    )
    shutil.rmtree(kept)
    return RecordedDataset(root, frames, successes)


def keep_episodes(recording: ExpertRecording, folder: Path, workers: int = 0) -> Iterator[RecordedEpisode]:
    """Yield the episodes of `record_expert_episodes`: those that `folder` has from there, the others recorded into it.

    Args:
        recording: The settings.
        folder: Made if it does not exist. Its files are as large as the pictures; remove it when the dataset is written.
        workers: Number of processes that simulate and draw.

    Raises:
        ValueError: If the folder holds episodes of other settings.
    """
    _check_settings(recording, folder)
    paths = (folder / f"{number:06d}.safetensors" for number in count())
    kept = list(takewhile(Path.is_file, paths))
    yield from map(_load, kept)
    for number, episode in enumerate(record_expert_episodes(recording, workers, skip=len(kept)), len(kept)):
        _save(episode, folder / f"{number:06d}.safetensors")
        yield episode


def _check_settings(recording: ExpertRecording, folder: Path) -> None:
    """Write the settings into a new folder; ValueError if it has others."""
    settings = {"recording": type(recording).__name__, **asdict(recording)}
    settings = json.loads(json.dumps(settings))  # tuples as the file has them
    if (found := read_json(folder / SETTINGS)) is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SETTINGS, settings)
    elif found != settings:
        changed = ", ".join(sorted(name for name in settings if settings[name] != found.get(name)))
        raise ValueError(
            f"{folder} holds episodes of an interrupted recording with other settings ({changed}): repeat that command "
            "to go on with it, or remove the folder"
        )


def _save(episode: RecordedEpisode, file: Path) -> None:
    """The whole episode or nothing."""
    arrays = {f"images.{camera}": images for camera, images in episode.images.items()}
    arrays |= {"state": episode.state, "action": episode.action}
    said = {name: json.dumps(getattr(episode, name)) for name in SAID}
    partial = file.with_suffix(".partial")
    save_file(arrays, partial, said)
    partial.replace(file)


def _load(file: Path) -> RecordedEpisode:
    with safe_open(file, framework="numpy") as stored:
        said = {name: json.loads(stored.metadata()[name]) for name in SAID}
        arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  not a dictionary
    state, action = arrays.pop("state"), arrays.pop("action")
    images = {name.removeprefix("images."): frames for name, frames in arrays.items()}
    return RecordedEpisode(**said, images=images, state=state, action=action)

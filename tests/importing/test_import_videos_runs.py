"""`lawm-import-videos` over time: kills and resumption, workers, caps, shards, memory."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.video_fixtures import write_video

from lawm_lerobot.importing.config import ImportConfig
from lawm_lerobot.scripts.lawm_import_videos import main

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
COMMAND = [sys.executable, "-m", "lawm_lerobot.scripts.lawm_import_videos"]


def arguments(source: Path, root: Path, *flags: str) -> list[str]:
    return [
        "--source.type=folder",
        f"--source.path={source}",
        "--repo_id=me/clips",
        f"--root={root}",
        "--size=64",
        *flags,
    ]


def summary_of(root: Path) -> dict:
    return json.loads((root / "import_summary.json").read_text())


def contents(root: Path) -> dict[str, object]:
    """Everything a dataset says: tables, texts and the bytes of its videos."""
    import pyarrow.parquet as pq

    result: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(root))
            result[name] = pq.read_table(path).to_pydict() if path.suffix == ".parquet" else path.read_bytes()
    return result


@pytest.fixture(scope="module")
def pile(tmp_path_factory) -> Path:
    """Sixteen videos, one of them longer and one broken."""
    source = tmp_path_factory.mktemp("pile")
    for number in range(14):
        write_video(source / f"part_{number % 3}" / f"{number:02d}.mp4", 60, 30, first_index=60 * number)
    write_video(source / "long.mp4", 900, 30)
    (source / "broken.mp4").write_bytes(b"no")
    return source


@pytest.fixture(scope="module")
def whole(pile, tmp_path_factory) -> Path:
    """The pile imported in one go."""
    root = tmp_path_factory.mktemp("whole") / "out"
    assert main(arguments(pile, root, "--workers=0", "--max_episode_s=4")) == 0
    return root


# ── kills ─────────────────────────────────────────────────────────────────────


def kill_until_done(pile: Path, root: Path, kills: int, seed: int) -> int:
    """Start the import, kill it at a random moment, and so on; then let it finish. Returns how many kills hit."""
    generator = random.Random(seed)
    command = [*COMMAND, *arguments(pile, root, "--workers=2", "--max_episode_s=4")]
    hits = 0
    for _ in range(kills):
        process = subprocess.Popen(
            command,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Half of the kills wait until tasks are being written, so that they do not all hit the start-up.
        deadline, target = time.monotonic() + 120, generator.choice([0, 0, 1, 4, 8, 14])
        partial = root.with_name(root.name + ".partial")
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(partial.glob("tasks/*/*"))) >= target:
                break
            time.sleep(0.005)
        time.sleep(generator.choice([0.0, 0.05, 0.3, 1.0, 3.0]) * generator.random())
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)  # the parent alone; its workers must notice
            hits += 1
        process.wait()
        if root.exists():
            break
    if not root.exists():
        assert main(arguments(pile, root, "--workers=0", "--max_episode_s=4")) == 0
    return hits


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_import_resumes_to_the_same_dataset(pile, whole, tmp_path, kills):
    hits, attempt = 0, 0
    while hits < kills:
        root = tmp_path / f"out_{attempt}"
        hits += kill_until_done(pile, root, kills - hits, seed=attempt)
        assert contents(root) == contents(whole)
        assert not root.with_name(root.name + ".partial").exists()
        attempt += 1


def test_a_kill_at_each_step_of_the_end_leaves_nothing_or_everything(pile, whole, tmp_path, monkeypatch):
    """The steps after the last task, one by one: writing the dataset, renaming it, clearing up."""
    import shutil

    class KilledError(BaseException):
        pass

    def die(*_args, **_kwargs):
        raise KilledError

    root = tmp_path / "out"
    argv = arguments(pile, root, "--workers=0", "--max_episode_s=4")
    steps = [
        ("lawm_lerobot.importing.assembly.DatasetAssembler.finish", die),
        ("lawm_lerobot.importing.publishing.write_card", die),
        ("lawm_lerobot.importing.summary.ImportSummary.write", die),
    ]
    for name, replacement in steps:
        with monkeypatch.context() as patch:
            patch.setattr(name, replacement)
            with pytest.raises(KilledError):
                main(argv)
        assert not root.exists()
    real_rmtree = shutil.rmtree

    def die_at_the_end(path, *args, **kwargs):
        if Path(path).name == "out.partial":
            raise KilledError
        real_rmtree(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("lawm_lerobot.importing.partial.shutil.rmtree", die_at_the_end)
        with pytest.raises(KilledError):
            main(argv)
    assert contents(root) == contents(whole)
    assert main(argv) == 0  # nothing left to do but the clearing up
    assert contents(root) == contents(whole)
    assert not (tmp_path / "out.partial").exists()


def test_an_unfinished_import_is_not_mixed_with_other_settings(pile, tmp_path, capsys, monkeypatch):
    root = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(
            "lawm_lerobot.importing.run.ImportRun.assemble",
            lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        assert main(arguments(pile, root, "--workers=0")) == 130
    capsys.readouterr()
    assert main(arguments(pile, root, "--workers=0", "--fps=15")) == 1
    message = capsys.readouterr().err
    assert "--fps changed" in message and message.count("\n") == 1
    video = write_video(pile / "new.mp4", 60, 30)
    try:
        assert main(arguments(pile, root, "--workers=0")) == 1
        assert "changed since the unfinished import" in capsys.readouterr().err
    finally:
        video.unlink()
    assert main(arguments(pile, root, "--workers=0")) == 0


def test_two_imports_into_one_folder_do_not_meet(pile, tmp_path, capsys):
    import fcntl

    partial = tmp_path / "out.partial"
    partial.mkdir()
    with open(partial / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(arguments(pile, tmp_path / "out", "--workers=0")) == 1
    assert "Another import is writing" in capsys.readouterr().err


# ── workers ───────────────────────────────────────────────────────────────────


class Bomb:
    """Kills the process that unpickles it, as a decoder that crashes does."""

    def __reduce__(self):
        return os.kill, (os.getpid(), signal.SIGSEGV) if False else (_SelfPid(), signal.SIGSEGV)


class _SelfPid(int):
    def __reduce__(self):
        return os.getpid, ()


def test_a_crashing_decoder_costs_one_file_and_not_the_import(pile):
    from lawm_lerobot.importing.footage import VideoFile
    from lawm_lerobot.importing.workers import Job, WorkerPool

    settings = ImportConfig(repo_id="me/clips", size="64").write_settings()
    videos = sorted(pile.rglob("0*.mp4"))[:4]
    jobs = [Job("probe", number, VideoFile(str(path))) for number, path in enumerate(videos)]
    jobs.insert(1, Job("probe", "bomb", Bomb()))  # type: ignore[arg-type]
    jobs.insert(3, Job("probe", "second bomb", Bomb()))  # type: ignore[arg-type]
    with WorkerPool(2, settings, None) as pool:
        answers = {answer.key: answer for answer in pool.run(iter(jobs))}
    assert set(answers) == {0, 1, 2, 3, "bomb", "second bomb"}
    for key, answer in answers.items():
        if isinstance(key, int):
            assert answer.value.duration_s == pytest.approx(2.0)
        else:
            assert (answer.reason, answer.detail) == ("crashed the decoder", "SIGSEGV")


def test_workers_and_windows_do_not_change_the_result(pile, whole, tmp_path):
    root = tmp_path / "out"
    result = subprocess.run(
        [*COMMAND, *arguments(pile, root, "--workers=2", "--max_episode_s=4")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "Imported 22 episodes" in result.stdout and "1 x not a video" in result.stdout
    assert contents(root) == contents(whole)


PEAK = r"""
import re, sys, tempfile
from pathlib import Path
from lawm_lerobot.importing.encoding import EncoderSettings
from lawm_lerobot.importing.tasks import encode_task
from lawm_lerobot.importing.footage import VideoFile
from lawm_lerobot.importing.segments import Segment
from lawm_lerobot.importing.tasks import Task, WriteSettings
segment = Segment(VideoFile(sys.argv[1]), "video")
probe = segment.footage.probe()
options = {"g": "2", "crf": "23", "preset": "veryfast", "threads": "1"}
settings = WriteSettings(EncoderSettings(10, 64, 64, "h264", "yuv420p", options), "crop", 10, 300)
with tempfile.TemporaryDirectory() as folder:
    task = Task(0, segment, probe)
    result = encode_task(task, settings, Path(folder), lambda seconds: None)
# Not getrusage(): its peak includes the process that started this one.
peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
print(sum(e.frames for e in result.episodes), int(peak[1]) // 1024)
"""


@pytest.mark.parametrize("minutes", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path, minutes):
    def peak(seconds: int) -> tuple[int, int]:
        frames = seconds * 15
        video = write_video(tmp_path / f"{seconds}.mp4", frames, 15, height=240, width=320)
        output = subprocess.run(
            [sys.executable, "-c", PEAK, str(video)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=True,
        )
        written, megabytes = map(int, output.stdout.split())
        assert written == seconds * 10
        return written, megabytes

    _, short = peak(10)
    _, long = peak(60 * minutes)
    assert long < 1000 and long < short + 60, (short, long)


# ── mixtures and shards ───────────────────────────────────────────────────────


def mixture(tmp_path: Path, pile: Path, entries: str, *flags: str) -> tuple[dict, Path]:
    config = tmp_path / "mixture.yaml"
    config.write_text(f"repo_id: me/mixture\nsize: 64\nworkers: 0\nmax_episode_s: 4\nsources:\n{entries}")
    root = tmp_path / "out"
    assert main([f"--config_path={config}", f"--root={root}", *flags]) == 0
    return summary_of(root), root


def test_a_mixture_keeps_to_its_weights_and_caps(pile, tmp_path):
    entries = "".join(
        f"  - {{type: folder, name: {name}, path: {pile}/{name}, {cap}}}\n"
        for name, cap in (("part_0", "weight: 2"), ("part_1", "weight: 1"), ("part_2", "max_episodes: 3"))
    )
    summary, root = mixture(tmp_path, pile, entries)
    episodes = {source["name"]: source["episodes"] for source in summary["sources"]}
    # part_0 has five videos of 2 s and part_1 too: 2 to 1 is five against two whole ones
    assert episodes == {"part_0": 5, "part_1": 2, "part_2": 3}
    from lawm_lerobot.hub.provenance import read_provenance

    assert [row["source"] for row in read_provenance(root)] == ["part_0"] * 5 + ["part_1"] * 2 + [
        "part_2"
    ] * 3


def test_a_cap_is_filled_from_what_is_good(tmp_path):
    source = tmp_path / "videos"
    for number in range(6):
        video = write_video(source / f"{number}.mp4", 60, 30)
        if number % 2:  # opens and promises 2 s, but decodes to nothing worth keeping
            data = bytearray(video.read_bytes())
            start = data.index(b"mdat") + 8
            data[start:-2000] = bytes(len(data) - 2000 - start)
            video.write_bytes(bytes(data))
    entries = f"  - {{type: folder, path: {source}, max_episodes: 3}}\n"
    summary, _ = mixture(tmp_path, source, entries)
    assert summary["episodes"] == 3


def test_hours_are_a_cap_too(pile, tmp_path):
    entries = f"  - {{type: folder, path: {pile}/part_0, max_hours: {7 / 3600}}}\n"
    summary, _ = mixture(tmp_path, pile, entries)
    assert summary["episodes"] == 3 and summary["frames"] == 60


def test_shards_merge_to_the_whole(pile, whole, tmp_path, capsys):
    root = tmp_path / "out"
    argv = arguments(pile, root, "--workers=0", "--max_episode_s=4", "--shard.count=3")
    assert main([*argv, "--shard.index=0"]) == 0
    assert main([*argv, "--shard.index=1"]) == 0
    assert main([*argv, "--merge=true"]) == 1
    assert "Part 2 of 3 is not finished" in capsys.readouterr().err
    assert main([*argv, "--shard.index=2"]) == 0
    assert main([*argv, "--merge=true"]) == 0
    from lawm_lerobot.hub.provenance import read_provenance

    def segments(place: Path) -> list[tuple]:
        return sorted((row["source_path"], row["start_s"], row["end_s"]) for row in read_provenance(place))

    assert segments(root) == segments(whole)
    assert [row["episode_index"] for row in read_provenance(root)] == list(range(22))
    merged, single = summary_of(root), summary_of(whole)
    for key in ("episodes", "frames", "left_out"):
        assert merged[key] == single[key]
    from helpers.video_fixtures import read_code
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from test_import_videos import pictures

    dataset = LeRobotDataset("me/clips", root=root, video_backend="pyav")
    codes = [read_code(picture) for picture in pictures(dataset)]
    for row, episode in zip(read_provenance(root), dataset.meta.episodes, strict=True):
        name = Path(row["source_path"]).stem
        first = 60 * int(name) if name.isdigit() else 0
        shown = codes[episode["dataset_from_index"] : episode["dataset_to_index"]]
        start = round(row["start_s"] * 30)
        assert shown == [first + start + 3 * k for k in range(len(shown))]


def test_an_empty_shard_is_no_failure(tmp_path):
    source = tmp_path / "videos"
    write_video(source / "only.mp4", 60, 30)
    root = tmp_path / "out"
    argv = arguments(source, root, "--workers=0", "--shard.count=2")
    assert main([*argv, "--shard.index=0"]) == 0
    assert main([*argv, "--shard.index=1"]) == 0
    assert main([*argv, "--merge=true"]) == 0
    assert summary_of(root)["episodes"] == 1

"""The evidence benchmark: what it runs, and that a kill in the middle changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from helpers.benchmarking import SETTING, SMOKE, configuration

from lawm_lerobot.benchmark.commands import Command
from lawm_lerobot.benchmark.configuration import BenchmarkError
from lawm_lerobot.benchmark.results import (
    CellResult,
    ImitationCurve,
    Looking,
    append_result,
    read_results,
)
from lawm_lerobot.benchmark.rows import rows_of
from lawm_lerobot.benchmark.runner import CommandRunner, is_done, locked
from lawm_lerobot.benchmark.stages import cell_runs
from lawm_lerobot.scripts.lawm_benchmark import main

REPOSITORY = Path(__file__).parents[2]
PUBLISHED = REPOSITORY / "docs" / "results" / "cpu_benchmark" / "results.jsonl"


# --- results on disk ----------------------------------------------------------------------------------------------


def result(key: str, arm: str = "none", seed: int = 0) -> CellResult:
    curve = ImitationCurve([2, 4], [0.2, 0.1])
    settings = (SETTING.regime, SETTING.task, SETTING.demonstrations)
    looking = Looking("looks", 0.5, None)
    return CellResult(key, *settings, arm, seed, [True, False], curve, None, {"finetune": 1.5}, 1, looking)


def test_published_results_are_read() -> None:
    results = read_results(PUBLISHED)
    lines = PUBLISHED.read_text().splitlines()
    found = [asdict(result) for result in results.values()]
    assert [{key: one[key] for key in json.loads(line)} for one, line in zip(found, lines, strict=True)] == [
        json.loads(line) for line in lines
    ]


def test_a_torn_last_line_is_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.jsonl"
    assert read_results(file) == {}
    for key in "ab":
        append_result(file, result(key))
    whole = file.read_bytes()
    for cut in (1, 5, len(whole) // 2 - 1):
        file.write_bytes(whole[:-cut])
        assert read_results(file) == {"a": result("a")}
        assert "its last line was cut off" in capsys.readouterr().err
        append_result(file, result("b"))
        assert file.read_bytes() == whole
    file.write_bytes(b"{torn" + whole[1:])
    with pytest.raises(BenchmarkError, match=r"line 1 of .*results.jsonl is not a cell's result"):
        read_results(file)
    file.write_text('{"ke')
    assert read_results(file) == {}
    assert file.read_text() == ""


def test_two_benchmarks_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(BenchmarkError, match="another lawm-benchmark.*--output_dir"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass


# --- running ------------------------------------------------------------------------------------------------------


def recording(title: str, task: str, *inputs: Command) -> Command:
    part = {"tasks": [task], "episodes_per_task": 1, "size": 32, "max_steps": 10, "success_only": False}
    spec = {"repo_id": "test/x", "fps": 80, "with_actions": True, "with_state": True, "parts": [part]}
    return Command("record", title, "record", (json.dumps(spec), "{out}"), inputs)


def test_a_failed_command_stops_only_what_needs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = recording("bad", "no-such-task"), recording("good", "reach-v3")
    dependent = recording("dependent", "reach-v3", bad)
    # What a killed run leaves: a folder without done.json. The recorder would refuse to write over it.
    half = tmp_path / good.out / "data"
    half.mkdir(parents=True)
    (half / "half.parquet").write_text("PAR1")

    runner = CommandRunner(
        tmp_path, workers=1, threads=1, simulator="lawm_lerobot.envs.metaworld.environment"
    )
    runner.run([good, bad, dependent], lambda: None)  # ends with nothing left that could run
    assert is_done(tmp_path, good)
    assert not half.joinpath("half.parquet").exists()
    assert set(runner.failed) == {bad.name, dependent.name}
    assert not (tmp_path / dependent.directory).exists()
    assert "no-such-task" in runner.describe_failure(dependent)
    said = capsys.readouterr().err
    assert f"{good.name}: not finished last time; it starts over" in said
    assert f"{bad.name} failed; stages/" in said


def test_failed_cells_are_said_and_counted_as_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(runner: CommandRunner, commands: Sequence[Command], finished: object) -> None:
        for command in commands:
            (tmp_path / command.directory).mkdir(parents=True)
            (tmp_path / command.directory / "log.txt").write_text("no room on the disk\n")
            runner.failed[command.name] = command

    monkeypatch.setattr(CommandRunner, "run", fail)
    assert main([f"--config_path={SMOKE}", f"--output_dir={tmp_path}"]) == 1
    said, complaints = capsys.readouterr()
    assert said == "no cell has finished\n"
    assert complaints.count(": failed\n") == 4
    assert "    no room on the disk\n" in complaints
    assert complaints.endswith(
        f"error: some cells failed; mend what they say and give the same command again "
        f"(what is done in {tmp_path} is kept).\n"
    )


FILES = (
    "table.md",
    "results.jsonl",
    "comparisons.json",
    "machine.json",
    "config.json",
    "plot.png",
    "curve.png",
)


def benchmark(output_dir: Path, workers: int) -> subprocess.Popen[str]:
    flags = [f"--output_dir={output_dir}", f"--workers={workers}", "--seeds=[0]"]
    command = [sys.executable, "-m", "lawm_lerobot.scripts.lawm_benchmark", f"--config_path={SMOKE}", *flags]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def measured(output_dir: Path) -> dict[str, CellResult]:
    """The results without the durations."""
    results = read_results(output_dir / "results.jsonl")
    return {key: replace(result, seconds={}) for key, result in results.items()}


@pytest.mark.slow
def test_killed_and_restarted_gives_the_table_of_an_uninterrupted_run(tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    whole = benchmark(straight, workers=1)
    output, errors = whole.communicate()
    assert whole.returncode == 0, errors
    assert (straight / "table.md").read_text() in output
    assert "| `cotraining+readout` |" in output
    assert all((straight / name).stat().st_size > 100 for name in FILES)
    # Only what later runs can use is kept: one checkpoint of a training, without its optimizer.
    assert len(list(straight.glob("stages/finetune-*/out/checkpoints/*"))) == 2 * len(["000004", "last"])
    assert not list(straight.glob("stages/*/out/checkpoints/*/training_state"))

    first = benchmark(broken, workers=2)
    while not list(broken.glob("stages/finetune-*/out")):
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()  # returns when no command holds the pipe any more
    done = {file: file.stat().st_mtime_ns for file in broken.glob("stages/*/done.json")}
    assert done
    assert not (broken / "table.md").exists()

    second = benchmark(broken, workers=2)
    output, errors = second.communicate()
    assert second.returncode == 0, errors
    assert "not finished last time; it starts over" in errors
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert measured(broken) == measured(straight)
    assert (broken / "table.md").read_text() == (straight / "table.md").read_text()

    # With every cell on record, nothing runs and nothing but the record is needed.
    shutil.rmtree(broken / "stages")
    third = benchmark(broken, workers=2)
    output, errors = third.communicate()
    assert third.returncode == 0, errors
    assert (straight / "table.md").read_text() in output
    assert not (broken / "stages").exists()


def test_rows_are_in_the_order_of_the_configuration() -> None:
    cfg = configuration()
    runs = cell_runs(cfg)
    results = {run.key: result(run.key, run.cell.arm, run.cell.seed) for run in reversed(runs[1:])}
    rows = rows_of(cfg, runs, results)
    assert [(row.arm, list(row.successes)) for row in rows] == [
        ("none", [1]),
        ("cotraining+readout", [0, 1]),
    ]


def test_the_imitation_error_is_measured_within_the_tolerance(tmp_path, monkeypatch):
    from lawm_lerobot.benchmark import imitation

    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    taken = []
    monkeypatch.setattr(
        imitation, "imitation_error", lambda *_, tolerance_s: taken.append(tolerance_s) or 0.5
    )
    flags = [f"--checkpoints={tmp_path / 'checkpoints'}", "--repo_id=me/x", f"--root={tmp_path}"]
    for more in ([], ["--tolerance_s=0.01"]):
        argv = ["imitation-error", *flags, f"--output={tmp_path / 'out.json'}", *more]
        monkeypatch.setattr("sys.argv", argv)
        imitation.main()
    assert taken == [1e-4, 0.01]
    assert json.loads((tmp_path / "out.json").read_text()) == {"steps": [2], "errors": [0.5]}

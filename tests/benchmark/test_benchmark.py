"""The evidence benchmark: what it compares, how it counts, and that a kill in the middle changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, replace
from pathlib import Path

import draccus
import numpy as np
import pytest
from PIL import Image

from lawm_lerobot.benchmark.cells import Setting, cell_runs, unique_commands
from lawm_lerobot.benchmark.commands import Command
from lawm_lerobot.benchmark.configuration import BenchmarkConfig, BenchmarkError
from lawm_lerobot.benchmark.results import (
    CellResult,
    ImitationCurve,
    Row,
    append_result,
    logged_health,
    plot,
    read_results,
    results_table,
    rows_of,
)
from lawm_lerobot.benchmark.runner import CommandRunner, is_done, locked
from lawm_lerobot.scripts.lawm_benchmark import main
from lawm_lerobot.statistics.intervals import paired_bootstrap

REPOSITORY = Path(__file__).parents[2]
SMOKE = REPOSITORY / "configs" / "benchmark" / "smoke.yaml"
PUBLISHED = REPOSITORY / "docs" / "results" / "cpu_benchmark" / "results.jsonl"


def configuration(*flags: str, output_dir: Path = Path("unused")) -> BenchmarkConfig:
    return draccus.parse(
        BenchmarkConfig, args=[f"--config_path={SMOKE}", f"--output_dir={output_dir}", *flags]
    )


# --- counting -----------------------------------------------------------------------------------------------------


def test_bootstrap_of_one_seed_is_the_normal_interval_of_many_episodes() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((1, 2000)) < 0.6, rng.random((1, 2000)) < 0.5
    difference = a.astype(float) - b
    half = 1.96 * difference.std() / np.sqrt(2000)
    expected = (difference.mean() - half, difference.mean() + half)
    assert paired_bootstrap(a, b) == pytest.approx(expected, abs=0.004)


def test_bootstrap_resamples_seeds() -> None:
    # All episodes of one seed are gained and none of the other: the mean of two drawn seeds is 0, 1/2 or 1 with
    # probabilities 1/4, 1/2, 1/4, however many episodes there are.
    a, b = np.zeros((2, 500)), np.zeros((2, 500))
    a[0] = 1
    assert paired_bootstrap(a, b) == (0.0, 1.0)
    assert paired_bootstrap(a, b, confidence=0.4) == (0.5, 0.5)


def test_bootstrap_keeps_the_pairs_together() -> None:
    outcomes = np.random.default_rng(0).random((3, 50)) < 0.5
    assert paired_bootstrap(outcomes, outcomes) == (0.0, 0.0)
    low, high = paired_bootstrap(outcomes, outcomes[:, ::-1])
    assert low < -0.05
    assert high > 0.05
    with pytest.raises(ValueError, match=r"shapes \(3, 50\) and \(2, 50\) do not pair up"):
        paired_bootstrap(outcomes, outcomes[:2])


SETTING = Setting("same_task", "reach-v3", 1)


def row(arm: str, successes: dict[int, str], errors: dict[int, list[float]]) -> Row:
    outcomes = {seed: [letter == "x" for letter in text] for seed, text in successes.items()}
    return Row(SETTING, arm, outcomes, {seed: ImitationCurve([2, 4], errors[seed]) for seed in errors})


def test_table_says_what_the_intervals_show(tmp_path: Path) -> None:
    cfg = configuration()
    rows = [
        row("none", {0: "x" + 39 * ".", 1: 40 * "."}, {0: [0.5, 0.4], 1: [0.5, 0.4]}),
        row("inverse_dynamics+readout", {0: 39 * "x" + ".", 1: 40 * "x"}, {0: [0.4, 0.3], 1: [0.6, 0.5]}),
    ]
    text = results_table(cfg, rows)
    assert "| `none` | 1/80 = 1% (95% 0% to 7%) |  | 0.4000 | 4 | 2 of 2 |" in text
    assert "| 0.4000 | 2 (1 of 2 seeds never) | 2 of 2 |" in text
    assert "`inverse_dynamics+readout` succeeds more often than `none` (+98 points, 95% +91 to +100)" in text
    plot(cfg, rows, tmp_path / "plot.png")
    pixels = np.asarray(Image.open(tmp_path / "plot.png").convert("RGB")).astype(int)
    for colour in ((31, 119, 180), (255, 127, 14)):  # matplotlib's first two, one for each arm
        assert (np.abs(pixels - colour).sum(-1) < 30).sum() > 100


def test_a_difference_that_no_episode_contradicts_is_not_taken_for_certain() -> None:
    none, other = (row(arm, {0: "xx", 1: ".."}, {0: [1, 1], 1: [1, 1]}) for arm in ("none", "other"))
    difference, (low, high) = other.difference(none)  # type: ignore[misc]
    assert difference == 0
    assert low < -0.4
    assert high > 0.4
    lone = row("lone", {2: "xx"}, {2: [1, 1]})
    assert lone.difference(none) is None


def test_health_is_of_the_last_line_that_has_it() -> None:
    log = "INFO step:1 mse_over_copy:2.0\nINFO step:2 loss:1.0 mse_over_copy:0.5 latent_std:1.000\nEnd of training"
    assert logged_health(log) == {"mse_over_copy": 0.5, "latent_std": 1.0}


# --- planning -----------------------------------------------------------------------------------------------------


def test_arms_share_what_is_the_same_and_nothing_else() -> None:
    arms = ["none", "supervised", "inverse_dynamics", "inverse_dynamics+readout", "inverse_dynamics+decoded"]
    cfg = configuration(f"--arms=[{','.join(arms)}]", "--demonstrations=[1,2]", "--seeds=[0]")
    runs = {(run.cell.arm, run.cell.setting.demonstrations): run for run in cell_runs(cfg)}
    pretraining = {key: run.pretraining.name for key, run in runs.items() if run.pretraining}
    assert pretraining["inverse_dynamics", 1] == pretraining["inverse_dynamics", 2]
    assert pretraining["inverse_dynamics", 1] == pretraining["inverse_dynamics+decoded", 1]
    assert pretraining["inverse_dynamics+readout", 1] != pretraining["inverse_dynamics+readout", 2]
    finetuning = [run.finetuning.name for run in runs.values()]
    assert len(set(finetuning)) == len(finetuning)

    # No arm without actions reads a recording that has them, but for the demonstrations.
    for arm, labelled in (("inverse_dynamics+decoded", False), ("supervised", True)):
        recorded = [command for command in runs[arm, 1].commands() if command.kind == "record"]
        corpora = [json.loads(command.arguments[0]) for command in recorded if "corpus" in command.title]
        assert [spec["with_actions"] for spec in corpora] == [labelled]

    # Fewer demonstrations are a prefix of more of them, and another seed draws others.
    def demonstrations(cfg: BenchmarkConfig) -> list[dict]:
        return [
            json.loads(command.arguments[0])["parts"][0]
            for command in unique_commands(cell_runs(cfg))
            if command.title.startswith("demonstrations")
        ]

    few, more = demonstrations(cfg)
    assert (few["seed"], few["episodes_per_task"]) == (more["seed"], 1)
    assert demonstrations(configuration("--seeds=[1]"))[0]["seed"] >= few["seed"] + 1000


def test_a_changed_flag_renames_what_depends_on_it() -> None:
    def names(*flags: str) -> dict[str, set[str]]:
        commands = unique_commands(cell_runs(configuration("--seeds=[0]", *flags)))
        return {
            kind: {command.name for command in commands if command.kind == kind}
            for kind in ("record", "pretrain", "finetune")
        }

    before, after = names(), names("--pretraining_steps=7")
    assert after["record"] == before["record"]
    assert not after["pretrain"] & before["pretrain"]
    assert len(after["finetune"] & before["finetune"]) == 1  # from scratch


def test_regimes_and_variants() -> None:
    flags = ["--tasks=[reach-v3,push-v3]", "--corpus.tasks=[push-v3,door-open-v3]", "--seeds=[0]"]
    cfg = configuration(*flags, "--regimes=[same_task,other_tasks,held_out_task]", "--corpus.body=hidden")
    cfg.check()
    assert cfg.corpus_tasks("same_task", "reach-v3") == ["reach-v3"]
    assert cfg.corpus_tasks("other_tasks", "reach-v3") == ["push-v3", "door-open-v3"]
    assert cfg.corpus_tasks("held_out_task", "reach-v3") == ["door-open-v3"]
    runs = cell_runs(cfg)
    assert len({run.finetuning.name for run in runs if run.cell.arm == "none"}) == 2  # one for each task
    bodies = {
        ("corpus" in command.title, part.get("body"))
        for command in unique_commands(runs)
        if command.kind == "record"
        for part in json.loads(command.arguments[0])["parts"]
    }
    assert bodies == {(True, "hidden"), (False, None)}  # the demonstrations look as the evaluation does

    small = "--variants={small: {arm: inverse_dynamics, pretraining: [--policy.latent_action.dim=4]}}"
    run = cell_runs(configuration(small, "--arms=[none,small]"))[1]
    assert run.pretraining is not None
    assert run.pretraining.typed()[-1] == "--num_workers=0"
    assert "--policy.latent_action.dim=4" in run.pretraining.typed()


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--arms=[none,magic]", "unknown arm 'magic': set --arms to some of none, none_equal_compute, "),
        ("--tasks=[fly-v3]", "unknown Meta-World task 'fly-v3': set --tasks to some of assembly-v3, "),
        ("--regimes=[mars]", "unknown regime 'mars': set --regimes to some of same_task, other_tasks"),
        ("--regimes=[other_tasks]", "would show no task: add some to --corpus.tasks"),
        ("--compare_with=[both]", "compare_with names 'both', which is not among the arms"),
        ("--seeds=[100]", "expected numbers from 0 to 99: change --seeds"),
        ("--demonstrations=[0]", "demonstrations is 0, expected at least 1: change --demonstrations"),
        ("--seeds=[1,1]", "expected different values: change --seeds"),
        ("--corpus.body=elephant", "unknown body 'elephant': set --corpus.body to one of sawyer"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    flag: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--config_path={SMOKE}", f"--output_dir={tmp_path / 'out'}", flag]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert sentence in said
    assert not (tmp_path / "out").exists()


def test_dry_run_lists_cells_and_commands_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--config_path={SMOKE}", f"--output_dir={tmp_path / 'out'}", "--dry_run=true"]) == 0
    said = capsys.readouterr().out
    assert "4 cells\n  none, reach-v3, 1 demonstrations, same_task, seed 0\n" in said
    assert "minutes of work left" in said
    assert not (tmp_path / "out").exists()


# --- results on disk ----------------------------------------------------------------------------------------------


def result(key: str, arm: str = "none", seed: int = 0) -> CellResult:
    curve = ImitationCurve([2, 4], [0.2, 0.1])
    return CellResult(key, *astuple(SETTING), arm, seed, [True, False], curve, None, {"finetune": 1.5})


def test_published_results_are_read() -> None:
    results = read_results(PUBLISHED)
    lines = PUBLISHED.read_text().splitlines()
    assert [json.dumps(asdict(result)) for result in results.values()] == lines


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

    runner = CommandRunner(tmp_path, workers=1, threads=1)
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


FILES = ("table.md", "results.jsonl", "machine.json", "config.json", "plot.png")


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


def test_killed_and_restarted_gives_the_table_of_an_uninterrupted_run(tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    whole = benchmark(straight, workers=1)
    output, errors = whole.communicate()
    assert whole.returncode == 0, errors
    assert (straight / "table.md").read_text() in output
    assert "| `inverse_dynamics+readout` |" in output
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
        ("inverse_dynamics+readout", [0, 1]),
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

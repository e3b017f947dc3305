"""The benchmark's report: comparisons, the gate, the protocol's identity and the pictures."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers.benchmarking import BENCHMARKS, SETTING, SMOKE, configuration, outcomes, row
from PIL import Image

from lawm_lerobot.benchmark.cells import Setting
from lawm_lerobot.benchmark.comparisons import (
    compare,
    comparisons_json,
    comparisons_table,
    expected_power,
    pairs_of,
)
from lawm_lerobot.benchmark.configuration import BenchmarkConfig, BenchmarkError
from lawm_lerobot.benchmark.gate import gate_report, gate_results, write_gate
from lawm_lerobot.benchmark.pictures import curve_lines, plot_arms, plot_curve
from lawm_lerobot.benchmark.protocol import config_path, protocol_of
from lawm_lerobot.benchmark.results import logged_health
from lawm_lerobot.benchmark.rows import Row, arms_table
from lawm_lerobot.scripts.lawm_benchmark import main

EVIDENCE = BENCHMARKS / "evidence.yaml"


def evidence(*flags: str) -> BenchmarkConfig:
    arms = "--arms=[none,none_equal_compute,cotraining,inverse_model_decoded,supervised_all]"
    return configuration(
        arms, "--demonstrations=[5]", "--videos=[100]", "--seeds=[0,1]", *flags, file=EVIDENCE
    )


def rows_of_evidence(**rates: list[int]) -> list[Row]:
    """Rows of both tasks and seeds from successes of 50, in the order of tasks and then seeds."""
    rows = []
    for arm, counts in rates.items():
        for k, task in enumerate(("drawer-open-v3", "button-press-topdown-v3")):
            won = {seed: "x" * counts[2 * k + seed] + "." * (50 - counts[2 * k + seed]) for seed in (0, 1)}
            videos = 0 if arm.startswith("none") else 100
            rows.append(row(arm, won, setting=Setting("same_task", task, 5), videos=videos))
    return rows


# --- the table of arms --------------------------------------------------------------------------------------------


def test_table_has_a_row_for_each_arm(tmp_path: Path) -> None:
    cfg = configuration()
    rows = [
        row("none", {0: "x" + 39 * ".", 1: 40 * "."}),
        row(
            "inverse_dynamics+readout",
            {0: 39 * "x" + ".", 1: 40 * "x"},
            {0: [0.4, 0.3], 1: [0.6, 0.5]},
            videos=1,
            verdicts="looks blind",
        ),
    ]
    text = arms_table(cfg, rows)
    assert "| `none` | 0 | 1/80 = 1% (95% 0% to 7%) |  | 0.4000 | 4 | not measured | 2 of 2 |" in text
    assert "| `inverse_dynamics+readout` | 1 | 79/80" in text
    assert "| 0.4000 | 2 (1 of 2 seeds never) | 1 of 2: pictures 0.50 | 2 of 2 |" in text
    plot_arms(cfg, rows, tmp_path / "plot.png")
    pixels = np.asarray(Image.open(tmp_path / "plot.png").convert("RGB")).astype(int)
    for colour in ((31, 119, 180), (255, 127, 14)):  # matplotlib's first two, one for each arm
        assert (np.abs(pixels - colour).sum(-1) < 30).sum() > 100


def test_rows_without_a_common_seed_are_not_compared() -> None:
    none = row("none", {0: "xx", 1: ".."})
    assert row("lone", {2: "xx"}).difference(none) is None
    found = row("other", {0: "xx", 2: "xx"}).difference(none)
    assert found is not None
    assert found.draws == 1


def test_health_is_of_the_last_line_that_has_it() -> None:
    log = "INFO step:1 mse_over_copy:2.0\nINFO step:2 loss:1.0 mse_over_copy:0.5 latent_std:1.000\nEnd of training"
    assert logged_health(log) == {"mse_over_copy": 0.5, "latent_std": 1.0}


# --- comparisons --------------------------------------------------------------------------------------------------


def test_primary_comparisons_are_made_once_and_at_the_first_setting() -> None:
    cfg = evidence("--demonstrations=[5,2]", "--videos=[100,50]", "--compare_with=[none_equal_compute,none]")
    pairs = pairs_of(cfg)
    primary = [(pair.arm, pair.reference, pair.demonstrations, pair.videos) for pair in pairs if pair.primary]
    assert primary == [
        ("cotraining", "none_equal_compute", 5, 100),
        ("cotraining", "inverse_model_decoded", 5, 100),
    ]
    named = [(frozenset((pair.arm, pair.reference)), pair.demonstrations, pair.videos) for pair in pairs]
    assert len(set(named)) == len(named)
    # Neither of these two uses video, so that they are compared once for all numbers of videos.
    assert [
        pair.videos for pair in pairs if {pair.arm, pair.reference} == {"none", "none_equal_compute"}
    ] == [0, 0]


def test_verdicts_come_from_draws_and_from_the_number_of_comparisons() -> None:
    rows = rows_of_evidence(
        none=[20, 22, 30, 28],
        none_equal_compute=[20, 22, 30, 28],
        cotraining=[32, 33, 43, 40],
        inverse_model_decoded=[20, 45, 30, 48],
        supervised_all=[26, 27, 37, 33],
    )
    found = {
        (one.pair.arm, one.pair.reference): one for one in compare(evidence(), rows) if one.pair.videos == 100
    }
    best = found["cotraining", "none_equal_compute"]
    assert best.verdict == "better"
    assert best.difference.draws == 4
    assert best.difference.mean == pytest.approx(0.24)
    assert found["cotraining", "inverse_model_decoded"].verdict == "underpowered"
    # Alone it would be shown; among three comparisons it still is, with three times the p value.
    supervised = found["supervised_all", "none_equal_compute"]
    assert supervised.p == pytest.approx(3 * supervised.difference.p)
    assert supervised.p < 0.05
    text = comparisons_table(evidence(), list(found.values()))
    assert (
        "| **`cotraining` - `none_equal_compute`** | 5 | 100 | same_task | +24 points, 95% +21 to +27 |"
        in text
    )
    assert "| 4 of 4 | **better** |" in text


def test_one_draw_shows_nothing() -> None:
    rows = [
        row(arm, {0: 50 * letter}, setting=Setting("same_task", "drawer-open-v3", 5), videos=videos)
        for arm, letter, videos in (("cotraining", "x", 100), ("none_equal_compute", ".", 0))
    ]
    (found,) = compare(evidence(), rows)
    assert found.verdict == "underpowered"
    assert "| +100 points, one draw | 1.000 | nothing | 1 of 4 | **underpowered** |" in comparisons_table(
        evidence(), [found]
    )
    (values,) = json.loads(json.dumps(comparisons_json([found]), allow_nan=False))
    assert (values["interval"], values["detectable"]) == (None, None)


def test_power_is_stated_before_the_run() -> None:
    text = expected_power(configuration("--tasks=[drawer-open-v3,button-press-topdown-v3]", file=EVIDENCE))
    assert (
        "guessing 50% success in both arms and a spread of 10 points over draws: 10 draws of 50 episodes"
        in text
    )
    assert "2 primary comparisons: 14 points with 80% probability" in text


# --- the protocol -------------------------------------------------------------------------------------------------


def test_the_protocol_is_named_by_hash_and_commit(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "studies").mkdir()
    file = Path(shutil.copy(SMOKE, tmp_path / "studies" / "ours.yaml"))
    assert protocol_of(configuration(file=file), file).commit is None
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "protocol")

    protocol = protocol_of(configuration(file=file), file)
    assert (protocol.file, protocol.commit) == ("studies/ours.yaml", git("rev-parse", "HEAD"))
    assert protocol.changed == ()
    # Where and how fast it runs is not part of it; another number of seeds is, and so is a change of the file.
    elsewhere = configuration("--workers=7", "--evaluation.look=true", file=file, output_dir=tmp_path)
    assert protocol_of(elsewhere, file) == protocol
    fewer = protocol_of(configuration("--seeds=[0]", file=file), file)
    assert fewer.changed == ("seeds",)
    assert fewer.sha256 != protocol.sha256
    assert "changed by flags: seeds." in str(fewer)
    file.write_text(file.read_text().replace("seeds: [0, 1]", "seeds: [0]"))
    edited = protocol_of(configuration(file=file), file)
    assert (edited.sha256, edited.commit, edited.changed) == (fewer.sha256, None, ())
    assert "not committed as it stands" in str(edited)


def test_the_file_is_found_among_the_flags() -> None:
    assert config_path(["--seeds=[0]", "--config_path=a/b.yaml"]) == Path("a/b.yaml")
    assert config_path(["--config_path", "b.yaml", "--dry_run=true"]) == Path("b.yaml")
    assert config_path(["--seeds=[0]"]) is None


# --- the gate -----------------------------------------------------------------------------------------------------


def gate_rows(none: str, supervised: str, verdicts: str = "") -> list[Row]:
    rows = [row("none", {0: none}), row("supervised_all", {0: supervised}, videos=3, verdicts=verdicts)]
    return rows


@pytest.mark.parametrize(
    ("none", "supervised", "verdicts", "outcome"),
    [
        (40, 80, "looks", "passed"),
        (40, 80, "state_only", "the policy does not look"),
        (40, 80, "", "room, but whether the policy looks was not measured: set evaluation.look"),
        (40, 60, "looks", "no room: true actions add 20 points, expected at least 25"),
        (70, 100, "looks", "no room: `none` succeeds in 70%, expected 15% to 65%"),
        (10, 60, "looks", "no room: `none` succeeds in 10%, expected 15% to 65%"),
    ],
)
def test_the_gate_asks_for_room_and_for_a_policy_that_looks(
    none: int, supervised: int, verdicts: str, outcome: str
) -> None:
    (found,) = gate_results(
        gate_rows("x" * none + "." * (100 - none), "x" * supervised + "." * (100 - supervised), verdicts)
    )
    assert found.outcome == outcome


def test_the_gate_counts_the_seeds_that_both_arms_have() -> None:
    rows = [
        row("none", {0: "x...", 1: "xxxx"}),
        row("supervised_all", {0: "xxxx"}, videos=3, verdicts="looks"),
    ]
    (found,) = gate_results(rows)
    assert (found.scratch.successes, found.scratch.episodes) == (1, 4)
    assert gate_results(rows[:1]) == []


def test_the_report_says_which_tasks_passed(tmp_path: Path) -> None:
    cfg = configuration("--tasks=[reach-v3,push-v3]", "--demonstrations=[1,2]")
    assert "none was read" in gate_report(cfg)
    write_gate(cfg, protocol_of(cfg, SMOKE), gate_results(gate_rows("x.", "xx", "looks")), tmp_path)
    assert "| **passed** |" in (tmp_path / "gate.md").read_text()
    assert json.loads((tmp_path / "gate.json").read_text())["tasks"][0]["passed"] is True
    text = gate_report(
        configuration(
            "--tasks=[reach-v3,push-v3]",
            "--demonstrations=[1,2]",
            f"--gate_file={tmp_path / 'gate.json'}",
            "--variation=0.5",
        )
    )
    assert "- reach-v3, 1 demonstrations: passed." in text
    assert "- reach-v3, 2 demonstrations: not tried." in text
    assert "- push-v3, 1 demonstrations: not tried." in text
    assert "- The gate had variation 0.0 in place of 0.5." in text


def test_a_file_that_is_no_gate_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("[]")
    for name in ("x.json", "missing.json"):
        flags = [f"--output_dir={tmp_path / 'out'}", f"--gate_file={tmp_path / name}", "--dry_run=true"]
        assert main([f"--config_path={SMOKE}", *flags]) == 1
        assert (
            "is not the gate.json of a lawm-benchmark --gate=true: change --gate_file."
            in capsys.readouterr().err
        )
    with pytest.raises(BenchmarkError):
        gate_report(configuration(f"--gate_file={tmp_path / 'x.json'}"))


# --- the curve ----------------------------------------------------------------------------------------------------


def test_the_curve_has_a_line_for_each_number_of_videos(tmp_path: Path) -> None:
    cfg = evidence("--demonstrations=[5,2,10]", "--videos=[200,50]")
    rows = []
    for count, base in ((2, 10), (5, 20), (10, 30)):
        for task in cfg.tasks:
            for arm, videos, more in (
                ("none_equal_compute", 0, 0),
                ("cotraining", 50, 5),
                ("cotraining", 200, 11),
                ("supervised_all", 50, 9),
                ("supervised_all", 200, 16),
            ):
                won = {seed: "x" * (base + more + 2 * seed) + "." * (48 - base - more) for seed in (0, 1)}
                rows.append(row(arm, won, setting=Setting("same_task", task, count), videos=videos))
    lines = curve_lines(cfg, rows, "same_task")
    assert [line.label for line in lines] == [
        "0 videos (none_equal_compute)",
        "50 videos (cotraining)",
        "200 videos (cotraining)",
        "200 videos with their true actions",
    ]
    assert [line.dotted for line in lines] == [False, False, False, True]
    assert all(line.demonstrations == [2, 5, 10] for line in lines)
    assert lines[0].means == pytest.approx(
        [np.mean(outcomes("x" * n + "." * (50 - n))) for n in (11, 21, 31)], abs=0.02
    )
    assert lines[0].lows[0] < lines[0].means[0] < lines[0].highs[0]
    plot_curve(cfg, rows, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_a_curve_of_the_first_cells_is_drawn(tmp_path: Path) -> None:
    plot_curve(configuration(), [row("none", {0: "x."})], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5_000
    assert curve_lines(configuration(), [row("none", {0: "x."})], SETTING.regime)[0].lows == [0.5]

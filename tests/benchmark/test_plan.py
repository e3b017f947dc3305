"""What a benchmark plans: cells, their commands and what these share, and the settings that it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers.benchmarking import SMOKE, configuration

from lawm_lerobot.benchmark.cells import unique_commands
from lawm_lerobot.benchmark.comparisons import pairs_of
from lawm_lerobot.benchmark.configuration import BenchmarkConfig, BenchmarkError
from lawm_lerobot.benchmark.stages import cell_runs
from lawm_lerobot.scripts.lawm_benchmark import main


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
    assert "--num_workers=0" in run.pretraining.typed()
    assert "--policy.latent_action.dim=4" in run.pretraining.typed()


def test_cotraining_arms_share_the_corpus_and_its_latents() -> None:
    arms = ["none_equal_compute", "inverse_dynamics", "cotraining", "cotraining+readout"]
    arms += ["cotraining_only", "cotraining_untrained"]
    cotraining = "--policy.cotraining=[--policy.video.weight=2]"
    cfg = configuration(
        f"--arms=[{','.join(arms)}]",
        "--seeds=[3]",
        cotraining,
        "--primary=[]",
        "--compare_with=[inverse_dynamics]",
        "--cotraining_cost_ratio=1.5",
    )
    runs = {run.cell.arm: run for run in cell_runs(cfg)}
    flags = {arm: run.finetuning.typed() for arm, run in runs.items()}
    corpora = {
        next(flag for flag in flags[arm] if flag.startswith("--policy.video.root")) for arm in arms[2:]
    }
    assert len(corpora) == 1
    assert all({"--policy.video.weight=2", "--policy.video.seed=3"} <= set(flags[arm]) for arm in arms[2:])
    assert not any("policy.video" in flag for arm in arms[:2] for flag in flags[arm])

    pretrained = {arm: runs[arm].pretraining for arm in arms[1:]}
    assert pretrained["cotraining"].name == pretrained["cotraining_only"].name  # type: ignore[union-attr]
    assert pretrained["cotraining"].name == pretrained["inverse_dynamics"].name  # type: ignore[union-attr]
    for arm, starts in (("cotraining", True), ("cotraining+readout", True), ("cotraining_only", False)):
        checkpoint = pretrained[arm].checkpoint  # type: ignore[union-attr]
        assert (f"--policy.path={checkpoint}" in flags[arm]) == starts
        assert (f"--policy.video.checkpoint={checkpoint}" in flags[arm]) != starts
    untrained = pretrained["cotraining_untrained"]
    assert untrained is not None
    assert {"--policy.pretraining_lr=0", "--policy.policy_pretraining_lr=0"} <= set(untrained.typed())
    assert f"--policy.video.checkpoint={untrained.checkpoint}" in flags["cotraining_untrained"]
    # Pretraining, then finetuning with the corpus in the batch, in finetuning steps.
    assert f"--steps={round(3 * 1.8) + 6}" in flags["none_equal_compute"]


def test_numbers_of_videos_are_nested_and_those_without_share_a_cell() -> None:
    cfg = configuration(
        "--videos=[2,1]",
        "--demonstrations=[2,1]",
        "--arms=[none,supervised_all]",
        "--primary=[]",
        "--seeds=[0,1]",
    )
    cells = [run.cell for run in cell_runs(cfg)]
    assert [cell.videos for cell in cells if cell.arm == "none"] == [0] * 4
    assert sorted(cell.videos for cell in cells if cell.arm == "supervised_all") == [1] * 4 + [2] * 4
    # What the primary comparisons need comes first: all seeds of the first numbers.
    assert {(cell.setting.demonstrations, cell.videos) for cell in cells[:4]} == {(2, 0), (2, 2)}
    specs = [
        json.loads(command.arguments[0])["parts"]
        for command in unique_commands(cell_runs(cfg))
        if command.kind == "record" and "and-corpus" in command.title
    ]
    assert {(parts[1]["seed"], parts[1]["episodes_per_task"]) for parts in specs} == {(0, 1), (0, 2)}


def test_controls_come_after_the_others_and_at_the_first_setting() -> None:
    cfg = configuration(
        "--videos=[2,1]",
        "--demonstrations=[2,1]",
        "--arms=[none,inverse_dynamics,supervised_all]",
        "--controls=[inverse_dynamics]",
        "--primary=[]",
        "--compare_with=[inverse_dynamics]",
    )
    cells = [run.cell for run in cell_runs(cfg)]
    assert [cell.arm for cell in cells[:6]] == [*["none", "supervised_all"] * 2, *["inverse_dynamics"] * 2]
    controls = [cell for cell in cells if cell.arm == "inverse_dynamics"]
    assert {(cell.setting.demonstrations, cell.videos, cell.seed) for cell in controls} == {
        (2, 2, 0),
        (2, 2, 1),
    }
    assert {(pair.demonstrations, pair.videos) for pair in pairs_of(cfg)} == {(2, 2)}


def test_recordings_and_evaluation_share_the_scene() -> None:
    flags = ["--variation=0.5", "--camera_zoom=1.5", "--demonstration_noise=0.2", "--corpus.noise=0.05"]
    runs = cell_runs(configuration(*flags, "--seeds=[0]", "--evaluation.look=true"))
    for command in unique_commands(runs):
        if command.kind == "record":
            for part in json.loads(command.arguments[0])["parts"]:
                assert (part["variation"], part["camera_zoom"]) == (0.5, 1.5)
                assert part["noise"] == (0.05 if "corpus" in command.title else 0.2)
        if command.kind == "evaluate":
            assert {"--env.variation=0.5", "--env.camera_zoom=1.5"} <= set(command.typed())
    for run in runs:
        assert run.look is not None
        assert f"--policy.path={run.finetuning.checkpoint}" in run.look.typed()
        assert run.key.endswith(run.look.name)


def test_a_blind_policy_is_one_in_training_and_in_evaluation() -> None:
    arms = "--arms=[none,none_blind,blind_replay]"
    seeing, blind, replay = cell_runs(configuration(arms, "--primary=[]", "--seeds=[2]"))
    for run, drawn in ((seeing, True), (blind, False)):
        for command in run.commands():
            if command.kind == "record":
                assert [part.get("draw", True) for part in json.loads(command.arguments[0])["parts"]] == [
                    drawn
                ]
        assert ("--env.draw=false" in run.evaluation.typed()) != drawn

    # The same episodes as the policies', and their own demonstrations.
    assert replay.measurements == [replay.evaluation]
    assert replay.evaluation.inputs[0].name in {command.name for command in seeing.commands()}
    same = {flag for flag in seeing.evaluation.typed() if flag.startswith(("--env.", "--seed="))}
    assert same < set(replay.evaluation.typed())


def test_other_simulators_have_their_own_tasks_and_flags() -> None:
    flags = ["--simulator=libero", "--tasks=[libero_object/3]", "--variation=0.5", "--seeds=[0]"]
    cfg = configuration(*flags)
    cfg.check()
    run = cell_runs(cfg)[0]
    assert "/" not in run.evaluation.name
    wanted = {"--env.type=lawm_libero", "--env.task=libero_object", "--env.task_ids=[3]", "--env.spread=0.5"}
    assert wanted < set(run.evaluation.typed())
    specs = [json.loads(command.arguments[0]) for command in run.commands() if command.kind == "record"]
    for spec in specs:
        assert (spec["simulator"], spec["fps"]) == ("libero", 20)
        assert {"tasks": ["libero_object/3"], "spread": 0.5, "size": 32}.items() <= spec["parts"][0].items()

    cfg = configuration("--simulator=so101", "--tasks=[pick-place]", "--seeds=[0]")
    cfg.check()
    wanted = {"--env.type=lawm_so101", "--env.task=pick-place", "--env.size=32", "--env.camera=front,wrist"}
    assert wanted < set(cell_runs(cfg)[0].evaluation.typed())


def test_the_gate_runs_two_arms(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    flags = [f"--config_path={SMOKE}", f"--output_dir={tmp_path / 'out'}", "--gate=true", "--dry_run=true"]
    assert main(flags) == 0
    said = capsys.readouterr().out
    assert {
        line.split(",")[0].strip() for line in said.splitlines() if "demonstrations, same_task" in line
    } == {
        "none",
        "supervised_all",
    }


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--arms=[none,magic]", "unknown arm 'magic': set --arms to some of none, none_equal_compute, "),
        ("--tasks=[fly-v3]", "unknown Meta-World task 'fly-v3': set --tasks to some of assembly-v3, "),
        ("--simulator=mars", "unknown simulator 'mars': set --simulator to one of metaworld, libero, so101"),
        ("--simulator=libero", "unknown LIBERO task 'reach-v3': set --tasks to some of libero_object/0, "),
        ("--regimes=[mars]", "unknown regime 'mars': set --regimes to some of same_task, other_tasks"),
        ("--regimes=[other_tasks]", "would show no task: add some to --corpus.tasks"),
        ("--compare_with=[both]", "compare_with names 'both', which is not among the arms"),
        ("--controls=[both]", "controls names 'both', which is not among the arms"),
        ("--primary=[[none,both]]", "primary names 'both', which is not among the arms"),
        ("--primary=[[none]]", "primary is [['none']], expected pairs of different arms: change --primary"),
        ("--videos=[0]", "videos is 0, expected at least 1: change --videos"),
        ("--expected.success=2", "expected.success is 2.0, expected from 0 to 1: change --expected.success"),
        ("--variation=2", "a variation of 2.0 is not between 0 and 1: change --variation"),
        ("--camera_zoom=0.5", "a camera zoom of 0.5 is not between 1 and 10: change --camera_zoom"),
        ("--cotraining_cost_ratio=0.5", "expected at least 1: change --cotraining_cost_ratio"),
        ("--demonstration_noise=-1", "expected at least 0: change --demonstration_noise"),
        ("--pretraining_batch_size=0", "expected at least 1: change --pretraining_batch_size"),
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


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--camera_zoom=2", "LIBERO has no camera_zoom: drop --camera_zoom"),
        ("--corpus.body=hidden", "LIBERO has no corpus.body: drop --corpus.body"),
        ("--camera=corner2", "LIBERO is seen by both its cameras: drop --camera"),
        ("--variation=2", "a variation of 2.0 is not between 0 and 1: change --variation"),
    ],
)
def test_what_a_simulator_lacks_is_one_sentence(flag: str, sentence: str) -> None:
    cfg = configuration("--simulator=libero", "--tasks=[libero_object/0]", flag)
    with pytest.raises(BenchmarkError, match=re.escape(sentence)):
        cfg.check()


def test_dry_run_lists_cells_and_commands_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--config_path={SMOKE}", f"--output_dir={tmp_path / 'out'}", "--dry_run=true"]) == 0
    said = capsys.readouterr().out
    assert "Protocol: configs/benchmark/smoke.yaml, sha256 of its settings " in said
    assert "4 cells\n  none, reach-v3, 1 demonstrations, same_task, 0 videos, seed 0\n" in said
    assert "minutes of work left" in said
    assert not (tmp_path / "out").exists()

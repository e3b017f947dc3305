"""A benchmark from its configuration to its results on disk."""

import sys
from collections.abc import Sequence
from pathlib import Path

import draccus

from lawm_lerobot.benchmark.cells import CellRun, unique_commands
from lawm_lerobot.benchmark.comparisons import compare, comparisons_json, comparisons_table, expected_power
from lawm_lerobot.benchmark.configuration import BenchmarkConfig
from lawm_lerobot.benchmark.gate import gate_report, gate_results, gate_table, gated, write_gate
from lawm_lerobot.benchmark.machine import machine
from lawm_lerobot.benchmark.pictures import plot_arms, plot_curve
from lawm_lerobot.benchmark.protocol import Protocol, protocol_of
from lawm_lerobot.benchmark.results import append_new_results, read_results
from lawm_lerobot.benchmark.rows import Row, arms_table, rows_of
from lawm_lerobot.benchmark.runner import CommandRunner, is_done, locked
from lawm_lerobot.benchmark.stages import cell_runs
from lawm_lerobot.files import write_json, write_text


def describe(cfg: BenchmarkConfig, protocol: Protocol, runs: Sequence[CellRun]) -> str:
    """The protocol and its power, the cells, the commands they share and an estimate of their duration."""
    commands = unique_commands(runs)
    lines = [str(protocol), expected_power(cfg), f"{len(runs)} cells"]
    lines += [f"  {run.cell}" for run in runs]
    lines += [f"{len(commands)} stages, with the estimated seconds of each"]
    for command in commands:
        done = " (done)" if is_done(cfg.output_dir, command) else ""
        lines.append(f"  {command.seconds:6.0f}  {command.name}{done}")
    left = sum(command.seconds for command in commands if not is_done(cfg.output_dir, command))
    lines.append(
        f"{left / 60:.0f} minutes of work left, {left / 60 / cfg.workers:.0f} with --workers={cfg.workers}; "
        "estimated from `costs` in the YAML file"
    )
    return "\n".join(lines)


def report(cfg: BenchmarkConfig, protocol: Protocol, rows: Sequence[Row]) -> str:
    """The protocol, its comparisons, the gate and a row for each arm, in Markdown."""
    sections = [f"{protocol}\n"]
    if comparisons := compare(cfg, rows):
        sections.append(comparisons_table(cfg, comparisons))
    sections.append(gate_table(gate_results(rows)) if cfg.gate else gate_report(cfg))
    sections.append(arms_table(cfg, rows))
    return "\n".join(sections)


def publish(cfg: BenchmarkConfig, protocol: Protocol, rows: Sequence[Row]) -> None:
    """Write the report, its numbers and its pictures into the output directory."""
    if not rows:
        return
    write_text(cfg.output_dir / "table.md", report(cfg, protocol, rows))
    write_json(cfg.output_dir / "comparisons.json", comparisons_json(compare(cfg, rows)))
    plot_arms(cfg, rows, cfg.output_dir / "plot.png")
    plot_curve(cfg, rows, cfg.output_dir / "curve.png")
    if cfg.gate:
        write_gate(cfg, protocol, gate_results(rows), cfg.output_dir)


def run_benchmark(cfg: BenchmarkConfig, file: Path | None = None) -> bool:
    """Run what is not done yet and write the results.

    Args:
        cfg: The configuration.
        file: The YAML file that it was read from, which the report names.

    Returns:
        True if every cell has a result. Otherwise stderr has said which failed, and why.

    Raises:
        BenchmarkError: If the configuration cannot work, or another benchmark writes to the same folder.
    """
    protocol = protocol_of(cfg, file)
    cfg = gated(cfg) if cfg.gate else cfg
    cfg.check()
    gate_report(cfg)  # refuses a file that is not a gate's
    runs = cell_runs(cfg)
    if cfg.dry_run:
        print(describe(cfg, protocol, runs))
        return True
    with locked(cfg.output_dir):
        results = read_results(cfg.output_dir / "results.jsonl")
        encoded = draccus.encode(cfg)
        settings = {key: value for key, value in encoded.items() if key not in ("output_dir", "dry_run")}
        write_json(cfg.output_dir / "config.json", settings | {"protocol": vars(protocol)})
        write_json(cfg.output_dir / "machine.json", machine())

        def finished() -> None:
            if append_new_results(cfg.output_dir, runs, results):
                publish(cfg, protocol, rows_of(cfg, runs, results))

        runner = CommandRunner(cfg.output_dir, cfg.workers, cfg.threads, cfg.simulated.module)
        finished()  # what was done when the benchmark was stopped
        runner.run(unique_commands([run for run in runs if run.key not in results]), finished)
        publish(cfg, protocol, rows_of(cfg, runs, results))

    rows = rows_of(cfg, runs, results)
    print(report(cfg, protocol, rows) if rows else "no cell has finished")
    return report_failures(cfg, runner, [run for run in runs if run.key not in results])


def report_failures(cfg: BenchmarkConfig, runner: CommandRunner, missing: Sequence[CellRun]) -> bool:
    """Say on stderr why cells are missing; True if none is."""
    for run in missing:
        failed = next(command for command in run.commands() if command.name in runner.failed)
        print(f"{run.cell}: failed\n{runner.describe_failure(failed)}\n", file=sys.stderr)
    if missing:
        print(
            "error: some cells failed; mend what they say and give the same command again "
            f"(what is done in {cfg.output_dir} is kept).",
            file=sys.stderr,
        )
    return not missing

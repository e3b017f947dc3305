"""A benchmark from its configuration to its results on disk."""

import sys
from collections.abc import Sequence

import draccus

from lawm_lerobot.benchmark.cells import CellRun, cell_runs, unique_commands
from lawm_lerobot.benchmark.configuration import BenchmarkConfig
from lawm_lerobot.benchmark.machine import machine
from lawm_lerobot.benchmark.results import append_new_results, plot, read_results, results_table, rows_of
from lawm_lerobot.benchmark.runner import CommandRunner, is_done, locked
from lawm_lerobot.files import write_json, write_text


def describe(cfg: BenchmarkConfig, runs: Sequence[CellRun]) -> str:
    """The cells, the commands they share and an estimate of their duration."""
    commands = unique_commands(runs)
    lines = [f"{len(runs)} cells"]
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


def run_benchmark(cfg: BenchmarkConfig) -> bool:
    """Run what is not done yet and write the results.

    Returns:
        True if every cell has a result. Otherwise stderr has said which failed, and why.

    Raises:
        BenchmarkError: If the configuration cannot work, or another benchmark writes to the same folder.
    """
    cfg.check()
    runs = cell_runs(cfg)
    if cfg.dry_run:
        print(describe(cfg, runs))
        return True
    with locked(cfg.output_dir):
        results = read_results(cfg.output_dir / "results.jsonl")
        encoded = draccus.encode(cfg)
        settings = {key: value for key, value in encoded.items() if key not in ("output_dir", "dry_run")}
        write_json(cfg.output_dir / "config.json", settings)
        write_json(cfg.output_dir / "machine.json", machine())

        def publish() -> None:
            rows = rows_of(cfg, runs, results)
            if rows:
                write_text(cfg.output_dir / "table.md", results_table(cfg, rows))
                plot(cfg, rows, cfg.output_dir / "plot.png")

        def finished() -> None:
            if append_new_results(cfg.output_dir, runs, results):
                publish()

        runner = CommandRunner(cfg.output_dir, cfg.workers, cfg.threads)
        finished()  # what was done when the benchmark was stopped
        runner.run(unique_commands([run for run in runs if run.key not in results]), finished)
        publish()

    rows = rows_of(cfg, runs, results)
    print(results_table(cfg, rows) if rows else "no cell has finished")
    missing = [run for run in runs if run.key not in results]
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

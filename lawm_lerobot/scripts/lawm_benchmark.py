"""``lawm-benchmark``: does pretraining help? Arms x tasks x demonstrations x seeds, from one YAML file.

    lawm-benchmark --config_path=configs/benchmark/cpu.yaml --output_dir=outputs/benchmark/cpu

Stopped and started again, it goes on where it was. See docs/benchmark.md.
"""

import json
import sys
from collections.abc import Sequence

import draccus
from draccus.utils import DecodingError, ParsingError

from lawm_lerobot.benchmark.machine import machine
from lawm_lerobot.benchmark.plan import BenchmarkConfig, BenchmarkError
from lawm_lerobot.benchmark.results import (
    collect,
    plot,
    read_results,
    rows_of,
    table,
)
from lawm_lerobot.benchmark.runner import StageRunner, is_done, locked, write_atomically
from lawm_lerobot.benchmark.stages import CellPlan, plan_cells, unique_stages


def describe(cfg: BenchmarkConfig, plans: Sequence[CellPlan]) -> str:
    """The cells, the stages they share and an estimate of their duration."""
    stages = unique_stages(list(plans))
    lines = [f"{len(plans)} cells"]
    lines += [f"  {plan.cell}" for plan in plans]
    lines += [f"{len(stages)} stages, with the estimated seconds of each"]
    for stage in stages:
        done = " (done)" if is_done(cfg.output_dir, stage) else ""
        lines.append(f"  {stage.seconds:6.0f}  {stage.name}{done}")
    left = sum(stage.seconds for stage in stages if not is_done(cfg.output_dir, stage))
    lines.append(
        f"{left / 60:.0f} minutes of work left, {left / 60 / cfg.workers:.0f} with --workers={cfg.workers}; "
        "estimated from `costs` in the YAML file"
    )
    return "\n".join(lines)


def run_benchmark(cfg: BenchmarkConfig) -> bool:
    """Run what is not done yet and write the results; returns whether every cell has one."""
    plans = plan_cells(cfg)
    if cfg.dry_run:
        print(describe(cfg, plans))
        return True
    with locked(cfg.output_dir):
        records = read_results(cfg.output_dir / "results.jsonl")
        encoded = draccus.encode(cfg)
        settings = {key: value for key, value in encoded.items() if key not in ("output_dir", "dry_run")}
        write_atomically(cfg.output_dir / "config.json", json.dumps(settings, indent=1) + "\n")
        write_atomically(cfg.output_dir / "machine.json", json.dumps(machine(), indent=1) + "\n")

        def publish() -> None:
            rows = rows_of(cfg, plans, records)
            if rows:
                write_atomically(cfg.output_dir / "table.md", table(cfg, rows))
                plot(cfg, rows, cfg.output_dir / "plot.png")

        def finished() -> None:
            if collect(cfg.output_dir, plans, records):
                publish()

        runner = StageRunner(cfg.output_dir, cfg.workers, cfg.threads)
        finished()  # what was done when the benchmark was stopped
        runner.run(unique_stages([plan for plan in plans if plan.key not in records]), finished)
        publish()

    rows = rows_of(cfg, plans, records)
    print(table(cfg, rows) if rows else "no cell has finished")
    missing = [plan for plan in plans if plan.key not in records]
    for plan in missing:
        failed = next(stage for stage in plan.stages() if stage.name in runner.failed)
        print(f"{plan.cell}: failed\n{runner.describe_failure(failed)}\n", file=sys.stderr)
    return not missing


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: what the user did wrong in one sentence and a non-zero exit code, not a traceback."""
    try:
        try:
            cfg = draccus.parse(BenchmarkConfig, args=list(sys.argv[1:] if argv is None else argv))
        except FileNotFoundError as error:
            raise BenchmarkError(f"there is no file {error.filename}: change --config_path.") from error
        cfg.check()
        if not run_benchmark(cfg):
            sys.exit(
                "lawm-benchmark: some cells failed; mend what they say and give the same command again "
                f"(what is done in {cfg.output_dir} is kept)."
            )
    except (BenchmarkError, DecodingError, ParsingError) as error:
        sys.exit(f"lawm-benchmark: {error}")
    except KeyboardInterrupt:
        sys.exit("\nlawm-benchmark: interrupted; the same command goes on from here.")


if __name__ == "__main__":
    main()

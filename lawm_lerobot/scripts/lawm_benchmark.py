"""``lawm-benchmark``: does pretraining help? Arms x tasks x demonstrations x seeds, from one YAML file.

    lawm-benchmark --config_path=configs/benchmark/cpu.yaml --output_dir=outputs/benchmark/cpu

Stopped and started again, it goes on where it was. See docs/benchmark.md.
"""

import sys
from collections.abc import Sequence

from lawm_lerobot.benchmark.configuration import BenchmarkConfig, BenchmarkError
from lawm_lerobot.benchmark.run import run_benchmark
from lawm_lerobot.scripts.command import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(
        BenchmarkConfig,
        run_benchmark,
        user_errors=(BenchmarkError,),
        interrupted="interrupted; the same command goes on from here.",
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())

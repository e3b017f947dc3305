"""``lawm-benchmark``: what is video worth? Arms x tasks x demonstrations x videos x seeds, from one YAML file.

    lawm-benchmark --config_path=configs/benchmark/gate.yaml --output_dir=outputs/benchmark/gate --gate=true
    lawm-benchmark --config_path=configs/benchmark/evidence.yaml --output_dir=outputs/benchmark/evidence

Stopped and started again, it goes on where it was. See docs/benchmark.md.
"""

import sys
from collections.abc import Sequence

from lawm_lerobot.benchmark.configuration import BenchmarkConfig, BenchmarkError
from lawm_lerobot.benchmark.protocol import config_path
from lawm_lerobot.scripts.command import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    file = config_path(sys.argv[1:] if argv is None else argv)

    def run(config: BenchmarkConfig) -> bool:
        # Imported late: statistics and plots take seconds to load, which --help does not wait for.
        from lawm_lerobot.benchmark.run import run_benchmark

        return run_benchmark(config, file)

    return run_command(
        BenchmarkConfig,
        run,
        user_errors=(BenchmarkError,),
        interrupted="interrupted; the same command goes on from here.",
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())

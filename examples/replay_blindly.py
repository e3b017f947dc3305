"""Replay demonstrations' actions on fresh episodes and count how often that succeeds without looking.

    python examples/replay_blindly.py --dataset.repo_id=local/so101 --dataset.root=data/so101 \\
        --env.type=lawm_so101 --env.draw=false --output=outputs/replay.json

Any simulated environment of LeRobot will do whose actions the demonstrations have. A policy that does not succeed more
often need not have looked either.
"""

import sys

from lerobot.utils.import_utils import register_third_party_plugins

from lawm_lerobot.benchmark.replay import ReplayConfig, replay
from lawm_lerobot.scripts.command import run_command


def main() -> int:
    register_third_party_plugins()
    return run_command(ReplayConfig, replay)


if __name__ == "__main__":
    sys.exit(main())

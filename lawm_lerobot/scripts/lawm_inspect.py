"""``lawm-inspect``: what a pretraining checkpoint has learned, or how much a policy looks, with pictures and a verdict.

lawm-inspect --policy.path=outputs/pretrained/checkpoints/last/pretrained_model --dataset.repo_id=me/video \
    --output_dir=outputs/inspection
"""

import sys

from lerobot.utils.utils import init_logging

from lawm_lerobot.inspection.run import InspectConfig, inspect_checkpoint
from lawm_lerobot.scripts.command import UsageError, policy_path, run_command


def inspect(config: InspectConfig) -> None:
    """Inspect the checkpoint ``--policy.path``."""
    policy = policy_path()
    if policy.path is None:
        raise UsageError(
            "No checkpoint was given: pass --policy.path=<lawm_* pretraining checkpoint, or any policy with actions>."
        )
    inspect_checkpoint(config, policy.path, policy.overrides)


def main() -> int:
    """Run the command; returns the exit code."""
    init_logging()
    return run_command(InspectConfig, inspect, interrupted="interrupted, no report was written")


if __name__ == "__main__":
    sys.exit(main())

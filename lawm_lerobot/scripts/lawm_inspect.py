"""``lawm-inspect``: what is in a dataset, what a pretraining checkpoint has learned, or how much a policy looks.

lawm-inspect --dataset.repo_id=me/video --output_dir=outputs/dataset
lawm-inspect --policy.path=outputs/pretrained/checkpoints/last/pretrained_model --dataset.repo_id=me/video \
    --output_dir=outputs/inspection
"""

import sys

from lerobot.utils.utils import init_logging

from lawm_lerobot.inspection.run import InspectConfig, inspect_checkpoint, inspect_dataset
from lawm_lerobot.scripts.command import policy_path, run_command


def inspect(config: InspectConfig) -> None:
    """Inspect the checkpoint ``--policy.path``, or the dataset if there is none."""
    policy = policy_path()
    if policy.path is None:
        inspect_dataset(config)
    else:
        inspect_checkpoint(config, policy.path, policy.overrides)


def main() -> int:
    """Run the command; returns the exit code."""
    init_logging()
    return run_command(InspectConfig, inspect, interrupted="interrupted, no report was written")


if __name__ == "__main__":
    sys.exit(main())

"""``lawm-inspect``: what is in a dataset, what a pretraining checkpoint has learned, or how much a policy looks.

lawm-inspect --dataset.repo_id=me/video --output_dir=outputs/dataset
lawm-inspect --policy.path=outputs/pretrained/checkpoints/last/pretrained_model --dataset.repo_id=me/video \
    --output_dir=outputs/inspection
"""

import sys

from lawm_lerobot.inspection.configuration import InspectConfig
from lawm_lerobot.scripts.command import run_command


def inspect(config: InspectConfig) -> None:
    """Inspect the checkpoint ``--policy.path``, or the dataset if there is none."""
    # Imported late: LeRobot takes seconds to load, which --help does not wait for.
    from lerobot.utils.utils import init_logging

    from lawm_lerobot.inspection.run import inspect_checkpoint, inspect_dataset

    init_logging()
    if config.policy.path is None:
        inspect_dataset(config)
    else:
        inspect_checkpoint(config)


def main() -> int:
    """Run the command; returns the exit code."""
    return run_command(InspectConfig, inspect, interrupted="interrupted, no report was written")


if __name__ == "__main__":
    sys.exit(main())

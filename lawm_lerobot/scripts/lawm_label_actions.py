"""``lawm-label-actions``: a copy of an unlabelled dataset with actions decoded from its video.

lawm-label-actions --policy.path=outputs/pretrained/checkpoints/last/pretrained_model --dataset.repo_id=me/videos \
    --labels.repo_id=me/demonstrations --output_repo_id=me/videos_labelled --merge=true
"""

import sys

from lawm_lerobot.labelling.configuration import LabelActionsConfig
from lawm_lerobot.scripts.command import run_command


def label(config: LabelActionsConfig) -> None:
    """Label a dataset."""
    # Imported late: LeRobot takes seconds to load, which --help does not wait for.
    from lerobot.utils.utils import init_logging

    from lawm_lerobot.labelling.run import label_actions

    init_logging()
    label_actions(config)


def main() -> int:
    """Run the command; returns its exit code."""
    return run_command(LabelActionsConfig, label)


if __name__ == "__main__":
    sys.exit(main())

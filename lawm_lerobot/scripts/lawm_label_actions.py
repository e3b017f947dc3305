"""``lawm-label-actions``: a copy of an unlabelled dataset with actions decoded from its video.

lawm-label-actions --policy.path=outputs/pretrained/checkpoints/last/pretrained_model --dataset.repo_id=me/videos \
    --labels.repo_id=me/demonstrations --output_repo_id=me/videos_labelled --merge=true
"""

import sys

from lerobot.utils.utils import init_logging

from lawm_lerobot.labelling.configuration import LabelActionsConfig
from lawm_lerobot.labelling.run import label_actions
from lawm_lerobot.scripts.command import policy_path, run_command


def main() -> int:
    """Run the command; returns its exit code."""
    init_logging()
    return run_command(LabelActionsConfig, lambda config: label_actions(config, policy_path().path))


if __name__ == "__main__":
    sys.exit(main())

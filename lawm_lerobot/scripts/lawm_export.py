"""``lawm-export``: a finetuned ``lawm_*`` checkpoint as a plain LeRobot one that needs no plugin on the robot.

lawm-export --policy.path=outputs/finetuned/checkpoints/last/pretrained_model --output_dir=outputs/plain

With ``--push_to_hub=true --repo_id=user/name`` it is published, with a card.
"""

import logging
import sys

from lerobot.utils.utils import init_logging

import lawm_lerobot.policies  # noqa: F401  registers the types for LeRobot's parser
from lawm_lerobot.policies.common.exporting import ExportConfig, export_checkpoint, read_config
from lawm_lerobot.scripts.command import UsageError, policy_path, run_command

logger = logging.getLogger(__name__)


def export(config: ExportConfig) -> None:
    """Export a checkpoint, and publish it if asked to."""
    given = policy_path()
    if given.path is None:
        raise UsageError("No checkpoint was given: pass --policy.path=<finetuned lawm_* checkpoint>.")
    if config.push_to_hub and not config.repo_id:
        raise UsageError("--push_to_hub=true needs to know where to: add --repo_id=<user>/<name>.")
    source = read_config(given.path, given.overrides)
    export_checkpoint(source, config.output_dir)
    if config.push_to_hub and config.repo_id:
        # Imported late: cards need what an export does not.
        from lawm_lerobot.policies.common.publishing import push_export

        logger.info(f"Pushed to {push_export(config.output_dir, source, config.repo_id, config.private)}")


def main() -> int:
    """Run the command; returns its exit code."""
    init_logging()
    return run_command(ExportConfig, export, interrupted="interrupted, --output_dir is whole or not there")


if __name__ == "__main__":
    sys.exit(main())

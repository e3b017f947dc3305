"""``lawm-export``: a finetuned ``lawm_*`` checkpoint as a plain LeRobot one that needs no plugin on the robot.

lawm-export --policy.path=outputs/finetuned/checkpoints/last/pretrained_model --output_dir=outputs/plain

With ``--push_to_hub=true --repo_id=user/name`` it is published, with a card.
"""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

from lawm_lerobot.policy_flags import PolicyFlags
from lawm_lerobot.scripts.command import UsageError, run_command

logger = logging.getLogger(__name__)


@dataclass
class ExportConfig:
    """Flags of ``lawm-export``.

    Args:
        output_dir: The directory for the plain checkpoint; it must not exist yet, or be empty.
        policy: The finetuned ``lawm_*`` checkpoint, given as ``--policy.path=<directory or Hub id>``.
        push_to_hub: Publish it, with a card.
        repo_id: The repository to publish it in, user/name.
        private: Make the Hub repository private.
    """

    output_dir: Path
    policy: PolicyFlags = field(default_factory=PolicyFlags)
    push_to_hub: bool = False
    repo_id: str | None = None
    private: bool | None = None


def export(config: ExportConfig) -> None:
    """Export a checkpoint, and publish it if asked to."""
    if config.policy.path is None:
        raise UsageError("No checkpoint was given: pass --policy.path=<finetuned lawm_* checkpoint>.")
    if config.push_to_hub and not config.repo_id:
        raise UsageError("--push_to_hub=true needs to know where to: add --repo_id=<user>/<name>.")
    # Imported late: LeRobot takes seconds to load, which --help does not wait for.
    from lerobot.utils.utils import init_logging

    import lawm_lerobot.policies  # noqa: F401  registers the types
    from lawm_lerobot.policies.common.exporting import export_checkpoint, read_config

    init_logging()
    source = read_config(config.policy.path, config.policy.overrides)
    export_checkpoint(source, config.output_dir)
    if config.push_to_hub and config.repo_id:
        from lawm_lerobot.policies.common.publishing import push_export

        logger.info(f"Pushed to {push_export(config.output_dir, source, config.repo_id, config.private)}")


def main() -> int:
    """Run the command; returns its exit code."""
    return run_command(ExportConfig, export, interrupted="interrupted, --output_dir is whole or not there")


if __name__ == "__main__":
    sys.exit(main())

"""`lawm-import-videos`: any video becomes an action-free LeRobotDataset.

    lawm-import-videos --source.type=folder --source.path=clips --repo_id=me/clips --root=data/clips

The same command resumes an import that was interrupted. See docs/importing.md for sources and flags.

This module imports nothing heavy at the top: worker processes import it again when they start.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lawm_lerobot.importing.config import ImportConfig
from lawm_lerobot.importing.run import run_import
from lawm_lerobot.importing.segments import ImportSettingsError
from lawm_lerobot.importing.workers import DiskError
from lawm_lerobot.scripts.command import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(
        ImportConfig,
        run_import,
        user_errors=(ImportSettingsError, DiskError),
        interrupted="interrupted; the same command goes on from here",
        argv=argv,
    )


if __name__ == "__main__":
    sys.exit(main())

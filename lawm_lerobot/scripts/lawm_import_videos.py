"""`lawm-import-videos`: any video becomes an action-free LeRobotDataset.

    lawm-import-videos --source.type=folder --source.path=clips --repo_id=me/clips --root=data/clips

The same command resumes an import that was interrupted. See docs/importing.md for sources and flags.

This module imports nothing heavy at the top: worker processes import it again when they start.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import draccus

from lawm_lerobot.importing.importer import ImportConfig, run_import
from lawm_lerobot.importing.segments import ImportSettingsError
from lawm_lerobot.importing.workers import DiskError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 when nothing could be imported, 2 for flags that cannot work."""
    try:
        config = draccus.parse(ImportConfig, args=list(sys.argv[1:] if argv is None else argv))
    except draccus.utils.DecodingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        run_import(config)
    except ImportSettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except DiskError as error:
        print(
            f"error: writing failed ({error}): free some space and run the same command again.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``lawm-libero-setup``: LIBERO ready to use after its installation from packages, without a question.

    pip install "lerobot_policy_lawm[libero]"
    lawm-libero-setup

It links the meshes beside hf-libero's package and writes LIBERO's config.yaml. It may be run again.
"""

import sys
from dataclasses import dataclass

from lawm_lerobot.scripts.command import run_command


@dataclass
class LiberoSetupConfig:
    """Flags of ``lawm-libero-setup``.

    Args:
        replace_config: Replace a LIBERO configuration that differs from this installation's. By default it is kept.
    """

    replace_config: bool = False


def set_up(config: LiberoSetupConfig) -> None:
    """Link the meshes, write the configuration, and say what was done."""
    # Imported late: LeRobot takes seconds to load, which --help does not wait for.
    from lawm_lerobot.envs.libero import installation

    for sentence in installation.set_up(config.replace_config):
        print(sentence)


def main() -> int:
    """Run the command; returns its exit code."""
    return run_command(LiberoSetupConfig, set_up, interrupted="interrupted; run it again")


if __name__ == "__main__":
    sys.exit(main())

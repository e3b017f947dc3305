"""``lawm-export``: a finetuned ``lawm_*`` checkpoint as a plain LeRobot one that needs no plugin on the robot.

lawm-export --policy.path=outputs/finetuned/checkpoints/last/pretrained_model --output_dir=outputs/plain
"""

import copy
import logging
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from draccus.utils import ParsingError
from lerobot.configs import PreTrainedConfig, parser
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import OBS_STATE
from lerobot.utils.random_utils import seeded_context
from lerobot.utils.utils import init_logging

import lawm_lerobot.policies  # noqa: F401  registers the types for LeRobot's parser
from lawm_lerobot.pretraining.configuration import LawmConfig
from lawm_lerobot.pretraining.policy import LawmPolicy

logger = logging.getLogger(__name__)

#: Largest difference between an action of the exported policy and of the one it was made from.
TOLERANCE = 1e-6


@dataclass
class ExportConfig:
    """Flags of ``lawm-export``.

    Args:
        policy: Give ``--policy.path=<directory or Hub id>``, a finetuned ``lawm_*`` checkpoint.
        output_dir: Where the plain checkpoint goes; must not exist yet, or be empty.
    """

    output_dir: Path
    policy: PreTrainedConfig | None = None

    @classmethod
    def __get_path_fields__(cls) -> list[str]:
        """LeRobot's parser then takes ``--policy.path``."""
        return ["policy"]


def export_checkpoint(config: LawmConfig, output_dir: Path) -> Path:
    """Write the plain checkpoint: config, weights and processors of the wrapped type.

    It is compared with its source on made-up observations before it gets its final name, so a checkpoint
    that exists is one that acts the same.

    Args:
        config: Of a finetuned checkpoint, with its ``pretrained_path``.
        output_dir: Created, with its parents.

    Returns:
        ``output_dir``.

    Raises:
        FileExistsError: If ``output_dir`` holds something.
        PretrainingCheckpointError: If the checkpoint is not finetuned.
        ValueError: If the checkpoint is of a type that this plugin does not export.
        RuntimeError: If the plain policy acts differently.
    """
    output_dir = Path(output_dir)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(
            f"{output_dir} exists and is not empty, expected a new directory: change --output_dir."
        )
    if not isinstance(config, LawmConfig):
        raise ValueError(
            f"{config.pretrained_path} holds a policy of type {config.type!r}, expected a lawm_* type: "
            "change --policy.path (a plain policy needs no export)."
        )
    config.device = "cpu"
    source = get_policy_class(config.type).from_pretrained(
        config.pretrained_path, config=config, revision=config.pretrained_revision
    )
    plain_config = config.plain_config()
    plain_config.pretrained_path = None
    plain_config.pretrained_revision = None
    plain_config.repo_id = None
    plain = get_policy_class(plain_config.type)(copy.deepcopy(plain_config))
    plain.load_state_dict(source.state_dict(), strict=True)

    output_dir.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}-", dir=output_dir.parent))
    try:
        plain.save_pretrained(unfinished)
        for processor in make_pre_post_processors(
            plain_config, str(config.pretrained_path), config.pretrained_revision
        ):
            processor.save_pretrained(unfinished)
        written = get_policy_class(plain_config.type).from_pretrained(unfinished, strict=True)
        difference = largest_difference(source, written)
        if not difference <= TOLERANCE:
            raise RuntimeError(
                f"The exported {plain_config.type} policy acts differently from its source (by up to "
                f"{difference:.2e}, expected at most {TOLERANCE}); nothing was written to --output_dir="
                f"{output_dir}."
            )
        if output_dir.exists():
            output_dir.rmdir()  # It is empty; replace() would refuse it on some systems.
        unfinished.chmod(0o755)  # mkdtemp's is for its owner only
        unfinished.replace(output_dir)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

    logger.info(f"Exported {config.type} as plain {plain_config.type} (same actions) to {output_dir}")
    if config.robot_state_feature is None and plain_config.type == "act":
        logger.warning(
            "This policy has no observation.state among its inputs, and LeRobot's ACT reads that key's device "
            "all the same: give it any state (a robot's joints will do), or stay with lawm_act."
        )
    return output_dir


@torch.no_grad()
def largest_difference(source: LawmPolicy, plain: PreTrainedPolicy, batch_size: int = 2) -> float:
    """max |a - a'| between two policies' action chunks on random observations of their input features."""
    chunks = []
    for policy in (source, plain):
        with seeded_context(0):  # Policies that sample must draw the same.
            batch: dict = {
                key: torch.rand(batch_size, *feature.shape)
                for key, feature in source.config.input_features.items()
            }
            batch.setdefault(OBS_STATE, torch.zeros(batch_size, 0))
            batch["task"] = ["move"] * batch_size
            chunks.append(policy.eval().predict_action_chunk(batch))
    return (chunks[0] - chunks[1]).abs().max().item()


@parser.wrap()
def export(cfg: ExportConfig) -> Path:
    path = parser.get_path_arg("policy")
    if path is None:
        raise ValueError("No checkpoint was given: pass --policy.path=<finetuned lawm_* checkpoint>.")
    overrides = parser.get_yaml_overrides("policy") + (parser.get_cli_overrides("policy") or [])
    policy = PreTrainedConfig.from_pretrained(path, cli_overrides=overrides)
    policy.pretrained_path = Path(path)
    return export_checkpoint(policy, cfg.output_dir)


def main() -> None:
    """Entry point: what the user did wrong in one sentence and a non-zero exit code, not a traceback."""
    init_logging()
    try:
        export()
    except (ValueError, OSError, RuntimeError, ParsingError) as error:
        sys.exit(f"lawm-export: {error}")


if __name__ == "__main__":
    main()

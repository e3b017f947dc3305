"""``lawm-export``: a finetuned ``lawm_*`` checkpoint as a plain LeRobot one that needs no plugin on the robot.

lawm-export --policy.path=outputs/finetuned/checkpoints/last/pretrained_model --output_dir=outputs/plain

With ``--push_to_hub=true --repo_id=user/name`` it is published, with a card.
"""

import copy
import logging
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from draccus.utils import ParsingError
from lerobot.configs import PreTrainedConfig, parser
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import PolicyProcessorPipeline
from lerobot.utils.constants import OBS_STATE
from lerobot.utils.random_utils import seeded_context
from lerobot.utils.utils import init_logging

import lawm_lerobot.policies  # noqa: F401  registers the types for LeRobot's parser
from lawm_lerobot.hub.errors import hub_errors
from lawm_lerobot.policies.common.adapters import load_whole_policy
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.processing import PretrainingStep

logger = logging.getLogger(__name__)

#: Largest difference between an action of the exported policy and of the one it was made from.
TOLERANCE = 1e-6


@dataclass
class ExportConfig:
    """Flags of ``lawm-export``.

    Args:
        policy: Give ``--policy.path=<directory or Hub id>``, a finetuned ``lawm_*`` checkpoint.
        output_dir: Where the plain checkpoint goes; must not exist yet, or be empty.
        push_to_hub: Publish it, with a card.
        repo_id: Where to, user/name.
        private: Make the Hub repository private.
    """

    output_dir: Path
    policy: PreTrainedConfig | None = None
    push_to_hub: bool = False
    repo_id: str | None = None
    private: bool | None = None

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
        ValueError: If the checkpoint is of a type that this plugin does not export, or its weights or statistics
            are not finite: without the plugin nothing would refuse the actions.
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
    source = load_whole_policy(config)
    _require_finite("weights", source.state_dict())
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
        processors = _load_processors(plain_config, config.pretrained_path, config.pretrained_revision)
        for processor in processors:
            processor.steps = [s.plain() if isinstance(s, PretrainingStep) else s for s in processor.steps]
            for step in processor.steps:
                _require_finite("statistics", step.state_dict())
            processor.save_pretrained(unfinished)
        written = get_policy_class(plain_config.type).from_pretrained(unfinished, strict=True)
        difference = largest_difference(
            (source, processors[0]), (written, _load_processors(plain_config, unfinished)[0])
        )
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
    if config.robot_state_feature is None:
        logger.warning(
            f"This policy has no observation.state among its inputs, and LeRobot's {plain_config.type} reads that key "
            f"all the same: give it any state (a robot's joints will do), or stay with {config.type}."
        )
    return output_dir


def _require_finite(kind: str, tensors: dict[str, torch.Tensor]) -> None:
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(
            f"The checkpoint's {kind} are not finite ({', '.join(broken[:3])}{', ...' if broken[3:] else ''}), "
            "expected numbers: its actions could not be sent to a robot; choose an earlier checkpoint as "
            "--policy.path."
        )


def _load_processors(
    config: PreTrainedConfig, checkpoint: Path | None, revision: str | None = None
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """A checkpoint's pipelines, on the CPU wherever it was trained."""
    on_cpu = {"device_processor": {"device": "cpu"}}
    return make_pre_post_processors(config, str(checkpoint), revision, preprocessor_overrides=on_cpu)


Actor = tuple[PreTrainedPolicy, PolicyProcessorPipeline]


def largest_difference(source: Actor, plain: Actor) -> float:
    """max |a - a'| between the actions of two policies with their preprocessors, asked as on a robot.

    A chunk of them for a made-up observation of the source's input features.
    """
    features = source[0].config.input_features
    chunks = []
    for policy, preprocessor in (source, plain):
        policy.eval().reset()
        with seeded_context(0):  # Policies that sample must draw the same.
            observation: dict[str, Any] = {
                key: torch.rand(feature.shape) for key, feature in features.items()
            }
            if OBS_STATE not in features:
                observation[OBS_STATE] = torch.zeros(0)
            batch = preprocessor({**observation, "task": "move"})
            steps = range(getattr(policy.config, "n_action_steps", 1))
            chunks.append(torch.stack([policy.select_action(dict(batch)) for _ in steps]))  # (steps,1,A)
    return (chunks[0] - chunks[1]).abs().max().item()


@parser.wrap()
def export(cfg: ExportConfig) -> Path:
    path = parser.get_path_arg("policy")
    if path is None:
        raise ValueError("No checkpoint was given: pass --policy.path=<finetuned lawm_* checkpoint>.")
    if cfg.push_to_hub and not cfg.repo_id:
        raise ValueError("--push_to_hub=true needs to know where to: add --repo_id=<user>/<name>.")
    overrides = parser.get_yaml_overrides("policy") + (parser.get_cli_overrides("policy") or [])
    revision = parser.parse_arg("pretrained_revision", overrides)
    with hub_errors(f"Loading {path}", "--policy.path"):
        policy = PreTrainedConfig.from_pretrained(path, revision=revision, cli_overrides=overrides)
    policy.pretrained_path = Path(path)
    output_dir = export_checkpoint(policy, cfg.output_dir)
    if cfg.push_to_hub and cfg.repo_id:
        # Imported late: cards need what an export does not.
        from lawm_lerobot.policies.common.publishing import push_export

        logger.info(f"Pushed to {push_export(output_dir, policy, cfg.repo_id, cfg.private)}")
    return output_dir


def main() -> None:
    """Entry point: what the user did wrong in one sentence and a non-zero exit code, not a traceback."""
    init_logging()
    try:
        export()
    except (ValueError, OSError, RuntimeError, ParsingError) as error:
        sys.exit(f"lawm-export: {error}")


if __name__ == "__main__":
    main()

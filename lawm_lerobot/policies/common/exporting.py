"""A finetuned ``lawm_*`` checkpoint as a plain LeRobot one, which acts the same."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig, parser
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import PolicyProcessorPipeline
from lerobot.utils.constants import OBS_STATE
from lerobot.utils.random_utils import seeded_context

from lawm_lerobot.files import written_aside
from lawm_lerobot.hub.errors import hub_errors
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.finite_actions import require_finite_tensors
from lawm_lerobot.policies.common.loading import load_whole_policy
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.common.processing import PretrainingStep

logger = logging.getLogger(__name__)

#: Largest difference between an action of the exported policy and of the one it was made from.
TOLERANCE = 1e-6


def read_config(path: str, overrides: Sequence[str] = ()) -> PreTrainedConfig:
    """Read a checkpoint's config with its ``pretrained_path``, given flags of it without ``policy.`` (``--device=cpu``)."""
    revision = parser.parse_arg("pretrained_revision", overrides)
    with hub_errors(f"Loading {path}", "--policy.path"):
        config = PreTrainedConfig.from_pretrained(path, revision=revision, cli_overrides=list(overrides))
    config.pretrained_path = Path(path)
    return config


def export_checkpoint(config: PreTrainedConfig, output_dir: Path) -> Path:
    """Write the plain checkpoint: config, weights and processors of the wrapped type.

    It is compared with its source on made-up observations before it gets its final name, so a checkpoint that exists
    is one that acts the same.

    Args:
        config: The config of a finetuned checkpoint, with its ``pretrained_path``.
        output_dir: The directory to write, created with its parents, and returned.

    Raises:
        FileExistsError: If ``output_dir`` holds something.
        PretrainingCheckpointError: If the checkpoint is not finetuned.
        ValueError: If the checkpoint is of a type that this plugin does not export, or its weights or statistics are
            not finite: without the plugin nothing would refuse the actions.
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
    config = copy.deepcopy(config)
    config.device = "cpu"
    source = load_whole_policy(config)
    require_finite_tensors("weights", source.state_dict())
    plain = plain_policy(source)
    with written_aside(output_dir) as unfinished:
        plain.save_pretrained(unfinished)
        preprocessor = _save_processors(config, plain.config, unfinished)
        written = type(plain).from_pretrained(unfinished, strict=True)
        theirs, _ = _load_processors(written.config, str(unfinished))
        difference = largest_difference((source, preprocessor), (written, theirs))
        if not difference <= TOLERANCE:
            raise RuntimeError(
                f"The exported {plain.config.type} policy acts differently from its source (by up to "
                f"{difference:.2e}, expected at most {TOLERANCE}); nothing was written to --output_dir="
                f"{output_dir}."
            )
    logger.info(f"Exported {config.type} as plain {plain.config.type} (same actions) to {output_dir}")
    if config.robot_state_feature is None:
        logger.warning(
            f"This policy has no observation.state among its inputs, and LeRobot's {plain.config.type} reads that key "
            f"all the same: give it any state (a robot's joints will do), or stay with {config.type}."
        )
    return output_dir


def plain_policy(source: LawmPolicy) -> PreTrainedPolicy:
    """Make the wrapped type's own policy with the same weights, and no memory of where they came from."""
    config = source.config.plain_config()
    config.pretrained_path = None
    config.pretrained_revision = None
    config.repo_id = None
    plain = get_policy_class(config.type)(config)
    plain.load_state_dict(source.state_dict(), strict=True)
    return plain


def _save_processors(
    config: LawmConfig, plain_config: PreTrainedConfig, directory: Path
) -> PolicyProcessorPipeline:
    """Save the checkpoint's pipelines with LeRobot's own steps only, and return the preprocessor."""
    processors = _load_processors(plain_config, str(config.pretrained_path), config.pretrained_revision)
    for processor in processors:
        processor.steps = [s.plain() if isinstance(s, PretrainingStep) else s for s in processor.steps]
        for step in processor.steps:
            require_finite_tensors("statistics", step.state_dict())
        processor.save_pretrained(directory)
    return processors[0]


def _load_processors(
    config: PreTrainedConfig, checkpoint: str, revision: str | None = None
) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
    """Load a checkpoint's pipelines, on the CPU wherever it was trained."""
    on_cpu = {"device_processor": {"device": "cpu"}}
    return make_pre_post_processors(config, checkpoint, revision, preprocessor_overrides=on_cpu)


Actor = tuple[PreTrainedPolicy, PolicyProcessorPipeline]


def largest_difference(source: Actor, plain: Actor) -> float:
    """Compute max |a - a'| between the action chunks of two policies with their preprocessors, asked as on a robot."""
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

"""Pre- and post-processing of ``lawm_act``: ACT's own."""

from __future__ import annotations

from typing import Any

from lerobot.policies.act.processor_act import make_act_pre_post_processors
from lerobot.processor import PolicyAction, PolicyProcessorPipeline

from lawm_lerobot.policies.act.configuration_lawm_act import LawmActConfig
from lawm_lerobot.pretraining.processing import stage_stats


def make_lawm_act_pre_post_processors(
    config: LawmActConfig, dataset_stats: dict[str, dict[str, Any]] | None = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]],
    PolicyProcessorPipeline[PolicyAction, PolicyAction],
]:
    """ACT's pipelines, under ACT's own step names, so that LeRobot reloads them without this plugin."""
    return make_act_pre_post_processors(config, stage_stats(config, dataset_stats))

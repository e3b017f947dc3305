"""Cards of what is published, rendered from the templates in ``hub_cards/``."""

from __future__ import annotations

import os
import platform
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData
from lerobot.configs import PreTrainedConfig
from lerobot.policies import get_policy_class

from lawm_lerobot.hub.names import is_repo_id
from lawm_lerobot.importing.provenance import PROVENANCE_PATH, read_provenance
from lawm_lerobot.policies.common.configuration import EMPTY_CAMERA
from lawm_lerobot.policies.flow_vla.configuration import FlowVLAConfig

#: Beside this module in a wheel, at the root of a checkout.
TEMPLATES = next(
    folder
    for folder in (Path(__file__).parent / "hub_cards", Path(__file__).parents[2] / "hub_cards")
    if folder.is_dir()
)
DATASET_TAGS = ["LeRobot", "lawm", "video"]
SHOWN_TASKS = 5
#: What to make of the figures of latent health; in the README too.
HEALTH = {
    "mse_over_copy": ("open-loop error over that of repeating the first frame", "below 1"),
    "shuffle_ratio": ("error with another clip's latents over that with the clip's own", "above 1"),
    "latent_std": ("spread of the latents", "near 1"),
    "latent_rank": ("directions that the latents use", "above 1"),
}


def policy_card(
    config: PreTrainedConfig,
    kind: str,
    repo_id: str,
    *,
    base: str | None,
    datasets: list[str],
    **context: Any,
) -> ModelCard:
    """The card of a checkpoint.

    Args:
        config: Of the published policy.
        kind: Template: ``pretraining``, ``finetuned`` or ``exported``.
        repo_id: Where it will be.
        base: What it was made from: a Hub id, or a name.
        datasets: Hub ids of what it was trained on.
        context: Further variables of the template.
    """
    base_model = base if base is not None and is_repo_id(base) else None
    plain = getattr(config, "plain_class", type(config))
    plain_type = PreTrainedConfig.get_choice_name(plain)
    policy_class = get_policy_class(config.type)
    relation = "adapter" if context.get("adapters") else "finetune"
    metadata = ModelCardData(
        license=config.license,  # None if nobody stated one: a default would speak for the owners of the data
        library_name="lerobot",
        pipeline_tag="robotics",
        tags=sorted({"lerobot", "robotics", "lawm", config.type, kind, *(config.tags or [])}),
        model_name=config.type,
        datasets=[name for name in datasets if is_repo_id(name)] or None,
        base_model=base_model.partition("@")[0] if base_model else None,
        base_model_relation=relation if base_model and kind == "finetuned" else None,
    )
    return _render(
        ModelCard,
        kind,
        metadata,
        repo_id=repo_id,
        plain_type=plain_type,
        policy_class=policy_class.__name__,
        policy_module=policy_class.__module__,
        package="'lerobot_policy_lawm[vla]'" if isinstance(config, FlowVLAConfig) else "lerobot_policy_lawm",
        license=config.license,
        base=base.partition("@")[0] if base_model and base else base,
        base_is_repository=base_model is not None,
        features=[
            {"role": role, "name": name, "shape": "x".join(map(str, feature.shape))}
            for role, named in (("input", config.input_features), ("output", config.output_features))
            for name, feature in (named or {}).items()
        ],
        versions=versions(),
        **context,
    )


def dataset_card(repo_id: str, info: Any, summary: dict[str, Any], license: str | None) -> DatasetCard:
    """The card of an imported dataset.

    Args:
        repo_id: Where it will be.
        info: LeRobot's ``meta/info.json``.
        summary: The importer's.
        license: Identifier for the collection as a whole, if one was stated.
    """
    labelled = [name for name in ("action", "observation.state") if name in info.features]
    metadata = DatasetCardData(
        license=license,
        tags=[*DATASET_TAGS, *([] if "action" in labelled else ["unlabelled"])],
        task_categories=["robotics"],
        configs=[{"config_name": "default", "data_files": "data/*/*.parquet"}],
    )
    return _render(
        DatasetCard,
        "dataset",
        metadata,
        repo_id=repo_id,
        info=info,
        license=license,
        labelled=labelled,
        sources=[
            {**source, "name": _cell(source["name"]), "notes": _notes(source["license_notes"])}
            for source in summary["sources"]
        ],
        features=[
            {"name": name, "type": feature["dtype"], "shape": "x".join(map(str, feature["shape"]))}
            for name, feature in info.features.items()
        ],
        versions=versions(),
        **{key: summary[key] for key in ("episodes", "hours", "fps", "height", "width")},
    )


def _render(card_class: Any, kind: str, metadata: Any, **context: Any) -> Any:
    citation = (TEMPLATES / "citation.bib").read_text(encoding="utf-8").strip()
    template = (TEMPLATES / f"{kind}.md").read_text(encoding="utf-8")
    return card_class.from_template(metadata, template_str=template, citation=citation, **context)


# --- what the templates show ------------------------------------------------------------------------------


def corpus(meta: Any, repo_id: str) -> dict[str, Any]:
    """What a policy was trained on, from LeRobot's metadata and the importer's provenance if there is one."""
    tasks = [str(task) for task in meta.tasks.index]
    shown = ", ".join(f'"{_cell(task)}"' for task in tasks[:SHOWN_TASKS])
    more = f" and {len(tasks) - SHOWN_TASKS} more" if len(tasks) > SHOWN_TASKS else ""
    name = (
        f"[{repo_id}](https://huggingface.co/datasets/{repo_id})" if is_repo_id(repo_id) else f"`{repo_id}`"
    )
    cameras = ", ".join(f"`{key}`" for key in meta.camera_keys)
    text = (
        f"{name}: {meta.total_episodes} episodes, {meta.total_frames} frames, "
        f"{meta.total_frames / meta.fps / 3600:.2f} hours at {meta.fps} frames per second. Cameras: {cameras}. "
        f"Tasks: {shown or 'none named'}{more}."
    )
    return {"corpus_text": text, "sources": _sources(Path(meta.root))}


def _sources(root: Path) -> list[dict[str, Any]]:
    if not (root / PROVENANCE_PATH).is_file():
        return []
    rows = read_provenance(root)
    return [
        {
            "name": _cell(name),
            "episodes": sum(row["source"] == name for row in rows),
            "hours": sum(row["end_s"] - row["start_s"] for row in rows if row["source"] == name) / 3600,
            "notes": _notes(sorted({row["license_note"] for row in rows if row["source"] == name})),
        }
        for name in sorted({row["source"] for row in rows})
    ]


def training_table(cfg: dict[str, Any], parameters: int, hardware: str | None) -> list[tuple[str, Any]]:
    """Rows of what a run did, from its ``train_config.json``."""
    optimizer = cfg.get("optimizer") or {}
    rows = [
        ("steps", cfg.get("steps")),
        ("batch size", cfg.get("batch_size")),
        ("optimizer", optimizer.get("type")),
        ("learning rate", optimizer.get("lr")),
        ("seed", cfg.get("seed")),
        ("parameters", f"{parameters:,}"),
        ("hardware", hardware),
    ]
    return [(name, value) for name, value in rows if value is not None]


def latent_table(config: Any) -> list[tuple[str, Any]]:
    """Rows of what was pretrained, from a ``lawm_*`` config."""
    latent, world_model = config.latent_action, config.world_model
    seconds = f", {latent.stride / config.dataset_fps:.2f} s" if config.dataset_fps else ""
    return [
        ("latent actions", f"{latent.horizon} of {latent.dim} numbers in a chunk"),
        ("between two frames", f"{latent.stride} dataset frames{seconds}"),
        ("source of the latents", f"`{latent.source}`"),
        ("world model", f"`{world_model.type}`, size `{world_model.size}`, {world_model.image_size} pixels"),
    ]


def health_table(health: dict[str, float]) -> list[dict[str, Any]]:
    """Rows of the latents' health."""
    return [
        {"name": name, "value": health[name], "says": says, "healthy": healthy}
        for name, (says, healthy) in HEALTH.items()
        if name in health
    ]


def transfer_table(report: dict[str, Any] | None) -> dict[str, Any] | None:
    """Counts and reasons of a ``transfer_report.json``."""
    if report is None:
        return None
    reasons = Counter((t["status"], t["reason"]) for t in report["tensors"] if t["status"] != "kept")
    rows = [
        {"status": status, "count": count, "reason": _cell(reason)}
        for (status, reason), count in reasons.items()
    ]
    return {**report["summary"], "rows": rows}


def rollout_command(config: PreTrainedConfig, repo_id: str, robot_type: str | None, fps: int | None) -> str:
    """The `lerobot-rollout` line for a policy: its cameras by name, the machine's own values left open."""
    cameras = ", ".join(
        f"{name.rpartition('.')[2]}: {{type: opencv, index_or_path: <index>, "
        f"width: {feature.shape[2]}, height: {feature.shape[1]}, fps: {fps or 30}}}"
        for name, feature in config.image_features.items()
        if not name.startswith(EMPTY_CAMERA)  # The policy fills these itself.
    )
    # Datasets of an SO-100 or SO-101 have the driver's name, which --robot.type does not know.
    robot_type = "so101_follower" if robot_type == "so_follower" else robot_type
    return (
        f"lerobot-rollout --policy.path={repo_id} --strategy.type=base --duration=60 \\\n"
        f"    --robot.type={robot_type or '<robot>'} --robot.port=<port> --robot.id=<id> \\\n"
        f'    --robot.cameras="{{ {cameras} }}" \\\n'
        '    --task="<task>"'
    )


def hardware(device: str) -> str:
    """What this process trains on."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"{device} ({platform.machine()})"
    return f"{processes} x {name}"


def versions() -> str:
    """Of what matters for loading this again."""
    names = {"lerobot_policy_lawm": "lerobot_policy_lawm", "lerobot": "LeRobot", "torch": "PyTorch"}
    found = [f"{shown} {version(name)}" for name, shown in names.items()]
    return ", ".join([*found, f"Python {platform.python_version()}"])


def _notes(notes: list[str]) -> str:
    return _cell("; ".join(notes) or "nothing imported")


def _cell(text: str) -> str:
    """Text from elsewhere, for a table or a line."""
    return " ".join(text.replace("|", "\\|").split())

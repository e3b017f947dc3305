"""Cards of what is published, rendered from the templates in ``hub_cards/``."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData
from lerobot.configs import PolicyFeature, PreTrainedConfig
from lerobot.policies import get_policy_class

from lawm_lerobot.hub.names import is_repo_id

PACKAGE = "lerobot_policy_lawm"
DATASET_TAGS = ["LeRobot", "lawm", "video"]
SHOWN_TASKS = 5
#: What each metric of latent health says, and its healthy range; in the README too.
HEALTH_METRICS = {
    "mse_over_copy": ("open-loop error over that of repeating the first frame", "below 1"),
    "shuffle_ratio": ("error with another clip's latents over that with the clip's own", "above 1"),
    "latent_std": ("spread of the latents", "near 1"),
    "latent_rank": ("directions that the latents use", "above 1"),
}


def templates() -> Path:
    """The folder of the templates.

    It lies at the root of a checkout, where people who edit the cards look for it, and beside this module in a wheel,
    which must keep its data inside the package.
    """
    beside = Path(__file__).parent / "hub_cards"
    return beside if beside.is_dir() else Path(__file__).parents[2] / "hub_cards"


def policy_card(
    config: PreTrainedConfig,
    kind: str,
    repo_id: str,
    *,
    plain_type: str,
    base: str | None,
    datasets: list[str],
    extra: str | None = None,
    **context: Any,
) -> ModelCard:
    """The card of a checkpoint.

    Args:
        config: The config of the published policy.
        kind: The template: ``pretraining``, ``finetuned`` or ``exported``.
        repo_id: The repository that the checkpoint will be in.
        plain_type: LeRobot's name of the policy without this plugin, such as ``act``.
        base: The Hub id or the name of the checkpoint that this one was made from.
        datasets: Hub ids of the datasets that it was trained on.
        extra: The extra of this package that the policy needs, such as ``vla``.
        context: Further variables of the template.
    """
    base_model = base if base is not None and is_repo_id(base) else None
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
        package=PACKAGE if extra is None else f"'{PACKAGE}[{extra}]'",
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
        repo_id: The repository that the dataset will be in.
        info: LeRobot's ``meta/info.json``.
        summary: The importer's summary of its run, as in ``import_summary.json``.
        license: The identifier of the licence for the collection as a whole, if one was stated.
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
    citation = (templates() / "citation.bib").read_text(encoding="utf-8").strip()
    template = (templates() / f"{kind}.md").read_text(encoding="utf-8")
    return card_class.from_template(metadata, template_str=template, citation=citation, **context)


# --- what the templates show ------------------------------------------------------------------------------


def corpus(meta: Any, repo_id: str, provenance: list[dict[str, Any]]) -> dict[str, Any]:
    """Variables of the templates about the dataset that a policy was trained on.

    ``meta`` is LeRobot's metadata; ``provenance`` has the importer's rows, none if it was not imported.
    """
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
    by_source: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(provenance, key=lambda row: row["source"]):
        by_source.setdefault(row["source"], []).append(row)
    sources = [
        {
            "name": _cell(source),
            "episodes": len(rows),
            "hours": sum(row["end_s"] - row["start_s"] for row in rows) / 3600,
            "notes": _notes(sorted({row["license_note"] for row in rows})),
        }
        for source, rows in by_source.items()
    ]
    return {"corpus_text": text, "sources": sources}


def training_table(cfg: dict[str, Any], parameters: int, hardware: str | None) -> list[tuple[str, Any]]:
    """Rows about a training run, from its ``train_config.json``."""
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


def health_table(health: dict[str, float]) -> list[dict[str, Any]]:
    """Rows about the latents' health, of the metrics that were measured."""
    return [
        {"name": name, "value": health[name], "says": says, "healthy": healthy}
        for name, (says, healthy) in HEALTH_METRICS.items()
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


def rollout_command(
    repo_id: str, cameras: Mapping[str, PolicyFeature], robot_type: str | None, fps: int | None
) -> str:
    """The `lerobot-rollout` line for a policy: its cameras by name, the machine's own values left open.

    ``robot_type`` and ``fps`` are those of the demonstrations.
    """
    configs = ", ".join(
        f"{name.rpartition('.')[2]}: {{type: opencv, index_or_path: <index>, "
        f"width: {feature.shape[2]}, height: {feature.shape[1]}, fps: {fps or 30}}}"
        for name, feature in cameras.items()
    )
    # Datasets of an SO-100 or SO-101 have the driver's name, which --robot.type does not know.
    robot_type = "so101_follower" if robot_type == "so_follower" else robot_type
    return (
        f"lerobot-rollout --policy.path={repo_id} --strategy.type=base --duration=60 \\\n"
        f"    --robot.type={robot_type or '<robot>'} --robot.port=<port> --robot.id=<id> \\\n"
        f'    --robot.cameras="{{ {configs} }}" \\\n'
        '    --task="<task>"'
    )


def hardware(device: str) -> str:
    """The processors that this process trains on, and how many processes do."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"{device} ({platform.machine()})"
    return f"{processes} x {name}"


def versions() -> str:
    """Versions of the packages that loading this again depends on."""
    names = {PACKAGE: PACKAGE, "lerobot": "LeRobot", "torch": "PyTorch"}
    found = [f"{shown} {version(name)}" for name, shown in names.items()]
    return ", ".join([*found, f"Python {platform.python_version()}"])


def _notes(notes: list[str]) -> str:
    return _cell("; ".join(notes) or "nothing imported")


def _cell(text: str) -> str:
    """Text from elsewhere on one line, in which no character ends a table's cell."""
    return " ".join(text.replace("|", "\\|").split())

"""Publish checkpoints on the Hub: with a card, without the paths of this machine, in one commit."""

from __future__ import annotations

import json
import logging
import math
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from huggingface_hub.errors import RemoteEntryNotFoundError
from lerobot.common.train_utils import get_step_checkpoint_dir
from lerobot.configs import PreTrainedConfig
from lerobot.configs.train import TRAIN_CONFIG_NAME
from lerobot.policies import make_pre_post_processors
from lerobot.utils.constants import PRETRAINED_MODEL_DIR
from safetensors import safe_open

from lawm_lerobot.hub import cards
from lawm_lerobot.hub.errors import hub_errors
from lawm_lerobot.hub.names import is_repo_id, make_public, public_name
from lawm_lerobot.hub.provenance import PROVENANCE_PATH, read_provenance
from lawm_lerobot.hub.upload import upload
from lawm_lerobot.method.latent_action import NONE, POLICY
from lawm_lerobot.policies.common.checkpointed import COTRAINING_FILE
from lawm_lerobot.policies.common.clips import real_cameras
from lawm_lerobot.policies.common.compat import is_main_process, is_sharded
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.imagination import latent_health, save_imagination_strip
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.common.pretraining_checkpoint import pretraining_batches

logger = logging.getLogger(__name__)

CARD = "README.md"
PICTURE = "imagination.png"
#: Clips of the training dataset on which the card's metrics are measured.
HEALTH_CLIPS = 64


def push_policy(
    policy: LawmPolicy,
    cfg: Any,
    peft_model: Any = None,
    state_dict: dict[str, Any] | None = None,
    dataset_meta: Any = None,
    logged_health: dict[str, float] | None = None,
) -> None:
    """Publish a policy at the end of its training, in place of LeRobot's `push_model_to_hub`.

    Args:
        policy: The policy in either stage; its config names the repository.
        cfg: LeRobot's training config.
        peft_model: The policy's adapters, published in place of the whole policy.
        state_dict: The policy's gathered weights, if they are spread over processes.
        dataset_meta: LeRobot's metadata of the training dataset.
        logged_health: The latents' health in the last training steps, shown if none can be measured now.

    Raises:
        HubError | ValueError: As `upload`. The checkpoint on disk is untouched.
    """
    config = policy.config
    checkpoint = get_step_checkpoint_dir(cfg.output_dir, cfg.steps, cfg.steps) / PRETRAINED_MODEL_DIR
    with TemporaryDirectory(ignore_cleanup_errors=True) as staging:
        folder = Path(staging)
        if peft_model is None:
            policy.save_pretrained(folder, **({} if state_dict is None else {"state_dict": state_dict}))
        else:
            peft_model.save_pretrained(folder)
            config.save_pretrained(folder)
        if not is_main_process():
            return
        # It serves to resume the training on this machine, and its latents are of somebody's video.
        (folder / COTRAINING_FILE).unlink(missing_ok=True)
        cfg.save_pretrained(folder)
        # LeRobot pushes the processors in two commits of their own; here what is there can be loaded at any time.
        for file in checkpoint.glob("policy_*processor*"):
            shutil.copy(file, folder)
        for tokenizer in checkpoint.glob("*tokenizer"):  # LeRobot 0.6.1 keeps only its name.
            shutil.copytree(tokenizer, folder / tokenizer.name)
        make_public(folder, config.private)
        if config.pretraining:
            # Of weights that are spread over processes this one alone cannot compute anything.
            readable = None if state_dict is not None or is_sharded(policy) else dataset_meta
            health = _health_context(policy, readable, folder / PICTURE, logged_health or {})
            card = _pretraining_card(policy, cfg, dataset_meta, health)
        else:
            card = _finetuned_card(policy, cfg, dataset_meta)
        card.save(folder / CARD)
        with hub_errors(f"Pushing to {config.repo_id}", "--policy.repo_id", _other_ways(checkpoint)):
            address = upload(
                folder,
                config.repo_id,
                private=config.private,
                message=f"Upload {config.type}, {config.stage} stage, step {cfg.steps}",
            )
    # LeRobot's remote jobs watch for this line.
    logger.info(f"Model pushed to {address}")


def _other_ways(checkpoint: Path) -> str:
    """The rest of the sentence that says that a push failed."""
    if not checkpoint.is_dir():
        return "no checkpoint was kept on disk (--save_checkpoint=false)"
    return (
        f"the checkpoint is whole in {checkpoint}, and lerobot-train --resume=true "
        f"--config_path={checkpoint / TRAIN_CONFIG_NAME} pushes it again"
    )


def _pretraining_card(policy: LawmPolicy, cfg: Any, dataset_meta: Any, health: dict[str, Any]) -> ModelCard:
    config = policy.config
    labels, base = config.labels.repo_id, config.base_path
    return cards.policy_card(
        config,
        "pretraining",
        config.repo_id,
        base=None if base is None else public_name(base, config.private),
        datasets=[cfg.dataset.repo_id, *([] if labels is None else [labels])],
        training=[*_latent_rows(config), *_training_rows(policy, cfg)],
        labelled=bool(config.labels.action_dims),
        labels_repo_id=labels,
        # With `policy`, its plan is what drives the world model, and the strip has no second row of it.
        plan=config.latent_action.source != POLICY,
        **_shared_context(config, cfg, dataset_meta),
        **health,
    )


def _finetuned_card(policy: LawmPolicy, cfg: Any, dataset_meta: Any) -> ModelCard:
    config = policy.config
    robot, fps = getattr(dataset_meta, "robot_type", None), getattr(dataset_meta, "fps", None)
    origin, video = config.transferred_from, config.video.repo_id
    return cards.policy_card(
        config,
        "finetuned",
        config.repo_id,
        base=None if origin is None else public_name(origin, config.private),
        datasets=[cfg.dataset.repo_id, *([] if video is None else [video])],
        training=_training_rows(policy, cfg),
        video_repo_id=video,
        rollout=cards.rollout_command(config.repo_id, real_cameras(config), robot, fps),
        transfer=cards.transfer_table(policy.transfer_report),
        adapters=config.use_peft,
        **_shared_context(config, cfg, dataset_meta),
    )


def _shared_context(config: LawmConfig, cfg: Any, dataset_meta: Any) -> dict[str, Any]:
    """Variables of both templates: the names of the policy's packages, and its dataset."""
    corpus = {"corpus_text": f"`{cfg.dataset.repo_id}`"}
    if dataset_meta is not None:
        root = Path(dataset_meta.root)
        provenance = read_provenance(root) if (root / PROVENANCE_PATH).is_file() else []
        corpus = cards.corpus(dataset_meta, cfg.dataset.repo_id, provenance)
    plain_type = PreTrainedConfig.get_choice_name(config.plain_class)
    return {"plain_type": plain_type, "extra": config.package_extra, **corpus}


def _training_rows(policy: LawmPolicy, cfg: Any) -> list[tuple[str, Any]]:
    parameters = sum(p.numel() for p in policy.parameters())
    return cards.training_table(cfg.to_dict(), parameters, cards.hardware(policy.config.device or "cpu"))


def _latent_rows(config: LawmConfig) -> list[tuple[str, Any]]:
    latent, world_model = config.latent_action, config.world_model
    seconds = f", {latent.stride / config.dataset_fps:.2f} s" if config.dataset_fps else ""
    families = {
        f"codes (`{latent.quantizer}`)": latent.quantizer != NONE,
        "the robot's state": latent.proprio_weight > 0,
        "true actions as latents": config.labels.grounding_weight > 0,
    }
    shaping = ", ".join(name for name, used in families.items() if used)
    return [
        ("latent actions", f"{latent.horizon} of {latent.dim} numbers in a chunk"),
        ("between two frames", f"{latent.stride} dataset frames{seconds}"),
        ("source of the latents", f"`{latent.source}`"),
        *([("latents also shaped by", shaping)] if shaping else []),
        ("world model", f"`{world_model.type}`, size `{world_model.size}`, {world_model.image_size} pixels"),
    ]


def _health_context(
    policy: LawmPolicy, dataset_meta: Any, picture: Path, logged: dict[str, float]
) -> dict[str, Any]:
    """The card's variables about the latents' health: measured if ``dataset_meta`` is given, else as logged."""
    measured = None if dataset_meta is None else _look_inside(policy, dataset_meta, picture)
    if measured is None:
        return {"health_where": "in the last training steps", "health": cards.health_table(logged)}
    return {
        "health_where": f"after the last step, on up to {HEALTH_CLIPS} clips of the corpus",
        "health": cards.health_table(measured),
        "picture": picture.name,
    }


def _look_inside(policy: LawmPolicy, dataset_meta: Any, picture: Path) -> dict[str, float] | None:
    """Health on clips of the training dataset, and the imagination strip; None if that does not work out."""
    was_training = policy.training
    policy.eval()
    try:
        preprocessor, _ = make_pre_post_processors(policy.config, dataset_stats=dataset_meta.stats)
        batches = list(
            pretraining_batches(
                policy, preprocessor, dataset_meta.repo_id, Path(dataset_meta.root), clips=HEALTH_CLIPS
            )
        )
        save_imagination_strip(policy, batches[0], picture)
        return latent_health(policy, batches)
    except Exception as error:  # Whatever it is, a picture is no reason to lose the push of a whole training.
        picture.unlink(missing_ok=True)
        logger.warning(f"The card goes without picture and measured figures: {type(error).__name__}: {error}")
        return None
    finally:
        policy.train(was_training)


def push_export(folder: Path, source: LawmConfig, repo_id: str, private: bool | None) -> str:
    """Publish what ``lawm-export`` wrote; its card goes into the folder too, which stays whatever happens.

    ``source`` is the config of the finetuned checkpoint, with its ``pretrained_path``. Arguments, result and errors are
    otherwise those of `upload`.
    """
    config = PreTrainedConfig.from_pretrained(folder)
    with safe_open(folder / SAFETENSORS_SINGLE_FILE, "pt") as weights:
        parameters = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    path = str(source.pretrained_path)
    origin = source.transferred_from and public_name(source.transferred_from, private)
    training = _train_config(path, source.pretrained_revision)
    dataset = (training or {}).get("dataset", {}).get("repo_id")
    card = cards.policy_card(
        config,
        "exported",
        repo_id,
        plain_type=config.type,
        base=public_name(path, private),
        datasets=[dataset] if dataset else [],
        pretrained_from=origin,
        pretrained_is_repository=origin is not None and is_repo_id(origin),
        dataset_repo_id=dataset,
        training=cards.training_table(training, parameters, None) if training else None,
        rollout=cards.rollout_command(repo_id, real_cameras(config), None, None),
    )
    card.save(folder / CARD)
    again = f"hf upload {repo_id} {folder}" + (" --private" if private else "")
    otherwise = f"the exported checkpoint is whole in {folder}, and `{again}` pushes it again"
    with TemporaryDirectory(ignore_cleanup_errors=True) as staging:
        public = shutil.copytree(folder, Path(staging) / "public")
        make_public(public, private)
        with hub_errors(f"Pushing to {repo_id}", "--repo_id", otherwise):
            return upload(
                public, repo_id, private=private, message=f"Upload {config.type}, exported by lawm-export"
            )


def _train_config(path: str, revision: str | None) -> dict[str, Any] | None:
    """A checkpoint's ``train_config.json``, from a directory or the Hub; None if there is none."""
    file = Path(path) / TRAIN_CONFIG_NAME
    if not Path(path).is_dir():
        with hub_errors(f"Loading {path}", "--policy.path"):
            try:
                file = Path(hf_hub_download(path, TRAIN_CONFIG_NAME, revision=revision))
            except RemoteEntryNotFoundError:
                return None
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

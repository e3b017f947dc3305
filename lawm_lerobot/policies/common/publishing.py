"""Checkpoints on their way to the Hub: with a card, without the paths of this machine, in one commit."""

from __future__ import annotations

import json
import logging
import math
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import hf_hub_download
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
from lawm_lerobot.hub.upload import upload
from lawm_lerobot.method.latent_action import POLICY
from lawm_lerobot.policies.common.clip_batches import pretraining_batches
from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.imagination import latent_health
from lawm_lerobot.policies.common.policy import LawmPolicy
from lawm_lerobot.policies.common.strips import save_imagination_strip

logger = logging.getLogger(__name__)

CARD = "README.md"
PICTURE = "imagination.png"
#: Clips of the training dataset that the card's figures are measured on.
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
        policy: Of either stage; its config says where to.
        cfg: LeRobot's training config.
        peft_model: Its adapters, in place of the whole policy.
        state_dict: Its gathered weights, if they are spread over processes.
        dataset_meta: Of the training dataset.
        logged_health: Of the last training steps, for want of better.

    Raises:
        HubError: In one sentence. The checkpoint on disk is untouched.
        ValueError: If the repository must be private and is public, or the Hub refuses the card.
    """
    config = policy.config
    checkpoint = get_step_checkpoint_dir(cfg.output_dir, cfg.steps, cfg.steps) / PRETRAINED_MODEL_DIR
    otherwise = (
        f"the checkpoint is whole in {checkpoint}, and lerobot-train --resume=true "
        f"--config_path={checkpoint / TRAIN_CONFIG_NAME} pushes it again"
        if checkpoint.is_dir()
        else "no checkpoint was kept on disk (--save_checkpoint=false)"
    )
    with TemporaryDirectory(ignore_cleanup_errors=True) as staging:
        folder = Path(staging)
        if peft_model is None:
            policy.save_pretrained(folder, state_dict=state_dict)
        else:
            peft_model.save_pretrained(folder)
            config.save_pretrained(folder)
        cfg.save_pretrained(folder)
        # LeRobot pushes the processors in two commits of their own; here what is there can be loaded at any time.
        for file in checkpoint.glob("policy_*processor*"):
            shutil.copy(file, folder)
        make_public(folder, config.private)

        context: dict[str, Any] = {}
        if config.pretraining:
            health = dict(logged_health or {})
            context["health_where"] = "in the last training steps"
            # Of weights that are spread over processes this one alone cannot compute anything.
            if state_dict is None and dataset_meta is not None:
                measured = _look_inside(policy, dataset_meta, folder / PICTURE)
                if measured is not None:
                    health = measured
                    context["picture"] = PICTURE
                    context["health_where"] = (
                        f"after the last step, on up to {HEALTH_CLIPS} clips of the corpus"
                    )
            context["health"] = cards.health_table(health)
        card = _policy_card(policy, cfg, dataset_meta, context)
        card.save(folder / CARD)
        with hub_errors(f"Pushing to {config.repo_id}", "--policy.repo_id", otherwise):
            address = upload(
                folder,
                config.repo_id,
                private=config.private,
                message=f"Upload {config.type}, {config.stage} stage, step {cfg.steps}",
            )
    # LeRobot's remote jobs watch for this line.
    logger.info(f"Model pushed to {address}")


def _policy_card(policy: LawmPolicy, cfg: Any, dataset_meta: Any, context: dict[str, Any]) -> Any:
    config = policy.config
    base, datasets = None, [cfg.dataset.repo_id]
    rows = cards.training_table(
        cfg.to_dict(), sum(p.numel() for p in policy.parameters()), cards.hardware(config.device or "cpu")
    )
    if config.pretraining:
        rows = [*cards.latent_table(config), *rows]
        context["labelled"] = bool(config.labels.action_dims)
        context["labels_repo_id"] = config.labels.repo_id
        # With `policy`, its plan is what drives the world model, and the strip has no second row of it.
        context["plan"] = config.latent_action.source != POLICY
        if config.labels.repo_id is not None:
            datasets.append(config.labels.repo_id)
        if config.base_path is not None:
            base = public_name(config.base_path, config.private)
    else:
        robot, fps = getattr(dataset_meta, "robot_type", None), getattr(dataset_meta, "fps", None)
        context["rollout"] = cards.rollout_command(config, config.repo_id, robot, fps)
        context["transfer"] = cards.transfer_table(policy.transfer_report)
        context["adapters"] = config.use_peft
        if config.transferred_from is not None:
            base = public_name(config.transferred_from, config.private)
    corpus = (
        cards.corpus(dataset_meta, cfg.dataset.repo_id)
        if dataset_meta is not None
        else {"corpus_text": f"`{cfg.dataset.repo_id}`"}
    )
    return cards.policy_card(
        config,
        "pretraining" if config.pretraining else "finetuned",
        config.repo_id,
        base=base,
        datasets=datasets,
        training=rows,
        **corpus,
        **context,
    )


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
    """Publish what ``lawm-export`` wrote; its card goes into the folder too.

    Args:
        folder: A plain checkpoint.
        source: Config of the finetuned checkpoint, with its ``pretrained_path``.
        repo_id: Where.
        private: As for `upload`.

    Returns:
        The repository's address.

    Raises:
        HubError: In one sentence; the folder stays.
        ValueError: As `upload`.
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
        base=public_name(path, private),
        datasets=[dataset] if dataset else [],
        pretrained_from=origin,
        pretrained_is_repository=origin is not None and is_repo_id(origin),
        dataset_repo_id=dataset,
        training=cards.training_table(training, parameters, None) if training else None,
        rollout=cards.rollout_command(config, repo_id, None, None),
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

"""Policies with random weights, a random batch for each, and their training step.

LeRobot is imported only where a policy is built, so that peak memory before that is of the imports alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lawm_lerobot.method.configuration import WorldModelConfig
from lawm_lerobot.method.latent_action import INVERSE_DYNAMICS, LatentActionConfig

CAMERA = "observation.images.front"
JOINTS = 6  # of an SO-101
TOKENS = 16  # of a short instruction
#: SmolVLM2-500M. Of its 32 text layers there are the 16 that SmolVLA keeps: it would build the others only to drop them.
SMOLVLM_SIZES: dict[str, Any] = {
    "scale_factor": 4,
    "text_config": {
        "model_type": "llama",
        "vocab_size": 49280,
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 16,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "head_dim": 64,
    },
    "vision_config": {
        "image_size": 512,
        "patch_size": 16,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
}


@dataclass(frozen=True)
class Run:
    """A plain LeRobot policy that imitates, and the same policy that pretrains.

    Args:
        policy: The type of the plain policy.
        source: The source of the latents.
        world_model: The type of the world model.
        size: The size of the world model.
        batch: The number of samples of an imitation step, and of clips of a pretraining step.
        turns: The number of timed steps of each.
        bf16: Both train under autocast.
        compiled: Each of the two that has ``compile_model`` trains with it.
        target: An upper limit for the pretraining step's time over the imitation step's.
        pixels: The height and width of the pictures.
        fields: Fields of both configs that differ from LeRobot's defaults.
    """

    policy: str
    source: str = INVERSE_DYNAMICS
    world_model: str = "recurrent"
    size: str = "2m"
    batch: int = 8
    turns: int = 12
    bf16: bool = False
    compiled: bool = False
    target: float | None = None
    pixels: int = 128
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        extras = [f"{name} {value}" for name, value in self.fields.items()]
        extras += [name for name in ("bf16", "compiled") if getattr(self, name)]
        return ", ".join([f"lawm_{self.policy}", self.source, f"{self.world_model} {self.size}", *extras])


def policy_class_of(run: Run, pretraining: bool) -> Any:
    """The wrapped policy's class for pretraining, else the plain one's."""
    from lerobot.policies import ACTConfig, get_policy_class  # noqa: F401  registers LeRobot's own configs

    import lawm_lerobot.policies  # noqa: F401  registers this package's

    return get_policy_class(f"lawm_{run.policy}" if pretraining else run.policy)


def build(run: Run, pretraining: bool, device: str, folder: Path) -> Any:
    """The policy with random weights.

    Args:
        run: The settings of the policy.
        pretraining: The wrapped policy in its pretraining stage, else the plain one.
        device: The device that it is moved to.
        folder: Takes the files that a backbone's config needs on disk.
    """
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.utils.constants import ACTION, OBS_STATE

    settings: dict[str, Any] = {**run.fields, "device": device}
    if run.policy == "smolvla":
        settings |= {"vlm_model_name": str(smolvlm(folder / "smolvlm")), "load_vlm_weights": False}
    else:
        settings["pretrained_backbone_weights"] = None
    latents = LatentActionConfig(source=run.source)
    if pretraining:
        world_model = WorldModelConfig.get_choice_class(run.world_model)(size=run.size)
        settings |= {"latent_action": latents, "world_model": world_model}
    policy_class = policy_class_of(run, pretraining)
    if run.compiled and hasattr(policy_class.config_class, "compile_model"):
        settings["compile_model"] = True
    config = policy_class.config_class(
        input_features={
            OBS_STATE: PolicyFeature(FeatureType.STATE, (JOINTS,)),
            CAMERA: PolicyFeature(FeatureType.VISUAL, (3, run.pixels, run.pixels)),
        },
        output_features={
            ACTION: PolicyFeature(FeatureType.ACTION, (latents.dim if pretraining else JOINTS,))
        },
        **settings,
    )
    return policy_class(config).to(device)


def random_batch(config: Any, run: Run, device: str) -> dict[str, Any]:
    """A batch of random numbers, as LeRobot's loader and preprocessor hand it to a policy of this config."""
    from lerobot.utils.constants import ACTION, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS

    batch: dict[str, Any] = {"task": ["Pick up the cube."] * run.batch}
    seen = config.observation_delta_indices
    leading = (run.batch,) if seen is None else (run.batch, len(seen))
    for key, feature in config.input_features.items():
        batch[key] = torch.rand(*leading, *feature.shape, device=device)
        if seen is not None:
            batch[f"{key}_is_pad"] = torch.zeros(leading, dtype=torch.bool, device=device)
    if config.action_delta_indices is not None:
        chunk = (run.batch, len(config.action_delta_indices))
        batch[ACTION] = torch.randn(*chunk, JOINTS, device=device)
        batch[f"{ACTION}_is_pad"] = torch.zeros(chunk, dtype=torch.bool, device=device)
    if run.policy == "smolvla":
        batch[OBS_LANGUAGE_TOKENS] = torch.randint(0, 1000, (run.batch, TOKENS), device=device)
        batch[OBS_LANGUAGE_ATTENTION_MASK] = torch.ones(run.batch, TOKENS, dtype=torch.bool, device=device)
    return batch


def training_step(policy: Any, batch: dict[str, Any], bf16: bool) -> Callable[[], None]:
    """A function that takes one step as `lerobot-train` does, with the policy's own optimizer."""
    preset = policy.config.get_optimizer_preset()
    optimizer = preset.build(policy.get_optim_params())
    device = next(policy.parameters()).device.type

    def step() -> None:
        policy.train()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss, _ = policy.forward(batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), preset.grad_clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        loss.item(), norm.item()  # for the log

    return step


def smolvlm(folder: Path) -> Path:
    """Write config and processor of `SMOLVLM_SIZES` into ``folder``, without weights; returns ``folder``."""
    if folder.exists():
        return folder
    from tokenizers import Tokenizer, models
    from transformers import (
        PreTrainedTokenizerFast,
        SmolVLMConfig,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
    )
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    named = {
        "image_token": "<image>",
        "fake_image_token": "<fake>",
        "global_image_token": "<global>",
        "end_of_utterance_token": "<end>",
    }
    words = ["<pad>", "<s>", "</s>", *named.values()]
    vocabulary = models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(vocabulary),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=named,
    )
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(),
    ).save_pretrained(folder)
    tokens = {"image_token_id": words.index("<image>"), "pad_token_id": words.index("<pad>")}
    SmolVLMConfig(**tokens, **SMOLVLM_SIZES).save_pretrained(folder)
    return folder

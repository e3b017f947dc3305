"""Every policy type as small as it gets: what the suite over all registered types runs.

A type that is registered as ``lawm_*`` and missing in `TINY` fails that suite, so a new one is covered by existing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import draccus
import pytest
import torch
from helpers.tiny_vlas import make_paligemma, make_pi0_fast, make_smolvlm, make_xvla
from helpers.training import TINY_ACT
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies import get_policy_class
from lerobot.utils.random_utils import seeded_context

from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.policy import LawmPolicy


@dataclass(frozen=True)
class Tiny:
    """The facts that the suite cannot read from the classes of one type.

    Args:
        make: Makes what the type needs (a tokenizer, a text encoder, ...) in an empty directory and returns the
            ``--policy.*`` flags of a tiny network: fields of the wrapped config only, for images of 32 pixels, because
            the plain type gets them too. A size that no flag can change is set by the monkeypatch, which lasts as long
            as the tests of the type.
        chunk: The flags of finetuning that make a chunk of another length than the pretraining's 4 latents.
        language: The policy reads the dataset's ``task``.
        whole_chunks: The policy's loss counts padding, so no chunk of latents may have any.
        cameras: The cameras of the robot that finetuning is for; the pretraining's only one is called ``top``.
        without_gradient: Name patterns of policy parameters that get no gradient by design, and why.
    """

    make: Callable[[Path, pytest.MonkeyPatch], list[str]]
    chunk: tuple[str, ...]
    language: bool = False
    whole_chunks: bool = False
    cameras: tuple[str, ...] = ("front", "wrist")
    without_gradient: Mapping[str, str] = field(default_factory=dict)


def build(config_class: type[LawmConfig], flags: Sequence[str], stage: str, *more: str) -> LawmPolicy:
    """An untrained policy of one camera of 32 pixels, 3 numbers of a state, and 2 of an action or 6 of 4 latents."""
    options = [
        "--device=cpu",
        "--latent_action.horizon=4",
        "--latent_action.dim=6",
        "--world_model.size=test",
        "--world_model.image_size=32",
        "--idm.size=test",
    ]
    given = [flag.replace("--policy.", "--") for flag in flags]
    config = draccus.parse(config_class, args=[*given, *options, *more, f"--stage={stage}"])
    config.input_features = {
        "observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
        "observation.state": PolicyFeature(FeatureType.STATE, (3,)),
    }
    dim = 6 if config.pretraining else 2
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (dim,))}
    with seeded_context(0):
        return get_policy_class(config.type)(config).eval()


def raw_clips() -> dict[str, Any]:
    """Three clips for `build`, as they come from a dataset."""
    with seeded_context(0):
        return {
            "observation.images.top": torch.rand(3, 5, 3, 32, 32),
            "observation.images.top_is_pad": torch.zeros(3, 5, dtype=torch.bool),
            "observation.state": torch.rand(3, 5, 3) - 0.5,
            "task": ["push the square", "leave it", "push"],
        }


def make_act(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return list(TINY_ACT)


def make_diffusion(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return [
        # ResNet's last map has a single pixel for 32 of the image, of which the keypoints are always the same.
        "--policy.resize_shape=[64,64]",
        "--policy.pretrained_backbone_weights=null",
        "--policy.spatial_softmax_num_keypoints=4",
        "--policy.down_dims=[16,32]",
        "--policy.diffusion_step_embed_dim=8",
        "--policy.horizon=16",
        "--policy.n_action_steps=8",
        "--policy.num_train_timesteps=10",
        "--policy.drop_n_last_frames=2",
    ]


def make_vqbet(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return [
        "--policy.crop_shape=null",
        "--policy.use_group_norm=true",
        "--policy.pretrained_backbone_weights=null",
        "--policy.spatial_softmax_num_keypoints=4",
        "--policy.n_vqvae_training_steps=1",
        "--policy.vqvae_embedding_dim=8",
        "--policy.vqvae_enc_hidden_dim=8",
        "--policy.gpt_block_size=40",
        "--policy.gpt_input_dim=16",
        "--policy.gpt_output_dim=16",
        "--policy.gpt_hidden_dim=16",
        "--policy.gpt_n_layer=1",
        "--policy.gpt_n_head=2",
    ]


def make_multi_task_dit(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    clip = make_clip(directory / "tiny_clip")  # LeRobot wants "clip" in the name
    return [
        f"--policy.vision_encoder_name={clip}",
        f"--policy.text_encoder_name={clip}",
        "--policy.image_resize_shape=[16,16]",
        "--policy.image_crop_shape=null",
        "--policy.hidden_dim=32",
        "--policy.num_layers=2",
        "--policy.num_heads=2",
        "--policy.timestep_embed_dim=8",
        "--policy.use_positional_encoding=true",
        "--policy.horizon=12",
        "--policy.n_action_steps=8",
        "--policy.num_train_timesteps=10",
        "--policy.drop_n_last_frames=2",
    ]


def make_clip(directory: Path) -> Path:
    """A CLIP for images of 16 pixels, with a tokenizer of one token a byte."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(directory)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": len(words), "bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
    CLIPModel(
        CLIPConfig(
            text_config={**small, **text, "pad_token_id": len(words) - 1},
            vision_config={**small, "image_size": 16, "patch_size": 8},
            projection_dim=16,
        )
    ).save_pretrained(directory)
    return directory


KEYPOINTS = (
    "ResNet's last map of an image of 32 pixels has a single one, of which the keypoints are always the same"
)
NO_STATE = {"model.state_proj.weight": "multiplies the state, which the video has not"}
_LAST = "model.paligemma_with_expert.paligemma.model.language_model.layers.1"
UNUSED_IN_PI = {
    "*.lm_head.weight": "predicts words",
    "*.paligemma.model.language_model.norm.*": "of words to predict",
    f"{_LAST}.post_attention_layernorm.*": "the expert takes the last layer's keys and values only",
    f"{_LAST}.mlp.*": "likewise",
    f"{_LAST}.self_attn.[qo]_proj.*": "likewise",
}

#: By the name without ``lawm_``.
TINY: dict[str, Tiny] = {
    "act": Tiny(
        make_act,
        chunk=("--policy.chunk_size=7", "--policy.n_action_steps=3"),
        without_gradient={
            "model.decoder.layers.0.self_attn.in_proj_weight": "the decoder starts from zeros, which are all alike",
            "model.encoder_latent_input_proj.weight": "multiplies the VAE's latent, zero without actions to encode",
        },
    ),
    "diffusion": Tiny(make_diffusion, chunk=("--policy.horizon=8", "--policy.n_action_steps=4")),
    "multi_task_dit": Tiny(
        make_multi_task_dit,
        chunk=("--policy.horizon=9", "--policy.n_action_steps=4"),
        language=True,
        without_gradient={
            "*.vision_model.post_layernorm.*": "CLIP's pooled output; the policy takes the class token before it",
        },
    ),
    "vqbet": Tiny(
        make_vqbet,
        whole_chunks=True,
        chunk=("--policy.action_chunk_size=3", "--policy.n_action_pred_token=2"),
        cameras=("front",),
        without_gradient={
            "vqbet.rgb_encoder.backbone.*": KEYPOINTS,
            "vqbet.rgb_encoder.pool.*": KEYPOINTS,
            "vqbet.action_head.vqvae_model.*": "trained before the rest, and frozen then",
        },
    ),
    "smolvla": Tiny(
        lambda directory, monkeypatch: make_smolvlm(directory),
        chunk=("--policy.chunk_size=7", "--policy.n_action_steps=3"),
        language=True,
        without_gradient=NO_STATE,
    ),
    "xvla": Tiny(
        make_xvla,
        chunk=("--policy.chunk_size=7", "--policy.n_action_steps=3"),
        language=True,
        without_gradient={
            "model.transformer.aux_visual_proj.*": "takes the second camera on",
            "*.action_decoder.bias.weight": "of the policy's own latents a constant, which their norm takes away",
        },
    ),
    "pi0": Tiny(
        make_paligemma,
        chunk=("--policy.chunk_size=7", "--policy.n_action_steps=3"),
        language=True,
        without_gradient={**NO_STATE, **UNUSED_IN_PI},
    ),
    "pi0_fast": Tiny(
        make_pi0_fast,
        chunk=("--policy.chunk_size=7", "--policy.n_action_steps=7"),
        language=True,
        without_gradient={"*.lm_head.weight": "writes tokens"},
    ),
    "pi05": Tiny(
        make_paligemma,
        chunk=("--policy.chunk_size=7", "--policy.n_action_steps=3"),
        language=True,
        without_gradient=UNUSED_IN_PI,
    ),
}

"""Vision-language backbones of some hundred thousand parameters with real tokenizers, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

#: Side of the images that the tiny vision towers see, in pixels.
IMAGE_SIZE = 32
PATCH_SIZE = 8


def _byte_level_tokenizer(
    directory: Path, special: dict[str, str], named: dict[str, str] | None = None, further: Sequence[str] = ()
) -> Any:
    """A tokenizer with one token a byte, saved in ``directory``; ``named`` ones get an attribute ``<name>_id``.

    The ``further`` tokens end the vocabulary; no text has them.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*special.values(), *(named or {}).values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words += further
    tokenizer = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, extra_special_tokens=named or {})
    fast.save_pretrained(directory)
    return fast


def make_smolvlm(directory: Path, *, tied: bool = False) -> list[str]:
    """A SmolVLM without weights in ``directory`` (config, processor, tokenizer), and the flags that make SmolVLA use it.

    ``tied``: its output layer shares the embedding's weights.
    """
    from transformers import (
        SmolVLMConfig,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _byte_level_tokenizer(
        directory,
        {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
        {
            "image_token": "<image>",
            "fake_image_token": "<fake>",
            "global_image_token": "<global>",
            "end_of_utterance_token": "<end>",
        },
    )
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(),
    ).save_pretrained(directory)
    SmolVLMConfig(
        image_token_id=tokenizer.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
        tie_word_embeddings=tied,
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "tie_word_embeddings": tied,
        },
        vision_config={
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
    ).save_pretrained(directory)
    return [
        f"--policy.vlm_model_name={directory}",
        "--policy.load_vlm_weights=false",
        "--policy.num_vlm_layers=2",
        f"--policy.resize_imgs_with_padding=[{IMAGE_SIZE},{IMAGE_SIZE}]",
    ]


#: One layer of BART.
BART = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}
#: Action tokens, which end the vocabulary but for those that LeRobot's ``fast_skip_tokens`` leaves out by default.
ACTION_TOKENS, SKIPPED_TOKENS = 512, 128


def make_pi0_fast(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes pi0-FAST tiny as `make_paligemma` does, with a tokenizer of actions as remote code in ``directory``."""
    import shutil

    from helpers import tiny_action_tokenizer
    from lerobot.policies.pi0_fast import modeling_pi0_fast

    actions = directory / "actions"
    actions.mkdir(parents=True)
    shutil.copy(tiny_action_tokenizer.__file__, actions)
    name = tiny_action_tokenizer.TinyActionTokenizer.__name__
    (actions / "processor_config.json").write_text(
        json.dumps({"processor_class": name, "auto_map": {"AutoProcessor": f"tiny_action_tokenizer.{name}"}})
    )
    (actions / "levels.json").write_text(json.dumps(ACTION_TOKENS))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(directory / "modules"))
    further = [f"<loc{i:04}>" for i in range(ACTION_TOKENS)] + [f"<seg{i:03}>" for i in range(SKIPPED_TOKENS)]
    tokenizer = _cached_paligemma(directory, monkeypatch, further)
    # Untrained weights of the usual size would answer the same to everything.
    _shrink_gemma(modeling_pi0_fast, monkeypatch, len(tokenizer) - SKIPPED_TOKENS, initializer_range=0.3)
    return [
        f"--policy.image_resolution=[{IMAGE_SIZE},{IMAGE_SIZE}]",
        f"--policy.action_tokenizer_name={actions}",
        "--policy.tokenizer_max_length=80",
        "--policy.chunk_size=8",
        "--policy.n_action_steps=8",
        "--policy.max_action_tokens=32",
        "--policy.max_decoding_steps=8",
        "--policy.validate_action_token_prefix=false",
    ]


def make_xvla(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A tokenizer in ``directory``, and the flags of an X-VLA with a small Florence-2."""
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = _byte_level_tokenizer(directory, special)
    stages = {"patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1], "depths": [1, 1]}
    vision = {
        **stages,
        "patch_prenorm": [False, True],
        "embed_dim": [16, 32],
        "num_heads": [2, 2],
        "num_groups": [2, 2],
        "window_size": 2,
        "drop_path_rate": 0.0,
        "projection_dim": 32,
    }
    text = {
        "model_type": "bart",
        "vocab_size": len(tokenizer),
        "d_model": 32,
        "max_position_embeddings": 128,
        **{f"encoder_{name}": size for name, size in BART.items()},
        **{f"decoder_{name}": size for name, size in BART.items()},
    }
    florence = json.dumps({"vision_config": vision, "text_config": text})
    return [
        f"--policy.florence_config={florence}",
        f"--policy.tokenizer_name={directory}",
        "--policy.tokenizer_max_length=32",
        f"--policy.resize_imgs_with_padding=[{IMAGE_SIZE},{IMAGE_SIZE}]",
        "--policy.action_mode=auto",
        "--policy.chunk_size=8",
        "--policy.n_action_steps=8",
        "--policy.hidden_size=32",
        "--policy.depth=2",
        "--policy.num_heads=2",
        "--policy.num_domains=1",
        "--policy.len_soft_prompts=2",
        "--policy.max_len_seq=128",
        "--policy.num_denoising_steps=2",
    ]


def make_paligemma(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes pi0 and pi0.5 tiny, whose sizes and tokenizer are fixed in LeRobot's code, while ``monkeypatch`` lasts.

    The tokenizer is found where a download would have put it, in a cache of the Hub at ``directory``. The sizes are
    changed at LeRobot's own tables, and where it hands them to `transformers`, because it writes the vision tower's
    sizes and the vocabulary's in between.
    """
    from lerobot.policies.pi0 import modeling_pi0
    from lerobot.policies.pi05 import modeling_pi05

    tokenizer = _cached_paligemma(directory, monkeypatch)
    for module in (modeling_pi0, modeling_pi05):
        _shrink_gemma(module, monkeypatch, len(tokenizer))
        monkeypatch.setattr(module, "PiGemmaForCausalLM", _shrunk(module.PiGemmaForCausalLM, len(tokenizer)))
    return [f"--policy.image_resolution=[{IMAGE_SIZE},{IMAGE_SIZE}]"]


def _cached_paligemma(directory: Path, monkeypatch: pytest.MonkeyPatch, further: Sequence[str] = ()) -> Any:
    """PaliGemma's tokenizer, one token a byte and some ``further`` ones, where a download would have put it."""
    from transformers import PaliGemmaConfig

    model = directory / "models--google--paligemma-3b-pt-224"
    snapshot = model / "snapshots" / "tiny"
    snapshot.mkdir(parents=True, exist_ok=True)
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs" / "main").write_text("tiny")
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    tokenizer = _byte_level_tokenizer(snapshot, special, further=further)
    PaliGemmaConfig().save_pretrained(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(directory))
    return tokenizer


def _shrink_gemma(module: Any, monkeypatch: pytest.MonkeyPatch, vocab_size: int, **text: float) -> None:
    """Makes PaliGemma tiny in one of LeRobot's modules, with further fields of its language model's config."""
    # Eight heads are written into LeRobot's attention.
    sizes = {"width": 16, "depth": 2, "mlp_dim": 32, "num_heads": 8, "num_kv_heads": 1, "head_dim": 8}
    monkeypatch.setattr(module, "get_gemma_config", lambda variant: module.GemmaConfig(**sizes))
    name = "PaliGemmaForConditionalGenerationWithPiGemma"
    monkeypatch.setattr(module, name, _shrunk(getattr(module, name), vocab_size, **text))


def _shrunk(model_class: type, vocab_size: int, **fields: float) -> Any:
    """``model_class``, but with a small vocabulary and, if it has one, a small vision tower."""

    def build(config: Any) -> Any:
        text = config.get_text_config()
        text.vocab_size = vocab_size
        for name, value in fields.items():
            setattr(text, name, value)
        if text is not config:
            config.image_token_id = config.image_token_index = vocab_size - 1
            config.projection_dim = text.hidden_size
            for name, value in {
                "projection_dim": text.hidden_size,
                "image_size": IMAGE_SIZE,
                "patch_size": PATCH_SIZE,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
            }.items():
                setattr(config.vision_config, name, value)
        return model_class(config)

    return build

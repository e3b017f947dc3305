"""Vision-language backbones of some hundred thousand parameters with real tokenizers, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

#: Side of the images that the tiny vision towers see, in pixels.
IMAGE_SIZE = 32
PATCH_SIZE = 8


def _byte_level_tokenizer(
    directory: Path, special: dict[str, str], named: dict[str, str] | None = None
) -> Any:
    """A tokenizer with one token a byte, saved in ``directory``; ``named`` ones get an attribute ``<name>_id``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*special.values(), *(named or {}).values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
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


def make_paligemma(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes pi0 and pi0.5 tiny, whose sizes and tokenizer are fixed in LeRobot's code, while ``monkeypatch`` lasts.

    The tokenizer is found where a download would have put it, in a cache of the Hub at ``directory``. The sizes are
    changed at LeRobot's own tables, and where it hands them to `transformers`, because it writes the vision tower's
    sizes and the vocabulary's in between.
    """
    from lerobot.policies.pi0 import modeling_pi0
    from lerobot.policies.pi05 import modeling_pi05
    from transformers import PaliGemmaConfig

    model = directory / "models--google--paligemma-3b-pt-224"
    snapshot = model / "snapshots" / "tiny"
    snapshot.mkdir(parents=True, exist_ok=True)
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs" / "main").write_text("tiny")
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    tokenizer = _byte_level_tokenizer(snapshot, special)
    PaliGemmaConfig().save_pretrained(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(directory))

    for module in (modeling_pi0, modeling_pi05):
        # Eight heads are written into LeRobot's attention.
        sizes = {"width": 16, "depth": 2, "mlp_dim": 32, "num_heads": 8, "num_kv_heads": 1, "head_dim": 8}
        tiny = module.GemmaConfig(**sizes)
        monkeypatch.setattr(module, "get_gemma_config", lambda variant, tiny=tiny: tiny)
        monkeypatch.setattr(
            module,
            "PaliGemmaForConditionalGenerationWithPiGemma",
            _shrunk(module.PaliGemmaForConditionalGenerationWithPiGemma, len(tokenizer)),
        )
        monkeypatch.setattr(module, "PiGemmaForCausalLM", _shrunk(module.PiGemmaForCausalLM, len(tokenizer)))
    return [f"--policy.image_resolution=[{IMAGE_SIZE},{IMAGE_SIZE}]"]


def _shrunk(model_class: type, vocab_size: int) -> Any:
    """``model_class``, but with a small vocabulary and, if it has one, a small vision tower."""

    def build(config: Any) -> Any:
        text = config.get_text_config()
        text.vocab_size = vocab_size
        if text is not config:
            config.image_token_id = config.image_token_index = vocab_size - 1
            config.projection_dim = text.hidden_size
            for name, value in {
                "projection_dim": text.hidden_size,
                "patch_size": PATCH_SIZE,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
            }.items():
                setattr(config.vision_config, name, value)
        return model_class(config)

    return build

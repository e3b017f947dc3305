"""A tokenizer of actions in the format of FAST: rounded cosine coefficients, here with one token for each number.

`make_pi0_fast` puts this file beside a config where `transformers` loads it as the remote code of a processor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy.fft import dct
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

#: A letter stands for a coefficient; the letters begin where no control characters are.
FIRST_LETTER = 0x100


class TinyActionTokenizer:
    """Chunks (B,H,A) -> B lists of tokens, of which LeRobot undoes `bpe_tokenizer`, ``min_token`` and ``scale`` itself."""

    def __init__(self, levels: int) -> None:
        self.levels = levels
        self.scale = 10.0
        self.min_token = -(levels // 2) - FIRST_LETTER
        letters = Tokenizer(models.BPE(vocab={chr(FIRST_LETTER + i): i for i in range(levels)}, merges=[]))
        letters.decoder = decoders.Fuse()
        self.bpe_tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoProcessor") -> None:
        """As `transformers` asks for it."""

    @classmethod
    def from_pretrained(cls, directory: str, **kwargs: Any) -> Self:
        return cls(json.loads((Path(directory) / "levels.json").read_text()))

    def __call__(self, chunks: Any) -> list[list[int]]:
        coefficients = np.rint(self.scale * dct(np.asarray(chunks), axis=1, norm="ortho"))
        tokens = np.clip(coefficients.astype(int) + self.levels // 2, 0, self.levels - 1)
        return tokens.reshape(len(tokens), -1).tolist()

"""The uses of a policy's inputs, measured on batches of its training: does it look?

The measure is that of `lawm-inspect`, without its intervals: the mean distance that the predicted chunk moves when a
camera's picture or the state is another sample's, over the one that it moves when everything is.

Letters: B batch, n observations of a policy's history, C h w, S state dimension, A.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lerobot.utils.constants import OBS_IMAGES, OBS_LANGUAGE, OBS_PREFIX
from torch import Tensor

from lawm_lerobot.policies.common.asking import AskedPolicy, Observation, chunk_distance, exchanged
from lawm_lerobot.policies.common.finite_actions import NonFiniteActionError

if TYPE_CHECKING:
    from lawm_lerobot.policies.common.policy import LawmPolicy

#: Use below which an input counts as unused. A squared distance adds up over independent causes, so an input of this
#: use accounts for one hundredth of it.
UNUSED = 0.1
#: What the names of these metrics begin with.
PREFIX = "use_"
_WHOLE = "whole"


class Uses:
    """Adds up over batches how far chunks move, see `looking.py` of the inspection."""

    def __init__(self) -> None:
        self.moved: dict[str, float] = {}

    def add(self, policy: LawmPolicy, batch: dict[str, Any], seed: int) -> None:
        """Measure on a preprocessed batch of finetuning; one sample alone has no other to be exchanged with.

        The partner of a sample is half a batch away. What a policy draws begins from the ``seed``.
        """
        asked = AskedPolicy(policy, dict, policy.estimate_chunk)
        own = _observation(asked, batch)
        size = len(own[asked.cameras[0]]) if asked.cameras else 0
        if size < 2:
            return
        other = {
            key: value.roll(size // 2, 0) if isinstance(value, Tensor) else value
            for key, value in own.items()
        }
        try:
            first = asked.chunk(own, seed)  # (B,H,A)
            for name, keys in _lent(asked, own).items():
                chunk = asked.chunk(exchanged(own, other, keys), seed)
                self.moved[name] = self.moved.get(name, 0.0) + float(chunk_distance(chunk, first).sum())
        except NonFiniteActionError:
            self.moved |= dict.fromkeys(_lent(asked, own), math.nan)

    def metrics(self) -> dict[str, float]:
        """The uses by `PREFIX` and input; 0 where nothing moves the chunk, NaN where one was not finite."""
        moved = dict(self.moved)
        whole = moved.pop(_WHOLE, 0.0)
        return {f"{PREFIX}{name}": value / whole if whole else 0.0 for name, value in moved.items()}


def _observation(asked: AskedPolicy, batch: dict[str, Any]) -> Observation:
    """The policy's inputs with a history: cameras (B,n,C,h,w), numbers (B,n,S), and what stands for the task."""
    taken = {key: value for key, value in batch.items() if key.startswith(OBS_LANGUAGE)}
    for key in asked.features:
        single = batch[key].ndim == (4 if key in asked.cameras else 2)
        taken[key] = batch[key][:, None] if single else batch[key]
    return taken


def _lent(asked: AskedPolicy, own: Observation) -> dict[str, list[str]]:
    """The keys that are exchanged together, by the name of the input."""
    names = {key: key.removeprefix(f"{OBS_IMAGES}.").removeprefix(OBS_PREFIX) for key in asked.cameras}
    lent = {_WHOLE: list(own), **{name: [key] for key, name in names.items()}}
    if len(asked.cameras) > 1:
        lent["pictures"] = asked.cameras
    # A state that the prompt has cannot be exchanged alone.
    if asked.numbers and not getattr(asked.policy.config, "state_in_prompt", False):
        lent["state"] = asked.numbers
    return lent

"""The bar on the screen, through all steps of an import."""

from __future__ import annotations

import collections
from collections.abc import Hashable

from tqdm import tqdm


class Progress:
    """A progress bar that begins anew with each step. Use as a context manager."""

    def __init__(self) -> None:
        self._bar = tqdm(total=0, unit="file", dynamic_ncols=True, desc="Reading headers")
        self._counted: collections.defaultdict[Hashable, float] = collections.defaultdict(float)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, step: str, unit: str, total: int, scaled: bool = False) -> None:
        """Begin a step of `total` units; large numbers are shortened if `scaled`."""
        self._bar.set_description(step, refresh=False)
        self._bar.unit, self._bar.unit_scale = unit, scaled
        self._bar.reset(total=total)
        self._counted.clear()

    def advance(self, amount: float = 1, of: Hashable = None) -> None:
        """Go on by so much, and by so much of one piece of the work if `of` names it."""
        if self._bar.n + amount > self._bar.total:
            self._bar.total = self._bar.n + amount  # what does not say how long it is, is not in the estimate
        self._bar.update(round(amount, 1))
        self._counted[of] += amount

    def complete(self, of: Hashable, amount: float) -> None:
        """Go on by what has not been counted yet of a piece of this size."""
        self.advance(max(0.0, amount - self._counted[of]), of)

    def fill(self) -> None:
        """Show the step as done."""
        if self._bar.total:
            self._bar.n = self._bar.total
            self._bar.refresh()

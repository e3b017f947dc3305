"""Places of a scene's things that differ more from one episode to the next than LIBERO's own.

LIBERO draws each thing's place from a square of 5 cm, the basket's from one of 2 cm. A recorded motion that nobody steers
succeeds there more often than not.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Metres, in the world of LIBERO's floor scenes: what the arm reaches and both cameras see at a spread of 1.
FLOOR = ((-0.22, -0.27), (0.17, 0.08))
BASKET = ((-0.06, 0.22), (0.06, 0.30))
GAP = 0.03  # between two things, so that a finger fits in
TRIALS = 200  # for one thing, before all are drawn again


@dataclass(frozen=True)
class Area:
    """A thing's present place and where it may stand.

    Args:
        place: Its x and y in metres, as LIBERO has drawn them.
        radius: Radius in metres of the circle around it, from above.
        corners: The least and the greatest x and y in metres at a spread of 1.
    """

    place: tuple[float, float]
    radius: float
    corners: tuple[tuple[float, float], tuple[float, float]]

    def rectangle(self, spread: float) -> np.ndarray:
        """(2, 2): the least and the greatest x and y at a spread, from LIBERO's place at 0 to all of `corners` at 1."""
        return (1 - spread) * np.array([self.place]) + spread * np.array(self.corners)


def draw_places(
    random: np.random.Generator, areas: Mapping[str, Area], spread: float
) -> dict[str, tuple[float, float]]:
    """New places, `GAP` apart, each uniform in its area's rectangle as far as the others leave room.

    Args:
        random: The generator to draw from.
        areas: The things by name, in the order in which they are drawn.
        spread: Share, 0 to 1, of the areas' whole size.

    Raises:
        RuntimeError: If the things do not fit.
    """
    for _ in range(TRIALS):
        places = _try_places(random, areas, spread)
        if places is not None:
            return places
    raise RuntimeError(f"{len(areas)} things do not fit beside each other at a spread of {spread}")


def _try_places(
    random: np.random.Generator, areas: Mapping[str, Area], spread: float
) -> dict[str, tuple[float, float]] | None:
    # LIBERO's own places may be closer than GAP. At a small spread what cannot be had is not asked for.
    gap = min(GAP, spread)
    taken: np.ndarray = np.empty((0, 3))  # x, y, radius
    for area in areas.values():
        low, high = area.rectangle(spread)
        trials = random.uniform(low, high, (TRIALS, 2))
        distances = np.linalg.norm(trials[:, None] - taken[:, :2], axis=-1)  # (trials, taken)
        free = np.flatnonzero((distances > taken[:, 2] + area.radius + gap).all(axis=1))
        if not len(free):
            return None
        taken = np.vstack([taken, [*trials[free[0]], area.radius]])
    return {name: (float(x), float(y)) for name, (x, y, _) in zip(areas, taken, strict=True)}

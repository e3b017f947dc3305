"""Where and how far turned a parallel gripper takes a thing, with its neighbours in mind.

Points are (n, 3) in metres, z upward, on the surfaces of the boxes around collision shapes. The gripper comes from above.
"""

from dataclasses import dataclass

import numpy as np

WIDEST = 0.062  # metres between the open fingers, less what a grasp needs to spare
TURNS = sorted(np.radians(range(-90, 91, 15)), key=abs)
SHIFTS = (0.0, 0.01, -0.01, 0.02, -0.02, 0.027, -0.027)  # metres, along the fingers' width
END = 0.012  # metres of a thing's length that stay free of the fingers' middle


@dataclass(frozen=True)
class Grasp:
    """A grasp from above.

    Args:
        offset: The fingers' x and y in metres, relative to the middle of the thing.
        turn: Angle in radians by which the gripper turns from its present yaw, anticlockwise from above.
        height: The fingers' z in metres.
        lift: Metres from the thing's lowest point to the fingers.
        cost: What speaks against it; below 1 nothing is in the way.
    """

    offset: np.ndarray  # (2,)
    turn: float
    height: float
    lift: float
    cost: float


def choose_grasp(thing: np.ndarray, neighbours: np.ndarray, closing: float) -> Grasp:
    """The grasp with the least in its way.

    Tall things are taken 3.5 cm below their top, flat ones as low as the fingers go.

    Args:
        thing: (n, 3) points of the thing.
        neighbours: (m, 3) points of all that stands around it; m may be 0.
        closing: Angle in radians, from above, of the direction in which the fingers close at present.
    """
    low, high = thing.min(axis=0), thing.max(axis=0)
    height = max(high[2] - 0.035, low[2] + min(0.012, (high[2] - low[2]) / 2))
    middle = (low + high)[:2] / 2
    best: Grasp | None = None
    for turn in TURNS:
        across = np.array([np.cos(closing + turn), np.sin(closing + turn)])
        along = np.array([-across[1], across[0]])
        width, length = np.ptp(thing[:, :2] @ across), np.ptp(thing[:, :2] @ along)
        for shift in SHIFTS:
            if shift and abs(shift) > length / 2 - END:
                continue
            offset = shift * along
            relative = neighbours - [*(middle + offset), height]
            cost = 1000 * max(0.0, width - WIDEST) + _in_the_way(relative, across, along)
            cost += abs(turn) / np.pi * 2 + 30 * abs(shift)
            if best is None or cost < best.cost - 1e-9:
                best = Grasp(offset, float(turn), height, height - low[2], cost)
    assert best is not None
    return best


def _in_the_way(points: np.ndarray, across: np.ndarray, along: np.ndarray) -> float:
    """Number of points, (m, 3) relative to the grasp, that the open fingers would hit, and half of those that the palm would."""
    u, v, z = np.abs(points[:, :2] @ across), np.abs(points[:, :2] @ along), points[:, 2]
    # The palm's underside is 3.5 cm above the grip point.
    palm = (u < 0.115) & (v < 0.04) & (z > 0.028)
    fingers = (u < 0.062) & (v < 0.018) & (z > -0.015)
    return float(palm.sum() / 2 + fingers.sum())

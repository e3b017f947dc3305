"""A scripted expert that takes a thing from above and lets it go over its place. It sees exact poses.

Actions are LIBERO's: (7,) in [-1, 1], the displacement of the hand (1 is 5 cm), its turn about the world's axes as a
rotation vector (1 is half a radian), and the gripper, -1 open and 1 closed.
"""

from dataclasses import dataclass

import numpy as np

from lawm_lerobot.envs.libero.grasping import Grasp

GAIN, TURN_GAIN, FASTEST_TURN = 15.0, 2.0, 0.5
OPEN, CLOSED = -1.0, 1.0

# What an episode goes through, with the number of steps after which a phase ends in any case.
PHASES = {"above": 80, "descend": 45, "close": 12, "lift": 50, "carry": 90, "lower": 30, "open": 10**9}
CLEARANCE = 0.10  # metres above the grasp, before the descent
LOWERED = 0.07  # metres from carrying to letting go


@dataclass(frozen=True)
class Poses:
    """What the expert sees: positions in metres in the world.

    Args:
        hand: Position of the point between the fingers.
        rotation: Orientation of the hand.
        thing: The middle of the thing.
        place: Where the thing goes; only x and y count.
    """

    hand: np.ndarray  # (3,)
    rotation: np.ndarray  # (3, 3)
    thing: np.ndarray  # (3,)
    place: np.ndarray  # (3,)


class PickAndPlace:
    """The way of one thing to its place.

    Args:
        grasp: How the thing is taken.
        start: The poses at the beginning of the episode.
        rim: Height in metres which the thing's lowest point clears on its way.
    """

    def __init__(self, grasp: Grasp, start: Poses, rim: float) -> None:
        self.grasp = grasp
        self.goal = turned(upright(start.rotation), grasp.turn)  # (3, 3), of the hand
        self.carrying = rim + grasp.lift  # the hand's height on its way
        self.phase, self.steps = "above", 0

    def act(self, poses: Poses) -> np.ndarray:
        """The next action, (7,) float32."""
        turn = rotation_between(poses.rotation, self.goal)
        way = self._target(poses) - poses.hand
        gripper = OPEN if self.phase in ("above", "descend", "open") else CLOSED
        action = [
            *np.clip(GAIN * way, -1, 1),
            *np.clip(TURN_GAIN * turn, -FASTEST_TURN, FASTEST_TURN),
            gripper,
        ]
        self._advance(way, float(np.linalg.norm(turn)))
        return np.array(action, np.float32)

    def _target(self, poses: Poses) -> np.ndarray:
        """(3,): where the hand should be."""
        hand, grasp = poses.hand, self.grasp
        at = poses.thing[:2] + grasp.offset
        over = hand[:2] + poses.place[:2] - poses.thing[:2]  # brings the thing, not the hand, over its place
        match self.phase:
            case "above":
                return np.array([*at, max(grasp.height + CLEARANCE, 0.16)])
            case "descend":
                return np.array([*at, grasp.height])
            case "close":
                return np.array([*hand[:2], grasp.height])
            case "lift":
                return np.array([*hand[:2], self.carrying])
            case "carry":
                return np.array([*over, self.carrying])
            case "lower":
                return np.array([*over, self.carrying - LOWERED])
        return hand

    def _advance(self, way: np.ndarray, turn: float) -> None:
        """Go on to the next phase once the hand is where this one takes it, or has had its time."""
        self.steps += 1
        across, up = np.linalg.norm(way[:2]), abs(way[2])
        arrived = {
            "above": across < 0.006 and up < 0.04 and turn < 0.08,
            "descend": up < 0.006,
            "lift": up < 0.03,
            "carry": across < 0.015,
            "lower": up < 0.015,
        }
        if arrived.get(self.phase, False) or self.steps > PHASES[self.phase]:
            names = list(PHASES)
            self.phase, self.steps = names[names.index(self.phase) + 1], 0


# ---- rotations ----------------------------------------------------------------------------------------------------


def upright(rotation: np.ndarray) -> np.ndarray:
    """(3, 3): the hand's orientation with the same yaw and fingers that point straight down."""
    x = rotation[:, 0] * [1, 1, 0]
    x = x / np.linalg.norm(x)
    down = np.array([0.0, 0, -1])
    return np.stack([x, np.cross(down, x), down], axis=1)


def turned(rotation: np.ndarray, angle: float) -> np.ndarray:
    """(3, 3): the orientation after a turn about the vertical axis, anticlockwise from above."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ rotation


def rotation_between(start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """(3,): the turn from one orientation to another as a rotation vector in the world, in radians."""
    between = goal @ start.T
    axis = 0.5 * np.array(
        [between[2, 1] - between[1, 2], between[0, 2] - between[2, 0], between[1, 0] - between[0, 1]]
    )
    sine = np.linalg.norm(axis)
    if sine < 1e-8:
        return np.zeros(3)
    return axis / sine * np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1))

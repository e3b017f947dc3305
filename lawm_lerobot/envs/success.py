"""Success as LeRobot's evaluation reads it from an environment, and the refusal of environments that do not report it.

LeRobot 0.6.1 counts every episode of an environment as a success if its infos hold no `is_success`: gymnasium puts a
`final_info` around them at an episode's end, and `rollout` takes its default, a list with False in it, for true.
"""

from collections.abc import Mapping
from typing import Any

from lerobot.envs import EnvConfig, close_envs, make_env

SUCCESS = "is_success"


def require_success_reported(config: EnvConfig) -> None:
    """Play an episode of random actions in each suite's first task, and refuse an environment without success.

    Call it before an evaluation. It takes as long as an episode.

    Raises:
        ValueError: If the end of an episode does not say whether it succeeded; names the environment and the key.
    """
    suites = make_env(config, n_envs=1)
    try:
        for suite, tasks in suites.items():
            env = next(iter(tasks.values()))
            env.action_space.seed(0)
            env.reset(seed=[0])
            info: Mapping[str, Any] = {}
            for _ in range(env.call("_max_episode_steps")[0]):
                _, _, terminated, truncated, info = env.step(env.action_space.sample())
                if terminated.any() or truncated.any():
                    break
            check_success_reported(info, config.type if suite == config.type else f"{config.type} ({suite})")
    finally:
        close_envs(suites)


def check_success_reported(info: Mapping[str, Any], name: str) -> None:
    """Refuse the info of an episode's last step if LeRobot could not read from it whether the episode succeeded.

    Args:
        info: The info that a vector environment returned.
        name: The environment, for the message.

    Raises:
        ValueError: In one sentence with the name and the missing key.
    """
    final = info.get("final_info", info)
    # One dictionary of arrays or, before gymnasium 1.0, a sequence with a dictionary for each copy that finished.
    ends = [final] if isinstance(final, Mapping) else [end for end in final if end is not None]
    if not ends or not all(SUCCESS in end for end in ends):
        where = "final_info" if "final_info" in info else "info"
        raise ValueError(
            f"the environment {name} does not report success: its {where} has no {SUCCESS} at the end of an episode, and "
            f"LeRobot's success rate would mean nothing; evaluate in another --env.type, or let its step() return "
            f"info[{SUCCESS!r}]"
        )

"""`--env.type=lawm_libero`: LIBERO with placements that differ, rendered small and without shadows.

Imported at every `lerobot-train --help`, so nothing here imports LIBERO or MuJoCo.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from draccus.utils import DecodingError
from lerobot.envs import EnvConfig
from lerobot.envs.configs import LiberoEnv

from lawm_lerobot.envs.configuration import check_size
from lawm_lerobot.envs.libero.installation import require_libero

# The suites in which things stand on the floor and nothing else does: their places are free to be drawn.
SPREAD_SUITES = ("libero_object",)
LEROBOTS_SIZE = LiberoEnv.observation_height


def check_spread(spread: float, suites: str, init_states: bool = False, prefix: str = "--env.") -> None:
    """Refuse a spread that does not exist; ValueError names `prefix` and the flag to change."""
    if not 0 <= spread <= 1:
        raise ValueError(f"a spread of {spread} is not between 0 and 1: change {prefix}spread")
    fixed = [suite.strip() for suite in suites.split(",") if suite.strip() not in SPREAD_SUITES]
    if spread and fixed:
        raise ValueError(
            f"the things of {fixed[0]!r} cannot be spread: set {prefix}spread=0, or {prefix}task to one of "
            f"{', '.join(SPREAD_SUITES)}"
        )
    if spread and init_states:
        raise ValueError(
            f"LIBERO's stored starts are not spread: set {prefix}spread=0 or {prefix}init_states=false"
        )


@EnvConfig.register_subclass("lawm_libero")
@dataclass
class LawmLiberoEnvConfig(LiberoEnv):
    """LIBERO for `lerobot-eval` and `lerobot-train`, with fresh placements in each episode.

    All of LeRobot's `libero` is there under the same names: `task` (the suites), `task_ids`, `camera_name`, `obs_type`,
    `control_mode`, `episode_length`, and the observations that policies for it expect. An episode's seed decides its
    placements. A finished sub-environment of a batch costs nothing.

    Args:
        task: One or more suites, comma-separated. Only libero_object can be spread.
        init_states: Begin with the starts that are stored with LIBERO, one after the other; without spread only.
        size: Height and width of an image in pixels, an even number, in place of `observation_height` and
            `observation_width`.
        spread: Share, 0 to 1, of the reachable floor over which the things' places are drawn. At 0 they are drawn as
            LIBERO draws them, from squares of 5 cm.
        shadows: Render shadows and 4x multisampling as LeRobot's environment does, which is slower on a CPU.
        draw: False leaves the pictures black: a policy that is trained and evaluated so has not looked.
    """

    task: str = "libero_object"
    init_states: bool = False
    size: int = 128
    spread: float = 1.0
    shadows: bool = False
    draw: bool = True

    def __post_init__(self) -> None:
        try:
            self._check()
            self.observation_height = self.observation_width = self.size
            super().__post_init__()
        except ValueError as error:
            # LeRobot's commands print this one as a sentence, and a ValueError as a traceback.
            raise DecodingError(("env",), str(error)) from error

    def _check(self) -> None:
        check_size(self.size)
        check_spread(self.spread, self.task, self.init_states)
        given = {self.observation_height, self.observation_width} - {LEROBOTS_SIZE, self.size}
        if given:
            raise ValueError(f"pictures of lawm_libero are square: set --env.size={given.pop()} instead")

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        lerobots = ("camera_name", "camera_name_mapping", "init_states", "episode_length", "control_mode")
        ours = ("spread", "shadows", "draw")
        return super().gym_kwargs | {name: getattr(self, name) for name in (*ours, *lerobots)}

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, gym.vector.VectorEnv]]:
        """`{suite: {task_id: VectorEnv}}`; ImportError says what to do when LIBERO is not installed or set up."""
        require_libero()
        from lawm_lerobot.envs.libero.environment import create_libero_envs

        return create_libero_envs(self.task, n_envs, self.gym_kwargs, use_async_envs)

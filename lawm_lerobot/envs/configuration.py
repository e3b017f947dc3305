"""The part of their configuration that this package's environments share: small pictures, cheap on a CPU.

Imported at every `lerobot-train --help`, so nothing here imports a simulator.
"""

import importlib.util
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from draccus.utils import DecodingError
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import EnvConfig
from lerobot.envs.utils import parse_camera_names
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE


def check_size(size: int, flag: str = "--env.size") -> None:
    """Refuse image sizes that cannot become a video (yuv420p needs even sides)."""
    if size < 16 or size % 2:
        raise ValueError(f"image size {size} is not an even number of at least 16 pixels: change {flag}")


def parse_cameras(camera: str, known: Sequence[str], simulator: str, flag: str = "--env.camera") -> list[str]:
    """Camera names of a comma-separated list; ValueError names `flag` and the `known` ones."""
    unknown = [name for name in camera.split(",") if name.strip() not in known]
    if unknown:
        raise ValueError(
            f"unknown {simulator} camera {unknown[0].strip()!r}: set {flag} to one or more, comma-separated, of "
            f"{', '.join(known)}"
        )
    return parse_camera_names(camera)


def require_installed(simulator: str, modules: Sequence[str], extra: str) -> None:
    """Raise ImportError with the command that installs the simulator, if one of its modules is missing."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"{simulator} needs {' and '.join(missing)}, which is not installed: "
            f'pip install "lerobot_policy_lawm[{extra}]"'
        )


@dataclass
class PicturesEnvConfig(EnvConfig):
    """An environment whose observations are square pictures and, unless left out, the robot's state.

    Args:
        size: Height and width of an image in pixels, an even number.
        camera: One or more cameras, comma-separated; the first is the one in evaluation videos.
        episode_length: Number of steps after which an episode has failed.
        obs_type: `pixels_agent_pos`, or `pixels` for images without the state.
        shadows: Render shadows, reflections and multisampling; several times slower on a CPU.
        draw: False leaves the pictures black: a policy that is trained and evaluated so has not looked.
        features: The observations and the action, filled in from the fields above.
        features_map: The names of ``features`` for policies, filled in too.
    """

    ACTION_DIM: ClassVar[int]
    STATE_DIM: ClassVar[int]

    size: int = 128
    camera: str = ""
    episode_length: int = 500
    obs_type: str = "pixels_agent_pos"
    shadows: bool = False
    draw: bool = True
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self._check()
        except ValueError as error:
            # LeRobot's commands print this one as a sentence. A ValueError would reach the user as a traceback that
            # ends in "Couldn't instantiate class".
            raise DecodingError(("env",), str(error)) from error
        # Left of the map: the names in the environment's observation, under which `--eval.recording` looks them up.
        self.features = {ACTION: PolicyFeature(FeatureType.ACTION, (self.ACTION_DIM,))}
        self.features_map = {ACTION: ACTION}
        if self.obs_type == "pixels_agent_pos":
            self.features["agent_pos"] = PolicyFeature(FeatureType.STATE, (self.STATE_DIM,))
            self.features_map["agent_pos"] = OBS_STATE
        for camera in self.cameras:
            key = f"{OBS_IMAGES}.{camera}"
            self.features[key] = PolicyFeature(FeatureType.VISUAL, (self.size, self.size, 3))
            self.features_map[key] = key

    @property
    @abstractmethod
    def cameras(self) -> list[str]:
        """The names in `camera`; ValueError for an unknown one."""

    def _check(self) -> None:
        """ValueError, with the flag to change, for what cannot be made."""
        _ = self.cameras
        check_size(self.size)
        if self.obs_type not in ("pixels_agent_pos", "pixels"):
            raise ValueError(
                f"unknown observation type {self.obs_type!r}: set --env.obs_type to pixels_agent_pos or pixels"
            )
        if self.episode_length < 1:
            raise ValueError(
                f"an episode of {self.episode_length} steps is empty: raise --env.episode_length"
            )

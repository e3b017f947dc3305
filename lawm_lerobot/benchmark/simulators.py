"""The simulators that a benchmark's tasks can be of.

They are imported late: each brings LeRobot, which ``--help`` does not wait for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from lawm_lerobot.benchmark.configuration import BenchmarkConfig
    from lawm_lerobot.envs.recording import ExpertRecording

#: Fields of the configuration that only some simulators have, with the values at which they change nothing.
OPTIONAL: dict[str, Any] = {
    "variation": 0.0,
    "camera_zoom": 1.0,
    "corpus.camera_shift": 0.0,
    "corpus.distractors": 0,
    "corpus.body": "sawyer",
}


class Simulator(ABC):
    """A simulator as a benchmark records and evaluates in it."""

    title: ClassVar[str]
    env: ClassVar[str]  # --env.type
    module: ClassVar[str]  # of the environment, which is slow to import
    fps: ClassVar[int]
    cameras: ClassVar[str]  # unless the configuration names others
    options: ClassVar[frozenset[str]] = frozenset()  # of `OPTIONAL`
    pretraining: ClassVar[tuple[str, ...]] = ()  # flags, unless a protocol says otherwise

    @abstractmethod
    def task_names(self) -> Sequence[str]:
        """The names of its tasks."""

    @abstractmethod
    def check(self, cfg: BenchmarkConfig) -> None:
        """Refuse pictures and scenes that it does not have; ValueError names the flag to change."""

    @abstractmethod
    def recording(self, part: dict[str, Any]) -> ExpertRecording:
        """The recording with the fields of a part, see `CellRecordings`."""

    def scene(self, cfg: BenchmarkConfig) -> dict[str, Any]:
        """What recordings and evaluations share beside size and cameras, by the names that both use."""
        return {}

    def pictures(self, cfg: BenchmarkConfig) -> dict[str, Any]:
        """The fields of every recording's pictures."""
        cameras = [camera.strip() for camera in cfg.camera.split(",")]
        return {"size": cfg.size, "cameras": cameras, **self.scene(cfg)}

    def flags(self, cfg: BenchmarkConfig, task: str) -> list[str]:
        """Flags of `lerobot-eval` for a task, with the pictures of `pictures`."""
        scene = [f"--env.{name}={value}" for name, value in self.scene(cfg).items()]
        return [f"--env.task={task}", f"--env.size={cfg.size}", f"--env.camera={cfg.camera}", *scene]


class MetaWorld(Simulator):
    title = "Meta-World"
    env = "lawm_metaworld"
    module = "lawm_lerobot.envs.metaworld.environment"
    fps = 80
    cameras = "corner2"
    options = frozenset(OPTIONAL)
    pretraining = ("--policy.latent_action.stride=4",)  # 0.05 s: its tasks are over after one second

    def task_names(self) -> Sequence[str]:
        from lawm_lerobot.envs.metaworld.configuration import task_names

        return task_names()

    def check(self, cfg: BenchmarkConfig) -> None:
        from lawm_lerobot.envs.metaworld.configuration import check_variation, parse_cameras

        cameras = parse_cameras(cfg.camera, flag="--camera")
        scene = {"variation": cfg.variation, "camera_zoom": cfg.camera_zoom}
        check_variation(0.0, 0, "sawyer", cameras, "--", **scene)
        corpus = cfg.corpus
        check_variation(corpus.camera_shift, corpus.distractors, corpus.body, cameras, "--corpus.", **scene)

    def recording(self, part: dict[str, Any]) -> ExpertRecording:
        from lawm_lerobot.envs.metaworld.recording import MetaworldRecording

        return MetaworldRecording(**part)

    def scene(self, cfg: BenchmarkConfig) -> dict[str, Any]:
        scene = {"variation": cfg.variation, "camera_zoom": cfg.camera_zoom}
        return {name: value for name, value in scene.items() if value != OPTIONAL[name]}


class Libero(Simulator):
    """LIBERO, whose tasks are named ``libero_object/0``; ``variation`` is the spread of its things."""

    title = "LIBERO"
    env = "lawm_libero"
    module = "lawm_lerobot.envs.libero.environment"
    fps = 20
    cameras = "agentview_image,robot0_eye_in_hand_image"
    options = frozenset({"variation"})
    tasks = 10  # in libero_object

    def task_names(self) -> Sequence[str]:
        from lawm_lerobot.envs.libero.configuration import SPREAD_SUITES

        return [f"{suite}/{number}" for suite in SPREAD_SUITES for number in range(self.tasks)]

    def check(self, cfg: BenchmarkConfig) -> None:
        if cfg.camera != self.cameras:
            raise ValueError(
                f"camera is {cfg.camera!r}, but LIBERO is seen by both its cameras: drop --camera"
            )
        if not 0 <= cfg.variation <= 1:
            raise ValueError(f"a variation of {cfg.variation} is not between 0 and 1: change --variation")

    def recording(self, part: dict[str, Any]) -> ExpertRecording:
        from lawm_lerobot.envs.libero.recording import LiberoRecording

        return LiberoRecording(**part)

    def scene(self, cfg: BenchmarkConfig) -> dict[str, Any]:
        return {"spread": cfg.variation}

    def pictures(self, cfg: BenchmarkConfig) -> dict[str, Any]:
        return {"size": cfg.size, **self.scene(cfg)}

    def flags(self, cfg: BenchmarkConfig, task: str) -> list[str]:
        suite, _, number = task.partition("/")
        return [
            f"--env.task={suite}",
            f"--env.task_ids=[{number}]",
            f"--env.size={cfg.size}",
            f"--env.spread={cfg.variation}",
        ]


class So101(Simulator):
    """The simulated SO-101, whose cube and disc lie elsewhere in every episode."""

    title = "SO-101"
    env = "lawm_so101"
    module = "lawm_lerobot.envs.so101.environment"
    fps = 10
    cameras = "front,wrist"

    def task_names(self) -> Sequence[str]:
        from lawm_lerobot.envs.so101.configuration import TASK

        return [TASK]

    def check(self, cfg: BenchmarkConfig) -> None:
        from lawm_lerobot.envs.so101.configuration import parse_cameras

        parse_cameras(cfg.camera, flag="--camera")

    def recording(self, part: dict[str, Any]) -> ExpertRecording:
        from lawm_lerobot.envs.so101.recording import So101Recording

        return So101Recording(**part)


SIMULATORS: dict[str, Simulator] = {"metaworld": MetaWorld(), "libero": Libero(), "so101": So101()}

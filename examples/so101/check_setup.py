"""Does this arm stand as the one that the policy learned on? Compares the two and moves nothing.

    python examples/so101/check_setup.py --config_path=examples/so101/rollout.yaml

Takes `lerobot-rollout`'s own flags, reads joints and cameras without torque, writes nothing to the servos, and leaves
a picture of what each camera saw in the demonstrations beside what it sees now. Exit code 1 if anything differs.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from lerobot.cameras.opencv import OpenCVCameraConfig  # noqa: F401  registers the type, as the next ones do
from lerobot.cameras.realsense import RealSenseCameraConfig  # noqa: F401
from lerobot.cameras.zmq import ZMQCameraConfig  # noqa: F401
from lerobot.configs import parser
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.motors import MotorNormMode
from lerobot.robots import Robot, make_robot_from_config, so_follower  # noqa: F401
from lerobot.rollout import RolloutConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from lerobot.utils.import_utils import register_third_party_plugins

from lawm_lerobot.policies.common.configuration import LawmConfig
from lawm_lerobot.policies.common.loading import PretrainingCheckpointError


@dataclass
class Demonstrations:
    repo_id: str | None = None
    root: Path | None = None


@dataclass
class CheckConfig(RolloutConfig):
    """`lerobot-rollout`'s flags, and:

    Args:
        demonstrations: What the policy was finetuned on. The checkpoint's own train_config.json says, if it has one; an
            exported checkpoint does not.
        tolerance: How far outside the demonstrations' range a joint may stand, in its own unit.
        picture: Where the cameras' pictures go.
    """

    demonstrations: Demonstrations = field(default_factory=Demonstrations)
    tolerance: float = 15.0
    picture: Path = Path("check_setup.png")


def find_demonstrations(cfg: CheckConfig) -> LeRobotDatasetMetadata:
    chosen = cfg.demonstrations
    if chosen.repo_id is None:
        remembered = Path(str(cfg.policy.pretrained_path)) / "train_config.json"
        if not remembered.is_file():
            raise ValueError(
                f"{cfg.policy.pretrained_path} does not say which demonstrations it was finetuned on: pass "
                "--demonstrations.repo_id=<user>/<name> (and --demonstrations.root=<folder>)."
            )
        dataset = json.loads(remembered.read_text())["dataset"]
        chosen = Demonstrations(dataset["repo_id"], dataset["root"])
    return LeRobotDatasetMetadata(chosen.repo_id, root=chosen.root)


def described(cfg: CheckConfig, meta: LeRobotDatasetMetadata, robot: Robot) -> Iterator[str]:
    """What can be told without the arm: names, order, shapes and rates."""
    for key, features in ((ACTION, robot.action_features), (OBS_STATE, robot.observation_features)):
        here = [name for name, kind in features.items() if kind is float]
        there = list(meta.features[key]["names"])
        if here != there:
            how = "in another order" if sorted(here) == sorted(there) else "named differently"
            yield (
                f"{key}: the robot's joints are {how} ({', '.join(here)}) than the demonstrations' "
                f"({', '.join(there)}): each would get another joint's goal."
            )
    renamed = {
        cfg.rename_map.get(f"{OBS_IMAGES}.{name}", f"{OBS_IMAGES}.{name}"): tuple(shape)
        for name, shape in robot.observation_features.items()
        if isinstance(shape, tuple)
    }
    for key, feature in cfg.policy.image_features.items():
        channels, height, width = feature.shape
        if key not in renamed:
            yield (
                f"{key}: the robot has no such camera ({', '.join(renamed) or 'it has none'}): name it so in "
                "--robot.cameras, or map it by --rename_map."
            )
        elif renamed[key] != (height, width, channels):
            yield (
                f"{key}: the robot's pictures are {renamed[key]}, the policy's {(height, width, channels)}: "
                "change width and height in --robot.cameras."
            )
    if cfg.fps != meta.fps:
        yield f"The demonstrations have {meta.fps} frames per second, --fps is {cfg.fps:g}."
    if meta.robot_type not in (None, robot.name):
        yield f"The demonstrations come from a {meta.robot_type!r}, this is a {robot.name!r}."


def measured(cfg: CheckConfig, meta: LeRobotDatasetMetadata, robot: Robot) -> Iterator[str]:
    """What the joints tell, read without torque."""
    low, high = meta.stats[OBS_STATE]["min"], meta.stats[OBS_STATE]["max"]
    robot.bus.connect()
    try:
        if not robot.is_calibrated:
            yield "The servos do not hold the calibration of --robot.id: run lerobot-calibrate."
            return
        present = robot.bus.sync_read("Present_Position")
    finally:
        robot.bus.disconnect(disable_torque=False)
    for index, name in enumerate(meta.features[OBS_STATE]["names"]):
        joint = name.removesuffix(".pos")
        if joint not in present:
            continue
        limit = reach(robot, joint)
        if limit is not None and max(abs(low[index]), abs(high[index])) > limit + 3:
            yield (
                f"{joint}: the demonstrations reach from {low[index]:.0f} to {high[index]:.0f}, this arm "
                f"{limit:.0f} either way: the unit (--robot.use_degrees) or the calibration differs."
            )
        elif not low[index] - cfg.tolerance <= present[joint] <= high[index] + cfg.tolerance:
            yield (
                f"{joint} stands at {present[joint]:.0f}, in the demonstrations it was between {low[index]:.0f} and "
                f"{high[index]:.0f}: move it there by hand; if it looks as it did, the calibration differs."
            )


def reach(robot: Robot, joint: str) -> float | None:
    """How far the joint turns either way, in the unit that the robot is set to; None for the gripper."""
    mode, calibration = robot.bus.motors[joint].norm_mode, robot.bus.calibration[joint]
    if mode is MotorNormMode.DEGREES:
        return (calibration.range_max - calibration.range_min) / 2 * 360 / 4095
    return 100.0 if mode is MotorNormMode.RANGE_M100_100 else None


def seen(cfg: CheckConfig, meta: LeRobotDatasetMetadata, robot: Robot) -> Iterator[str]:
    """Each camera's first picture in the demonstrations beside its picture now."""
    first = LeRobotDataset(meta.repo_id, root=meta.root, episodes=[0])[0]
    before, now = {}, {}
    for name, camera in robot.cameras.items():
        key = cfg.rename_map.get(f"{OBS_IMAGES}.{name}", f"{OBS_IMAGES}.{name}")
        if key not in first:
            continue
        camera.connect()
        try:
            now[key] = camera.async_read(timeout_ms=1000)
        finally:
            camera.disconnect()
        before[key] = (first[key].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    if not now:
        return
    rows = [np.hstack([before[key], fit(now[key], before[key])]) for key in now]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows]
    cv2.imwrite(str(cfg.picture), cv2.cvtColor(np.vstack(padded), cv2.COLOR_RGB2BGR))
    for key in now:
        alike = {other: likeness(now[key], before[other]) for other in before}
        best = max(alike, key=alike.__getitem__)
        if best != key:
            yield f"{key} sees what {best} saw in the demonstrations: are the cameras swapped? See {cfg.picture}."


def fit(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (like.shape[1], like.shape[0]))


def likeness(image: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two pictures' coarse brightness."""
    small = [cv2.resize(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), (32, 24)).ravel() for i in (image, other)]
    return float(np.nan_to_num(np.corrcoef(*small)[0, 1]))


@parser.wrap()
def check(cfg: CheckConfig) -> list[str]:
    if isinstance(cfg.policy, LawmConfig) and cfg.policy.pretraining:
        raise PretrainingCheckpointError(str(cfg.policy.pretrained_path))
    meta = find_demonstrations(cfg)
    robot = make_robot_from_config(cfg.robot)
    problems = list(described(cfg, meta, robot))
    if hasattr(robot, "bus"):
        problems += measured(cfg, meta, robot)
    problems += seen(cfg, meta, robot)
    for problem in problems:
        print(f"- {problem}")
    if getattr(cfg.robot, "max_relative_target", 0) is None:
        print("Advice: --robot.max_relative_target=10 keeps every goal near to where the joint is.")
    print(f"Nothing was moved. The cameras, then and now: {cfg.picture}")
    return problems


def main() -> None:
    register_third_party_plugins()
    try:
        problems = check()
    except (ValueError, OSError) as error:
        sys.exit(f"check_setup: {error}")
    if problems:
        sys.exit(
            f"check_setup: {len(problems)} differences, see above: put them right before lerobot-rollout."
        )


if __name__ == "__main__":
    main()

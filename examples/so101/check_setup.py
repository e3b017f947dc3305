"""Does this arm stand as the one that the policy learned on? Compares the two and moves nothing.

    python examples/so101/check_setup.py --config_path=examples/so101/rollout.yaml

Takes `lerobot-rollout`'s own flags, reads joints and cameras without torque, writes nothing to the servos, and leaves
a picture of what each camera saw in the demonstrations beside what it sees now. Exit code 1 if anything differs; what
it cannot tell it says, too.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from lerobot.cameras import Camera
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

# Pictures that are taken of each camera: the first ones, while it finds its exposure, and those that count.
DISCARDED, LIVE = 4, 5
INTERVAL, PATIENCE = 0.2, 10.0  # seconds between two pictures, and until a missing one is an error
# Episodes, and frames of them, that the live pictures are compared with: the arm may stand anywhere on their way.
EPISODES, FRAMES = 4, 16
TOLERANCE_S = 1e-4  # LeRobot's own default
# Lead in likeness below which two views are not told apart.
MARGIN = 0.1


class CannotTell(str):
    """A sentence on something that could not be compared. It counts as no difference."""


@dataclass
class Demonstrations:
    """The dataset that the policy was finetuned on.

    Args:
        repo_id: Its name.
        root: Its folder; LeRobot's own place by default.
        tolerance_s: Seconds by which a picture's time may differ from its frame's, as in the finetuning by default.
    """

    repo_id: str | None = None
    root: Path | None = None
    tolerance_s: float | None = None


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
        trained = json.loads(remembered.read_text())
        chosen.repo_id, chosen.root = trained["dataset"]["repo_id"], trained["dataset"]["root"]
        chosen.tolerance_s = chosen.tolerance_s or trained.get("tolerance_s")
    return LeRobotDatasetMetadata(chosen.repo_id, root=chosen.root)


def described(cfg: CheckConfig, meta: LeRobotDatasetMetadata, robot: Robot) -> Iterator[str]:
    """What can be told without the arm: names, order, shapes and rates."""
    for key, features in ((ACTION, robot.action_features), (OBS_STATE, robot.observation_features)):
        if key not in meta.features:
            continue
        here, there, count = joint_names(features), recorded_names(meta, key), meta.features[key]["shape"][0]
        if len(here) != count:
            yield f"{key}: the robot has {len(here)} joints, the demonstrations have {count}."
        elif there is None:
            yield CannotTell(
                f"{key}: the demonstrations do not name their joints, so see for yourself that their order is "
                f"{', '.join(here)}."
            )
        elif here != there:
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


def joint_names(features: dict[str, Any]) -> list[str]:
    """The joints among a robot's features, in the robot's order."""
    return [name for name, kind in features.items() if kind is float]


def recorded_names(meta: LeRobotDatasetMetadata, key: str) -> list[str] | None:
    """The joints of a dataset in its order, from a list, from groups of lists or from numbers by name; None without."""
    names = meta.features[key].get("names")
    if isinstance(names, dict) and all(isinstance(value, int) for value in names.values()):
        return sorted(names, key=names.__getitem__)
    if isinstance(names, dict):
        return [name for group in names.values() for name in group]
    return None if names is None else list(names)


def measured(cfg: CheckConfig, meta: LeRobotDatasetMetadata, robot: Robot) -> Iterator[str]:
    """What the joints tell, read without torque."""
    if OBS_STATE not in meta.features:
        yield CannotTell("The demonstrations have no state to compare the joints with.")
        return
    low, high = meta.stats[OBS_STATE]["min"], meta.stats[OBS_STATE]["max"]
    # Without names of its own the dataset has the robot's, in the robot's order.
    names = recorded_names(meta, OBS_STATE) or joint_names(robot.observation_features)[: len(low)]
    robot.bus.connect()
    try:
        if not robot.is_calibrated:
            yield "The servos do not hold the calibration of --robot.id: run lerobot-calibrate."
            return
        present = robot.bus.sync_read("Present_Position")
    finally:
        robot.bus.disconnect(disable_torque=False)
    for index, name in enumerate(names):
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
    """Each camera's pictures now beside those of the demonstrations."""
    cameras = {
        cfg.rename_map.get(f"{OBS_IMAGES}.{n}", f"{OBS_IMAGES}.{n}"): c for n, c in robot.cameras.items()
    }
    cameras = {key: camera for key, camera in cameras.items() if key in meta.features}
    if not cameras:
        return
    before = remembered(meta, list(cameras), cfg.demonstrations.tolerance_s or TOLERANCE_S)
    now = {key: live(camera) for key, camera in cameras.items()}
    # The likeness of each camera's pictures now to the nearest picture of every camera then.
    alike = {
        key: {
            other: np.array([max(likeness(image, old) for old in before[other]) for image in now[key]])
            for other in cameras
        }
        for key in cameras
    }  # {now: {then: (LIVE,)}}
    rows = [np.hstack([nearest(before[key], now[key][-1]), fit(now[key][-1], before[key][0])]) for key in now]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows]
    cv2.imwrite(str(cfg.picture), cv2.cvtColor(np.vstack(padded), cv2.COLOR_RGB2BGR))
    for key, scores in alike.items():
        # The median over the pictures: a single one may be dark, torn or hidden by a hand.
        leads = {other: np.median(scores[key] - scores[other]) for other in cameras if other != key}
        if not leads:
            continue
        other = min(leads, key=leads.__getitem__)
        if leads[other] < -MARGIN:
            yield f"{key} sees what {other} saw in the demonstrations: are the cameras swapped? See {cfg.picture}."
        elif leads[other] < MARGIN:
            yield CannotTell(
                f"{key} looks as much like {other} in the demonstrations as like itself: see in {cfg.picture} that the "
                "cameras are not swapped."
            )


def remembered(
    meta: LeRobotDatasetMetadata, keys: list[str], tolerance_s: float
) -> dict[str, list[np.ndarray]]:
    """Pictures (h,w,3) of each camera, spread over some of the demonstrations from the first frame to the last."""
    episodes = np.unique(np.linspace(0, meta.total_episodes - 1, EPISODES).round().astype(int)).tolist()
    dataset = LeRobotDataset(meta.repo_id, root=meta.root, episodes=episodes, tolerance_s=tolerance_s)
    frames = [dataset[int(index)] for index in np.linspace(0, len(dataset) - 1, FRAMES).round()]
    return {key: [(f[key].permute(1, 2, 0).numpy() * 255).astype(np.uint8) for f in frames] for key in keys}


def live(camera: Camera) -> list[np.ndarray]:
    """Pictures (h,w,3) of a camera, over about a second."""
    camera.connect(warmup=False)  # The camera's own warm-up fails on a computer that is busy.
    try:
        frames = []
        for _ in range(DISCARDED + LIVE):
            frames.append(camera.async_read(timeout_ms=PATIENCE * 1000))
            time.sleep(INTERVAL)
    finally:
        camera.disconnect()
    return frames[DISCARDED:]


def nearest(images: list[np.ndarray], like: np.ndarray) -> np.ndarray:
    return max(images, key=lambda image: likeness(image, like))


def fit(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (like.shape[1], like.shape[0]))


def likeness(image: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two pictures' coarse brightness; 0 for one that is blank."""
    small = [cv2.resize(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), (32, 24)).ravel() for i in (image, other)]
    return 0.0 if any(np.ptp(part) == 0 for part in small) else float(np.corrcoef(*small)[0, 1])


@parser.wrap()
def check(cfg: CheckConfig) -> list[str]:
    if isinstance(cfg.policy, LawmConfig) and cfg.policy.pretraining:
        raise PretrainingCheckpointError(str(cfg.policy.pretrained_path))
    meta = find_demonstrations(cfg)
    robot = make_robot_from_config(cfg.robot)
    found = list(described(cfg, meta, robot))
    if hasattr(robot, "bus"):
        found += measured(cfg, meta, robot)
    found += seen(cfg, meta, robot)
    problems = [sentence for sentence in found if not isinstance(sentence, CannotTell)]
    for sentence in found:
        print(f"Cannot tell: {sentence}" if isinstance(sentence, CannotTell) else f"- {sentence}")
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

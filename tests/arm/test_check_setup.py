"""The comparisons of examples/so101/check_setup.py, with cameras and datasets as people have them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.datasets_on_the_spot import delay_pictures, make_dataset
from helpers.so101 import command
from helpers.so101_emulator import HEIGHT, JOINTS, WIDTH, Arm
from lerobot.datasets import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.motors import MotorNormMode

CAMERAS = ("front", "wrist")
KEYS = [f"observation.images.{name}" for name in CAMERAS]
NAMES = [f"{joint}.pos" for joint in JOINTS]
BEGIN, END = (0.1, 0.8, 0.2, 0.9, 0.3, 0.1), (0.9, 0.3, 0.8, 0.3, 0.7, 0.9)  # of each joint's range
BLACK = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module")
def check() -> ModuleType:
    return __import__(command(["python", "examples/so101/check_setup.py"]).__module__)


def pictures(pose: Sequence[float]) -> dict[str, np.ndarray]:
    arm = Arm(speed=0, hand=False, log=io.StringIO())
    for servo, share in zip(arm.servos.values(), pose, strict=True):
        servo.position = servo.low + share * (servo.high - servo.low)
    return arm.pictures()


def write_demonstrations(root: Path, *, wrist: str = "wrist") -> LeRobotDatasetMetadata:
    """One episode from `BEGIN` to `END`; ``wrist`` is the picture that the wrist's camera takes."""
    image = {"dtype": "image", "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
    state = {"dtype": "float32", "shape": (6,), "names": NAMES}
    features = {**dict.fromkeys(KEYS, image), "observation.state": state}
    dataset = LeRobotDataset.create("test/arm", 30, features, root=root, use_videos=False)
    for share in np.linspace(0, 1, 20):
        seen = pictures((1 - share) * np.array(BEGIN) + share * np.array(END))
        frame = dict(zip(KEYS, (seen["front"], seen[wrist]), strict=True))
        dataset.add_frame({**frame, "observation.state": np.zeros(6, np.float32), "task": "wave"})
    dataset.save_episode()
    dataset.finalize()
    return LeRobotDatasetMetadata("test/arm", root=root)


class Camera:
    """Takes these pictures one after the other, and the last one over and over."""

    def __init__(self, *taken: np.ndarray) -> None:
        self.taken = list(taken)

    def connect(self, warmup: bool = True) -> None: ...

    def disconnect(self) -> None: ...

    def async_read(self, timeout_ms: float = 200) -> np.ndarray:
        return self.taken.pop(0) if len(self.taken) > 1 else self.taken[0]


def found(check: ModuleType, meta: Any, tmp_path: Path, **cameras: Camera) -> tuple[list[str], list[str]]:
    """The differences, and what cannot be told."""
    demonstrations = check.Demonstrations()
    config = SimpleNamespace(
        rename_map={}, picture=tmp_path / "check_setup.png", demonstrations=demonstrations
    )
    sentences = list(check.seen(config, meta, SimpleNamespace(cameras=cameras)))
    return [s for s in sentences if type(s) is str], [s for s in sentences if type(s) is not str]


# --- cameras --------------------------------------------------------------------------------------------------


def test_an_arm_may_stand_anywhere_on_the_demonstrations_way(check: ModuleType, tmp_path: Path) -> None:
    meta = write_demonstrations(tmp_path / "arm")
    for share in (0.0, 0.5, 1.0):
        now = pictures((1 - share) * np.array(BEGIN) + share * np.array(END))
        cameras = {name: Camera(now[name]) for name in CAMERAS}
        assert found(check, meta, tmp_path, **cameras) == ([], []), share


def test_first_pictures_that_are_dark_are_no_swap(check: ModuleType, tmp_path: Path) -> None:
    meta, now = write_demonstrations(tmp_path / "arm"), pictures(BEGIN)
    cameras = {name: Camera(BLACK, BLACK, BLACK, now[name]) for name in CAMERAS}
    assert found(check, meta, tmp_path, **cameras) == ([], [])


@pytest.mark.parametrize("dark", [0, 3])
def test_swapped_cameras_are_found(check: ModuleType, tmp_path: Path, dark: int) -> None:
    meta, now = write_demonstrations(tmp_path / "arm"), pictures(END)
    swapped = {"front": now["wrist"], "wrist": now["front"]}
    cameras = {name: Camera(*[BLACK] * dark, image) for name, image in swapped.items()}
    differences, unclear = found(check, meta, tmp_path, **cameras)
    assert [line.split(" saw in")[0] for line in differences] == [
        "observation.images.front sees what observation.images.wrist",
        "observation.images.wrist sees what observation.images.front",
    ]
    assert not unclear


def test_cameras_that_see_the_same_cannot_be_told_apart(check: ModuleType, tmp_path: Path) -> None:
    meta, now = write_demonstrations(tmp_path / "arm", wrist="front"), pictures(BEGIN)
    differences, unclear = found(
        check, meta, tmp_path, front=Camera(now["front"]), wrist=Camera(now["front"])
    )
    assert not differences
    assert [line.split(" looks as much")[0] for line in unclear] == KEYS
    assert "check_setup.png" in unclear[0]


def test_demonstrations_are_read_within_the_tolerance_of_their_finetuning(
    check: ModuleType, tmp_path: Path
) -> None:
    root = delay_pictures(make_dataset(tmp_path / "late", cameras=CAMERAS, lengths=(9,)), 0.004)
    trained = {"dataset": {"repo_id": "test/late", "root": str(root)}, "tolerance_s": 0.01}
    (tmp_path / "train_config.json").write_text(json.dumps(trained))
    policy = SimpleNamespace(pretrained_path=tmp_path)
    for given, taken in ((None, 0.01), (0.02, 0.02), (1e-3, 1e-3)):
        config = SimpleNamespace(policy=policy, demonstrations=check.Demonstrations(tolerance_s=given))
        meta = check.find_demonstrations(config)
        assert config.demonstrations.tolerance_s == taken
    assert len(check.remembered(meta, KEYS, 0.01)[KEYS[0]]) == check.FRAMES
    with pytest.raises(ValueError, match="tolerance"):
        check.remembered(meta, KEYS, 1e-3)


# --- joints ---------------------------------------------------------------------------------------------------


def described(check: ModuleType, names: Any, joints: Sequence[str] = NAMES) -> tuple[list[str], list[str]]:
    """The differences, and what cannot be told, for demonstrations whose action has these names."""
    feature = {"dtype": "float32", "shape": (6,), "names": names}
    meta = SimpleNamespace(features={"action": feature}, fps=30, robot_type=None)
    config = SimpleNamespace(rename_map={}, policy=SimpleNamespace(image_features={}), fps=30)
    features = dict.fromkeys(joints, float)
    robot = SimpleNamespace(name="so_follower", action_features=features, observation_features=features)
    sentences = list(check.described(config, meta, robot))
    return [s for s in sentences if type(s) is str], [s for s in sentences if type(s) is not str]


@pytest.mark.parametrize(
    "names",
    [
        {"motors": NAMES},
        {"arm": NAMES[:4], "hand": NAMES[4:]},
        {name: index for index, name in reversed(list(enumerate(NAMES)))},
    ],
    ids=["grouped", "in two groups", "numbered"],
)
def test_joint_names_as_a_mapping(check: ModuleType, names: dict[str, Any]) -> None:
    assert described(check, names) == ([], [])
    ((difference,), unclear) = described(check, names, NAMES[::-1])
    assert "are in another order" in difference
    assert not unclear


def test_joints_without_names_are_counted(check: ModuleType) -> None:
    differences, (unclear,) = described(check, None)
    assert not differences
    assert "action: the demonstrations do not name their joints" in unclear
    (difference,), _ = described(check, None, NAMES[:5])
    assert "the robot has 5 joints, the demonstrations have 6" in difference


@pytest.mark.parametrize("names", [NAMES, {"motors": NAMES}, None], ids=["list", "mapping", "null"])
def test_positions_are_compared_whatever_the_names_are(check: ModuleType, names: Any) -> None:
    low, high = np.full(6, -10.0), np.full(6, 10.0)
    meta = SimpleNamespace(
        features={"observation.state": {"names": names, "shape": (6,)}},
        stats={"observation.state": {"min": low, "max": high}},
    )
    motors = {joint: SimpleNamespace(norm_mode=MotorNormMode.DEGREES) for joint in JOINTS}
    limits = SimpleNamespace(range_min=800, range_max=3296)
    bus = SimpleNamespace(
        motors=motors,
        calibration=dict.fromkeys(JOINTS, limits),
        connect=lambda: None,
        disconnect=lambda disable_torque: None,
        sync_read=lambda register: dict.fromkeys(JOINTS, 0.0) | {"elbow_flex": 40.0},
    )
    robot = SimpleNamespace(
        bus=bus, is_calibrated=True, observation_features=dict.fromkeys(NAMES, float) | {"front": (48, 64, 3)}
    )
    (difference,) = check.measured(SimpleNamespace(tolerance=15), meta, robot)
    assert difference.startswith("elbow_flex stands at 40, in the demonstrations it was between -10 and 10")

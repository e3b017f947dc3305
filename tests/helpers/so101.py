"""The SO-101 guide's place of work: its configuration files set to emulated arms, and its commands run in this process."""

from __future__ import annotations

import _thread
import contextlib
import functools
import importlib.util
import itertools
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import yaml
from helpers.so101_emulator import GOAL, HEIGHT, JOINTS, LIMITS, TORQUE, WIDTH
from helpers.training import entry_point, run_command
from lerobot.cameras.zmq import ZMQCamera  # registers the type, which the policy server's client does not
from lerobot.motors.feetech import feetech

REPOSITORY = Path(__file__).parents[2]
GUIDE = REPOSITORY / "examples" / "so101"
NOT_RUN = re.compile(r"<!-- not run in the tests: .+ -->|<!-- run in tests/arm/test_serving.py -->")


@dataclass
class EmulatedArm:
    """A running emulator."""

    port: str
    camera_port: int
    log: Path
    hand: IO[str]

    def rest(self) -> None:
        """Have it put by hand to where it has been most."""
        self.hand.write("rest\n")
        self.hand.flush()
        while '"event": "rest"' not in self.log.read_text():
            time.sleep(0.05)

    def cameras(self, **streams: str) -> dict[str, Any]:
        """LeRobot's configuration of cameras: name -> the emulator's stream."""
        return {
            name: {
                "type": "zmq",
                "server_address": "127.0.0.1",
                "port": self.camera_port,
                "camera_name": stream,
                "width": WIDTH,
                "height": HEIGHT,
                "fps": 30,
            }
            for name, stream in (streams or {"front": "front", "wrist": "wrist"}).items()
        }

    def goals_written(self) -> int:
        return self.log.read_text().count(f'"register": {GOAL},')

    def events(self, since: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()][since:]


@contextlib.contextmanager
def emulated_arm(log: Path, *flags: str) -> Iterator[EmulatedArm]:
    emulator = Path(__file__).parent / "so101_emulator.py"
    process = subprocess.Popen(
        [sys.executable, emulator, f"--log={log}", *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdin is not None
        yield EmulatedArm(**json.loads(process.stdout.readline()), log=log, hand=process.stdin)
    finally:
        process.communicate(timeout=120)  # it ends when its input is closed


def goals(events: list[dict[str, Any]]) -> list[dict[str, tuple[int, int]]]:
    """The goal positions written, one mapping for each write to all servos: joint -> (goal, position told before)."""
    writes = [e for e in events if e["event"] == "write" and e["register"] == GOAL]
    assert len(writes) % len(JOINTS) == 0
    return [
        {JOINTS[e["id"] - 1]: (e["value"], e["told"]) for e in writes[start : start + len(JOINTS)]}
        for start in range(0, len(writes), len(JOINTS))
    ]


def torque(events: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """The torque switches written: (servo, 0 or 1)."""
    return [(e["id"], e["value"]) for e in events if e["event"] == "write" and e["register"] == TORQUE]


@dataclass
class Workplace:
    """A folder like the repository's root, with the guide's files set to an emulated follower (and leader)."""

    root: Path
    follower: EmulatedArm
    ran: list[str] = field(default_factory=list)

    def prepare(self, leader: EmulatedArm | None = None, **policy: dict[str, Any]) -> None:
        """Do what the guide asks its reader for: ports, cameras, calibrations; and ``policy`` settings, by file."""
        examples = self.root / "examples" / "so101"
        shutil.copytree(GUIDE, examples)
        calibration = {
            joint: {"id": n, "drive_mode": 0, "homing_offset": 0, "range_min": low, "range_max": high}
            for n, joint in enumerate(JOINTS, start=1)
            for low, high in [LIMITS[joint]]
        }
        for file in examples.glob("*.yaml"):
            config = yaml.safe_load(file.read_text())
            config.get("policy", {}).update(policy.get(file.stem, {}))
            for part, arm in (("robot", self.follower), ("teleop", leader)):
                if part not in config:
                    continue
                folder = self.root / "calibration" / part
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{config[part]['id']}.json").write_text(json.dumps(calibration))
                config[part] |= {"port": arm.port if arm else "none", "calibration_dir": str(folder)}
            if "robot" in config:
                assert config["robot"]["cameras"].keys() == {"front", "wrist"}
                config["robot"]["cameras"] = self.follower.cameras()
            file.write_text(yaml.safe_dump(config, sort_keys=False))

    def other_cameras(self, cameras: dict[str, Any]) -> str:
        """The flag that rolls out with these cameras instead (given one by one they would join the file's)."""
        folder = self.root / "examples" / "so101"
        config = yaml.safe_load((folder / "rollout.yaml").read_text())
        config["robot"]["cameras"] = cameras
        (folder / "other.yaml").write_text(yaml.safe_dump(config))
        return "--config_path=examples/so101/other.yaml"

    def run(
        self, words: list[str], *flags: str, goals: int | None = None
    ) -> tuple[str, list[dict[str, Any]]]:
        """A command of the guide with more flags, from `root`; returns its log and what the follower saw of it.

        With ``goals``, Ctrl-C is pressed as soon as so many were written.
        """
        self.ran.append(shlex.join(words))
        before = len(self.follower.events())
        # lerobot-rollout installs its own, and outlives it only here.
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
        handlers = {number: signal.getsignal(number) for number in signals}
        with contextlib.chdir(self.root), patience(), self._interrupted_after(goals):
            try:
                log = run_command(command(words), *arguments(words), *flags)
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return log, self.follower.events(before)

    @contextlib.contextmanager
    def _interrupted_after(self, goals: int | None) -> Iterator[None]:
        over = threading.Event()
        written = self.follower.goals_written() + (goals or 0) * len(JOINTS)

        def watch() -> None:
            while goals is not None and not over.wait(0.05):
                if self.follower.goals_written() >= written:
                    return _thread.interrupt_main()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


POLLS = 60_000  # a millisecond each, at least


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Lets the emulator, a process among others on a busy machine, answer later than servos and cameras do.

    It is given turns, not time: where a whole machine stands still for a while, time passes for both sides, and the
    driver, woken first, would find its time up.
    """

    def timeout(port: Any, packet_length: int) -> None:
        turns = itertools.count()

        def is_over() -> bool:
            time.sleep(0.001)
            return next(turns) >= POLLS

        port.isPacketTimeout = is_over

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feetech, "patch_setPacketTimeout", timeout)
        patch.setattr(
            ZMQCamera, "read_latest", functools.partialmethod(ZMQCamera.read_latest, max_age_ms=60_000)
        )
        yield


def commands(document: Path) -> list[tuple[list[str], bool]]:
    """Each command of the bash blocks as words, and whether the document leaves it to `Workplace.run`."""
    found = []
    for marker, block in re.findall(
        r"(<!--[^\n]*-->\n)?```bash\n(.*?)```", document.read_text(), flags=re.DOTALL
    ):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                found.append((words, not NOT_RUN.fullmatch(marker.strip())))
    return found


def arguments(words: list[str]) -> list[str]:
    """What follows the words that name the command."""
    return words[1:] if words[0] != "python" else words[3:] if words[1] == "-m" else words[2:]


def command(words: list[str]) -> Any:
    """The entry point that a command's first words name."""
    if words[:2] == ["python", "-m"]:
        return importlib.import_module(words[2]).async_client
    if words[0] == "python":
        specification = importlib.util.spec_from_file_location("check_setup", REPOSITORY / words[1])
        assert specification is not None and specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules["check_setup"] = module
        specification.loader.exec_module(module)
        return module.main
    return entry_point(words[0])


def assert_goals_follow(actions: Sequence[np.ndarray], written: list[dict], limit: float) -> int:
    """Each goal is the action, clamped around the position that was read before; returns how many were clamped."""
    clamped = 0
    for action, write in zip(actions, written, strict=False):
        for wanted, (joint, ticks) in zip(action, write.items(), strict=True):
            goal, told = (degrees(joint, value) for value in ticks)
            expected = min(max(wanted, told - limit), told + limit)
            assert abs(goal - expected) < 0.1, (joint, goal, expected)  # it is a whole number of ticks
            clamped += expected != wanted
    return clamped


def degrees(joint: str, ticks: float) -> float:
    """What the driver calls a servo's position: degrees, percent for the gripper."""
    low, high = LIMITS[joint]
    if joint == "gripper":
        return (ticks - low) / (high - low) * 100
    return (ticks - (low + high) / 2) * 360 / 4095

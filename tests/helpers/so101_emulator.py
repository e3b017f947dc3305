"""An SO-101 as its computer sees it: six Feetech STS3215 servos on a serial bus, and two cameras.

The bus is a pseudo-terminal that speaks the servos' protocol (0), so LeRobot's own driver talks to it. Behind it is
a small simulated arm: under torque every joint moves towards its goal at a limited speed; without torque it stays, or
follows a hand (``--hand``), as a leader arm does. The cameras, ``front`` and ``wrist``, are published as LeRobot's
``zmq`` camera reads them and show the joints. Runs as its own process, without LeRobot, until its input is closed:

    python so101_emulator.py --log=arm.jsonl    # prints {"port": "/dev/pts/3", "camera_port": 40123}

The log has one JSON object per line: a ping, or a register that was written, with the joint's position as it was last
told to the computer.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import math
import os
import pty
import select
import statistics
import sys
import time
import tty
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import zmq

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
TICKS = 4096  # per turn
#: Registers 9 and 11 as a calibration leaves them, by joint.
LIMITS = {"wrist_roll": (0, 4095), "gripper": (2000, 3500)} | dict.fromkeys(JOINTS[:4], (800, 3296))

MODEL, ID, MIN, MAX, TORQUE, GOAL, PRESENT = 3, 5, 9, 11, 40, 42, 56
STS3215 = 777
PING, READ, WRITE, SYNC_READ, SYNC_WRITE = 1, 2, 3, 0x82, 0x83
BROADCAST = 0xFE
FPS, HEIGHT, WIDTH = 30, 48, 64


class Servo:
    """Its memory, and the joint that it turns."""

    def __init__(self, number: int, joint: str) -> None:
        self.memory = bytearray(256)
        self.low, self.high = LIMITS[joint]
        self.position = (self.low + self.high) / 2
        self.told = round(self.position)
        self.goals: list[int] = []
        self.memory[0:2] = 3, 10  # firmware
        self.memory[ID] = number
        for register, value in ((MODEL, STS3215), (MIN, self.low), (MAX, self.high)):
            self.memory[register : register + 2] = value.to_bytes(2, "little")

    def word(self, register: int) -> int:
        return int.from_bytes(self.memory[register : register + 2], "little")

    def move(self, seconds: float, speed: float) -> None:
        """Turn towards the goal if there is torque; ``speed`` in ticks per second."""
        if self.memory[TORQUE]:
            goal = self.word(GOAL)
            goal = -(goal & 0x7FFF) if goal & 0x8000 else goal  # sign and magnitude
            way = min(self.high, max(self.low, goal)) - self.position
            self.position += math.copysign(min(abs(way), speed * seconds), way)
        self.show()

    def show(self) -> None:
        self.memory[PRESENT : PRESENT + 2] = round(self.position).to_bytes(2, "little")


class Arm:
    """The servos on one bus."""

    def __init__(self, speed: float, hand: bool, log: IO[str]) -> None:
        self.servos = {number: Servo(number, joint) for number, joint in enumerate(JOINTS, start=1)}
        self.speed, self.hand, self.log = speed, hand, log
        self.start = self.now = time.monotonic()
        for servo in self.servos.values():
            servo.memory[GOAL : GOAL + 2] = round(servo.position).to_bytes(2, "little")

    def advance(self) -> None:
        """Let the time pass that has passed."""
        now = time.monotonic()
        for number, servo in self.servos.items():
            if self.hand:
                swing = math.sin(2 * (now - self.start) + number)
                servo.position = (servo.low + servo.high) / 2 + 0.3 * (servo.high - servo.low) * swing
                servo.show()
            else:
                servo.move(now - self.now, self.speed)
        self.now = now

    def rest(self) -> None:
        """Let somebody put the arm where it has been most: a busy machine records too little of where it ends."""
        for servo in self.servos.values():
            servo.position = statistics.median(servo.goals or [servo.position])
            servo.memory[GOAL : GOAL + 2] = round(servo.position).to_bytes(2, "little")
            servo.show()
        self.note(event="rest")

    def pictures(self) -> dict[str, np.ndarray]:
        """(h,w,3) uint8 each: the joints as a chain of links, and the gripper's jaws from close by."""
        front = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        point, angle = np.array([WIDTH / 2, HEIGHT - 4.0]), -math.pi / 2
        for number, servo in self.servos.items():
            angle += (servo.position - TICKS / 2) * math.pi / TICKS
            end = point + 8 * np.array([math.cos(angle), math.sin(angle)])
            colour = (40 * number, 255 - 30 * number, 90 + 20 * number)
            cv2.line(front, point.round().astype(int).tolist(), end.round().astype(int).tolist(), colour, 3)
            point = end
        wrist = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
        gripper = self.servos[len(JOINTS)]
        opening = (gripper.position - gripper.low) / (gripper.high - gripper.low)
        for side in (-1, 1):
            tip = (round(WIDTH / 2 + side * (4 + 20 * opening)), HEIGHT // 3)
            cv2.line(wrist, (WIDTH // 2 + 12 * side, HEIGHT), tip, (60, 60, 60), 6)
        return {"front": front, "wrist": wrist}

    def answer(self, number: int, instruction: int, parameters: bytes) -> bytes:
        """What comes back over the bus for one packet."""
        self.advance()
        if instruction == PING:
            self.note(event="ping", id=number)
            asked = self.servos if number == BROADCAST else [number]
            return b"".join(status(n) for n in asked if n in self.servos)
        if instruction == SYNC_READ:
            register, length, *numbers = parameters
            return b"".join(self.read(n, register, length) for n in numbers if n in self.servos)
        if instruction == SYNC_WRITE:
            register, length, data = parameters[0], parameters[1], parameters[2:]
            for start in range(0, len(data), length + 1):
                self.write(data[start], register, data[start + 1 : start + 1 + length])
            return b""
        if number not in self.servos:
            return b""
        if instruction == READ:
            return self.read(number, *parameters)
        if instruction == WRITE:
            self.write(number, parameters[0], parameters[1:])
            return status(number)
        raise ValueError(f"instruction {instruction} is not emulated")

    def read(self, number: int, register: int, length: int) -> bytes:
        if register == PRESENT:
            self.servos[number].told = self.servos[number].word(PRESENT)
        return status(number, bytes(self.servos[number].memory[register : register + length]))

    def write(self, number: int, register: int, data: bytes) -> None:
        servo = self.servos[number]
        servo.memory[register : register + len(data)] = data
        value = int.from_bytes(data, "little")
        if register == GOAL:
            servo.goals.append(min(servo.high, max(servo.low, value)))
        self.note(event="write", id=number, register=register, value=value, told=servo.told)

    def note(self, **event: object) -> None:
        self.log.write(json.dumps({"time": time.monotonic(), **event}) + "\n")


def status(number: int, data: bytes = b"") -> bytes:
    body = bytes([number, len(data) + 2, 0]) + data
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


def packets(buffer: bytearray) -> list[tuple[int, int, bytes]]:
    """Take the whole packets off the front of ``buffer``: (servo, instruction, parameters)."""
    found = []
    while (start := buffer.find(b"\xff\xff")) >= 0:
        del buffer[:start]
        if len(buffer) < 4 or len(buffer) < buffer[3] + 4:
            break
        body, checksum = bytes(buffer[2 : buffer[3] + 3]), buffer[buffer[3] + 3]
        if ~sum(body) & 0xFF != checksum:
            del buffer[:2]
            continue
        del buffer[: len(body) + 3]
        found.append((body[0], body[2], body[3:]))
    return found


def serve(arm: Arm) -> None:
    bus, computer = pty.openpty()
    tty.setraw(computer)
    cameras = zmq.Context().socket(zmq.PUB)
    camera_port = cameras.bind_to_random_port("tcp://127.0.0.1")
    print(json.dumps({"port": os.ttyname(computer), "camera_port": camera_port}), flush=True)
    received, next_frame = bytearray(), time.monotonic()
    while True:
        ready, _, _ = select.select([bus, sys.stdin], [], [], max(0, next_frame - time.monotonic()))
        if sys.stdin in ready:
            if not sys.stdin.readline():
                return
            arm.rest()
        if bus in ready:
            received += os.read(bus, 4096)
            for packet in packets(received):
                os.write(bus, arm.answer(*packet))
        if time.monotonic() >= next_frame:
            arm.advance()
            jpegs = {name: cv2.imencode(".jpg", picture)[1] for name, picture in arm.pictures().items()}
            images = {name: base64.b64encode(jpeg.tobytes()).decode() for name, jpeg in jpegs.items()}
            cameras.send_string(json.dumps({"images": images}))
            next_frame += 1 / FPS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument(
        "--speed", type=float, default=270, help="of a joint under torque, degrees per second"
    )
    parser.add_argument("--hand", action="store_true", help="a hand moves the joints: a leader arm")
    arguments = parser.parse_args()
    with arguments.log.open("w", buffering=1) as log, contextlib.suppress(KeyboardInterrupt):
        serve(Arm(arguments.speed * TICKS / 360, arguments.hand, log))


if __name__ == "__main__":
    main()

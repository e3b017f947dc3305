"""Videos made for tests with PyAV: each frame carries its own number as blocks of black and white."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

GRID = 4  # 4 x 4 blocks: four corner marks and twelve bits, enough for 4096 frames
# Corners tell which way up the picture is: only the top left one is red.
BIT_CELLS = [
    (r, c) for r in range(GRID) for c in range(GRID) if (r, c) not in {(0, 0), (0, 3), (3, 0), (3, 3)}
]


def code_picture(index: int, height: int = 64, width: int = 64) -> np.ndarray:
    """(height, width, 3) uint8: frame number `index` in blocks that survive compression and scaling."""
    cells = np.zeros((GRID, GRID, 3), dtype=np.uint8)
    cells[0, 0] = (200, 30, 30)
    cells[0, 3] = (30, 180, 30)
    cells[3, 0] = (30, 30, 200)
    cells[3, 3] = (120, 120, 120)
    for bit, (row, column) in enumerate(BIT_CELLS):
        cells[row, column] = 230 if index >> bit & 1 else 25
    rows = np.arange(height) * GRID // height
    columns = np.arange(width) * GRID // width
    return cells[rows][:, columns]


def read_code(image: np.ndarray) -> int:
    """The frame number of a picture (h, w, 3), from the middle of each block.

    Raises:
        AssertionError: the corners are not where they belong (turned or mirrored) or a bit is neither black nor white.
    """
    height, width = image.shape[:2]

    def cell(row: int, column: int) -> np.ndarray:
        top, left = row * height // GRID, column * width // GRID
        h, w = height // GRID, width // GRID
        return (
            image[top + h // 4 : top + h - h // 4, left + w // 4 : left + w - w // 4].reshape(-1, 3).mean(0)
        )

    for (row, column), channel in (((0, 0), 0), ((0, 3), 1), ((3, 0), 2)):
        color = cell(row, column)
        assert int(color.argmax()) == channel and color.max() - np.sort(color)[1] > 60, (
            f"corner {row},{column} is {color.round()}: the picture is turned or mirrored"
        )
    index = 0
    for bit, (row, column) in enumerate(BIT_CELLS):
        value = cell(row, column).mean()
        assert abs(value - 127) > 40, f"bit {bit} reads {value:.0f}"
        index |= int(value > 127) << bit
    return index


def write_video(
    path: Path,
    frames: int,
    fps: Fraction | int = 30,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    height: int = 64,
    width: int = 64,
    audio: bool = False,
    times: Sequence[float] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    picture: Any = code_picture,
    first_index: int = 0,
) -> Path:
    """Write a video whose frame i shows `picture(first_index + i)`; `times` (seconds) makes the frame rate variable."""
    fps = Fraction(fps)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container_options or {}) as container:
        defaults = {"libx264": {"preset": "ultrafast", "crf": "18"}, "libx265": {"preset": "ultrafast"}}
        defaults["libvpx-vp9"] = {"deadline": "realtime", "cpu-used": "8", "crf": "30"}
        defaults["libsvtav1"] = {"preset": "12", "svtav1-params": "lp=1"}
        stream: Any = container.add_stream(codec, rate=fps, options=options or defaults.get(codec, {}))
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        if codec == "libx265":
            stream.codec_context.options = {
                **stream.codec_context.options,
                "x265-params": "log-level=none:pools=1",
            }
        clock = Fraction(1, 90000) if times is not None else 1 / fps
        stream.time_base = clock
        stream.codec_context.time_base = clock
        sound: Any = (
            container.add_stream("libopus" if path.suffix == ".webm" else "aac", rate=48000)
            if audio
            else None
        )
        for index in range(frames):
            image = picture(first_index + index, height, width)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = round(times[index] / clock) if times is not None else index
            frame.time_base = clock
            container.mux(stream.encode(frame.reformat(format=pix_fmt)))
        container.mux(stream.encode(None))
        if sound is not None:
            _write_sound(container, sound, float(frames / fps))
    return path


def _write_sound(container: Any, stream: Any, seconds: float) -> None:
    size = stream.codec_context.frame_size or 960
    for number in range(int(seconds * 48000 / size)):
        samples = (0.1 * np.sin(np.arange(size) * 0.05)).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, number * size, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def rotate_mp4(path: Path, degrees: int) -> Path:
    """Set the track header's display matrix so that players turn the picture `degrees` clockwise."""
    turns = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
    a, b, c, d = (value << 16 for value in turns[degrees])
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4
    matrix = start + 40  # version and flags, times, track, duration, reserved, layer, volume
    data[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
    return path

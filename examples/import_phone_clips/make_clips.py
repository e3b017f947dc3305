"""Three small clips as a phone would leave them: upright, held sideways, and with a variable frame rate."""

from __future__ import annotations

import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

CLOCK = Fraction(1, 90000)


def write_clip(path: Path, seconds: float, turned: bool = False, variable: bool = False) -> None:
    """A bright square moving over a table; `turned` stores it sideways with a note for the player."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(len(path.name))
    table = generator.integers(90, 110, (160, 120, 3), dtype=np.uint8)
    time, index = 0.0, 0
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.height, stream.width = (120, 160) if turned else (160, 120)
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", CLOCK
        while time < seconds:
            image = table.copy()
            left = 10 + index % 80
            image[60:85, left : left + 25] = (230, 200, 40)
            if turned:
                image = np.ascontiguousarray(np.rot90(image))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time / CLOCK), CLOCK
            container.mux(stream.encode(frame))
            time += float(generator.uniform(1 / 40, 1 / 15)) if variable else 1 / 30
            index += 1
        container.mux(stream.encode(None))
    if turned:  # the track header's matrix: turn by 90 degrees clockwise
        data = bytearray(path.read_bytes())
        matrix = data.index(b"tkhd") + 44
        data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
        path.write_bytes(bytes(data))


def main() -> None:
    """Write the clips below the folder given."""
    folder = Path(sys.argv[1])
    write_clip(folder / "pick_up_the_cup" / "IMG_0001.mov", 4.0)
    write_clip(folder / "pick_up_the_cup" / "IMG_0002.mov", 3.0, turned=True)
    write_clip(folder / "open_the_drawer" / "IMG_0003.mov", 3.0, variable=True)


if __name__ == "__main__":
    main()

"""Fitting decoded frames into the dataset's picture: upright, in the right colours, and of one size.

The rotation and mirroring stored in the file are applied, non-square pixels are made square, and the colours are
converted with the matrix and range the file names (BT.601 when it names none, as FFmpeg does). High dynamic range, whose
matrix is BT.2020's when none is named, is scaled first, and what is left of it is tone-mapped.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from lawm_lerobot.importing.reasons import Reason, UnreadableVideoError
from lawm_lerobot.importing.tone_mapping import is_high_dynamic_range, to_standard

# Beyond this ratio, scaling the whole frame before cropping would cost more memory than the picture is worth.
MAX_SCALED_ASPECT = 8.0
# Looked up once: the names are resolved on every frame otherwise.
AREA, CUBIC = Interpolation.AREA, Interpolation.BICUBIC
BT2020 = 9  # FFmpeg's SWS_CS_BT2020, for which PyAV has no name
MATRICES: dict[int, int] = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    7: Colorspace.SMPTE240M,
    9: BT2020,
    10: BT2020,
}


@dataclass(frozen=True)
class Orientation:
    """The way from a stored picture to the displayed one: rows and columns change places before the flips."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def apply(self, image: np.ndarray) -> np.ndarray:
        """`image` (h, w, 3) -> (h', w', 3), contiguous."""
        if self.transpose:
            image = image.transpose(1, 0, 2)
        if self.flip_rows:
            image = image[::-1]
        if self.flip_columns:
            image = image[:, ::-1]
        return np.ascontiguousarray(image)


def display_orientation(frame: Any) -> Orientation:
    """Rotation and mirroring from the frame's display matrix; anything but quarter turns would need black corners."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data)[:36])
    # A stored pixel (x, y) is shown at (a x + c y, b x + d y); y grows downwards.
    if abs(a) > abs(b) and abs(d) > abs(c):
        return Orientation(False, flip_rows=d < 0, flip_columns=a < 0)
    if abs(b) > abs(a) and abs(c) > abs(d):
        return Orientation(True, flip_rows=b < 0, flip_columns=c < 0)
    if not any((a, b, c, d)):
        return Orientation()
    raise UnreadableVideoError(Reason.ODD_ROTATION, f"display matrix {a} {b} {c} {d}")


class PictureMaker:
    """Turns decoded frames into upright RGB pictures of one size: `crop` fills it, `pad` shows everything on black."""

    def __init__(self, height: int, width: int, fit: str):
        self.height, self.width, self.fit = height, width, fit
        # One scaler for all frames: FFmpeg builds its filter tables once per size, not once per frame.
        self._scaler = VideoReformatter()

    def from_frame(
        self,
        frame: Any,
        pixel_aspect: Fraction,
        transfer: int = 0,
        orientation: Orientation | None = None,
    ) -> np.ndarray:
        """Make the picture of a decoded frame.

        Args:
            frame: The frame, with its matrix and range.
            pixel_aspect: The width of a pixel over its height.
            transfer: The number of the transfer characteristic, in ITU-T H.273.
            orientation: Which way up it is shown; None if the frame itself says it.

        Returns:
            (height, width, 3) uint8 RGB.
        """
        orientation = orientation or display_orientation(frame)
        deep = is_high_dynamic_range(transfer)
        # Size the picture as stored; turning the small one is cheaper than turning the large one.
        goal_h, goal_w = (self.width, self.height) if orientation.transpose else (self.height, self.width)
        shown_h, shown_w = Fraction(frame.height), frame.width * pixel_aspect
        scaled_h, scaled_w = self._scaled(shown_h, shown_w, goal_h, goal_w)
        if max(scaled_h / goal_h, scaled_w / goal_w) > MAX_SCALED_ASPECT:
            image = _to_rgb(self._scaler, frame, frame.width, frame.height, deep)
            image = _resize_by_parts(image, shown_h, shown_w, goal_h, goal_w)
        else:
            image = _to_rgb(self._scaler, frame, scaled_w, scaled_h, deep)
            image = _place(image, goal_h, goal_w)
        return orientation.apply(to_standard(image, transfer) if deep else image)

    def from_image(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 RGB of any size -> (height, width, 3) uint8 RGB."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        return self.from_frame(frame, Fraction(1))

    def _scaled(self, h: Fraction, w: Fraction, goal_h: int, goal_w: int) -> tuple[int, int]:
        choose = max if self.fit == "crop" else min
        scale = choose(goal_h / h, goal_w / w)
        scaled_h, scaled_w = max(1, round(h * scale)), max(1, round(w * scale))
        if self.fit == "crop":
            return max(goal_h, scaled_h), max(goal_w, scaled_w)
        return min(goal_h, scaled_h), min(goal_w, scaled_w)


def _to_rgb(scaler: VideoReformatter, frame: Any, width: int, height: int, deep: bool) -> np.ndarray:
    """Frame -> (height, width, 3) uint8 RGB, or uint16 if `deep`."""
    # AREA averages every source pixel (no aliasing when shrinking); when enlarging, a cubic is smoother.
    shrinking = width <= frame.width and height <= frame.height
    options: dict[str, Any] = {}
    if not frame.format.is_rgb:
        source = MATRICES.get(int(frame.colorspace), BT2020 if deep else Colorspace.ITU601)
        full = int(frame.color_range) == 2 or frame.format.name.startswith("yuvj")
        options = {
            "src_colorspace": source,
            # PyAV passes the matrix on only where the two differ; for RGB the second has no meaning.
            "dst_colorspace": Colorspace.ITU709 if source is Colorspace.ITU601 else Colorspace.ITU601,
            "src_color_range": ColorRange.JPEG if full else ColorRange.MPEG,
            "dst_color_range": ColorRange.JPEG,
        }
    rgb = scaler.reformat(
        frame,
        width,
        height,
        "rgb48le" if deep else "rgb24",
        interpolation=AREA if shrinking else CUBIC,
        **options,
    )
    # A view on the frame's memory; `to_ndarray` would look for a conversion to do and copy.
    plane = rgb.planes[0]
    numbers = np.frombuffer(plane, np.uint16 if deep else np.uint8)
    rows = numbers.reshape(-1, plane.line_size // numbers.itemsize)
    return rows[:height, : 3 * width].reshape(height, width, 3)


def _place(image: np.ndarray, goal_h: int, goal_w: int) -> np.ndarray:
    """Centre crop where the picture is larger than the goal, black border where it is smaller."""
    h, w = image.shape[:2]
    top, left = max(0, (h - goal_h) // 2), max(0, (w - goal_w) // 2)
    image = image[top : top + goal_h, left : left + goal_w]
    h, w = image.shape[:2]
    if (h, w) == (goal_h, goal_w):
        return image
    padded = np.zeros((goal_h, goal_w, 3), dtype=image.dtype)
    top, left = (goal_h - h) // 2, (goal_w - w) // 2
    padded[top : top + h, left : left + w] = image
    return padded


def _resize_by_parts(
    image: np.ndarray, shown_h: Fraction, shown_w: Fraction, goal_h: int, goal_w: int
) -> np.ndarray:
    """Crop a ribbon-shaped picture before scaling it; the scaled whole would be huge."""
    h, w = image.shape[:2]
    scale = max(goal_h / shown_h, goal_w / shown_w)
    keep_h = min(h, max(1, round(goal_h / scale)))
    keep_w = min(w, max(1, round(goal_w / scale * w / shown_w)))
    top, left = (h - keep_h) // 2, (w - keep_w) // 2
    part = np.ascontiguousarray(image[top : top + keep_h, left : left + keep_w])
    return cv2.resize(part, (goal_w, goal_h), interpolation=cv2.INTER_AREA)

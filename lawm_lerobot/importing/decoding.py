"""Reading any video safely: what it claims, which frame is shown when, and how it is meant to be seen.

Time. The video's own clock starts at the presentation time of its first frame. The picture at time t is the last frame
whose presentation time is <= t, which is what a player shows; so a variable-frame-rate phone video, a 24 fps film and a
60 fps action camera all come out right at any other rate, and a pause in the stream repeats the frame before it.

Picture. The rotation and mirroring stored in the file are applied, non-square pixels are made square, and the colours are
converted with the matrix and range the file names (BT.601 when it names none, as FFmpeg does).

Safety. The container is recognised by its first bytes and opened with that demuxer only. FFmpeg's own guess would also
accept play lists and concatenation scripts, and those can name any other file or address.

Nothing here imports LeRobot or torch: worker processes start quickly and stay small.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

# A frame larger than this is a wrong or hostile claim, not a camera (16K x 16K is 256 megapixels).
MAX_PIXELS = 16384 * 16384
# Beyond this ratio, scaling the whole frame before cropping would cost more memory than the picture is worth.
MAX_SCALED_ASPECT = 8.0
# Looked up once: the names are resolved on every frame otherwise.
AREA, CUBIC = Interpolation.AREA, Interpolation.BICUBIC
MATRICES = {1: Colorspace.ITU709, 4: Colorspace.FCC, 7: Colorspace.SMPTE240M}


class UnreadableVideoError(Exception):
    """A video that cannot be imported: `reason` in a few words for the summary, `detail` for whoever looks closer."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class VideoClaims:
    """What a video says about itself, read without decoding more than its first frame."""

    width: int
    height: int
    origin: Fraction  # presentation time of the first frame, seconds
    duration_s: float | None  # None when the container does not say
    frame_rate: float
    codec: str


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes the displayed one: transpose first, then the flips."""

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


def error_text(error: BaseException) -> str:
    """One line of an error, without the file's path (the summary names the file already)."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def sniff_container(path: str) -> str:
    """Return the FFmpeg demuxer for the file's first bytes.

    Raises:
        UnreadableVideoError: not a regular file, empty, unreadable, or none of the five container families.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnreadableVideoError("not a regular file")
        with open(path, "rb") as file:
            head = file.read(16)
    except PermissionError as error:
        raise UnreadableVideoError("no read permission") from error
    except FileNotFoundError as error:
        raise UnreadableVideoError("file not found") from error
    except OSError as error:
        raise UnreadableVideoError("cannot be read", error_text(error)) from error
    if not head:
        raise UnreadableVideoError("empty file")
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    raise UnreadableVideoError("not a video", "no mp4, mov, mkv, webm or avi header")


def open_video(path: str) -> Any:
    """Open `path` with the demuxer its bytes call for, local files only. The caller closes it."""
    demuxer = sniff_container(path)
    # PyAV encodes names as UTF-8; a name that is not UTF-8 is passed as an open file instead.
    try:
        path.encode("utf-8")
        target: Any = os.path.abspath(path)
    except UnicodeEncodeError:
        target = io.FileIO(path)
    try:
        return av.open(target, format=demuxer, options={"protocol_whitelist": "file,crypto,data"})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideoError("cannot be opened", error_text(error)) from error


def _video_stream(container: Any) -> Any:
    # A cover picture in an audio file is a video stream of one frame; it is not a video.
    streams = [
        stream for stream in container.streams.video if "attached_pic" not in str(stream.disposition).lower()
    ]
    if not streams:
        raise UnreadableVideoError("no video stream", "audio or data only")
    stream = streams[0]
    if stream.codec_context is None:
        raise UnreadableVideoError("unknown video codec")
    return stream


def _check_size(width: int, height: int) -> None:
    if width <= 0 or height <= 0:
        raise UnreadableVideoError("claims an impossible picture size", f"{width}x{height}")
    if width * height > MAX_PIXELS:
        raise UnreadableVideoError("claims an impossible picture size", f"{width}x{height}")


def frame_time(frame: Any) -> Fraction | None:
    """Presentation time of a decoded frame in seconds, exactly; None when the container gives none."""
    stamp = frame.pts if frame.pts is not None else frame.dts
    return None if stamp is None else Fraction(stamp * frame.time_base)


def _decoded(container: Any, stream: Any, errors: list[str]) -> Iterator[Any]:
    """Decode packet by packet, so that one damaged packet costs its own frames and not the rest of the file."""
    packets = container.demux(stream)
    failures = 0
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as error:
            errors.append(error_text(error))
            return
        try:
            frames = packet.decode()
            failures = 0
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, ValueError) as error:
            errors.append(error_text(error))
            failures += 1
            if failures >= 200:  # nothing but garbage from here on
                return
            continue
        for frame in frames:
            if not frame.is_corrupt:
                yield frame


def read_claims(path: str) -> VideoClaims:
    """Open a video, decode one frame and report what it claims.

    Raises:
        UnreadableVideoError: with the reason to list.
    """
    with open_video(path) as container:
        stream = _video_stream(container)
        width, height = stream.codec_context.width, stream.codec_context.height
        if width and height:
            _check_size(width, height)
        # The first frame in decoding order need not be the first shown; a few frames settle it.
        errors: list[str] = []
        times: list[Fraction] = []
        frames = 0
        for frame in _decoded(container, stream, errors):
            _check_size(frame.width, frame.height)
            frames += 1
            time = frame_time(frame)
            if time is not None:
                times.append(time)
            if frames >= 2:
                break
        if not frames:
            _check_size(width, height)
            reason = "cannot be decoded" if errors else "no frames"
            raise UnreadableVideoError(reason, errors[0] if errors else "")
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate or Fraction(25)
        duration: float | None = None
        if stream.duration is not None and stream.duration > 0:
            duration = float(stream.duration * stream.time_base)
        elif container.duration is not None and container.duration > 0:
            duration = float(container.duration / av.time_base)
        return VideoClaims(
            width=width,
            height=height,
            origin=min(times) if times else Fraction(0),
            duration_s=duration,
            frame_rate=float(rate) if rate and rate > 0 else 25.0,
            codec=stream.codec_context.name,
        )


def display_orientation(frame: Any) -> Orientation:
    """Rotation and mirroring from the frame's display matrix, in quarter turns.

    Raises:
        UnreadableVideoError: for a matrix that is not a quarter turn; showing it would need black corners.
    """
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
    raise UnreadableVideoError("rotated by less than a quarter turn", f"display matrix {a} {b} {c} {d}")


class PictureMaker:
    """Turns decoded frames into upright RGB pictures of one size.

    Args:
        height, width: of the result, pixels.
        fit: `crop` fills the picture and cuts what hangs over; `pad` shows everything, on black.
    """

    def __init__(self, height: int, width: int, fit: str):
        self.height, self.width, self.fit = height, width, fit
        # One scaler for all frames: FFmpeg builds its filter tables once per size, not once per frame.
        self._scaler = VideoReformatter()

    def from_frame(self, frame: Any, pixel_aspect: Fraction) -> np.ndarray:
        """Decoded frame -> (height, width, 3) uint8 RGB."""
        orientation = display_orientation(frame)
        # Size the picture as stored; turning the small one is cheaper than turning the large one.
        goal_h, goal_w = (self.width, self.height) if orientation.transpose else (self.height, self.width)
        shown_h, shown_w = Fraction(frame.height), frame.width * pixel_aspect
        scaled_h, scaled_w = self._scaled(shown_h, shown_w, goal_h, goal_w)
        if max(scaled_h / goal_h, scaled_w / goal_w) > MAX_SCALED_ASPECT:
            image = _to_rgb(self._scaler, frame, frame.width, frame.height)
            image = _resize_by_parts(image, shown_h, shown_w, goal_h, goal_w)
        else:
            image = _to_rgb(self._scaler, frame, scaled_w, scaled_h)
            image = _place(image, goal_h, goal_w)
        return orientation.apply(image)

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


def _to_rgb(scaler: VideoReformatter, frame: Any, width: int, height: int) -> np.ndarray:
    # AREA averages every source pixel (no aliasing when shrinking); when enlarging, a cubic is smoother.
    shrinking = width <= frame.width and height <= frame.height
    options: dict[str, Any] = {}
    if not frame.format.is_rgb:
        source = MATRICES.get(int(frame.colorspace), Colorspace.ITU601)
        full = int(frame.color_range) == 2 or frame.format.name.startswith("yuvj")
        options = {
            "src_colorspace": source,
            # PyAV passes the matrix on only where the two differ; for RGB the second has no meaning.
            "dst_colorspace": Colorspace.ITU709 if source is Colorspace.ITU601 else Colorspace.ITU601,
            "src_color_range": ColorRange.JPEG if full else ColorRange.MPEG,
            "dst_color_range": ColorRange.JPEG,
        }
    rgb = scaler.reformat(
        frame, width, height, "rgb24", interpolation=AREA if shrinking else CUBIC, **options
    )
    # A view on the frame's memory; `to_ndarray` would look for a conversion to do and copy.
    plane = rgb.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[:height, : 3 * width].reshape(height, width, 3)


def _place(image: np.ndarray, goal_h: int, goal_w: int) -> np.ndarray:
    """Centre crop where the picture is larger than the goal, black border where it is smaller."""
    h, w = image.shape[:2]
    top, left = max(0, (h - goal_h) // 2), max(0, (w - goal_w) // 2)
    image = image[top : top + goal_h, left : left + goal_w]
    h, w = image.shape[:2]
    if (h, w) == (goal_h, goal_w):
        return image
    padded = np.zeros((goal_h, goal_w, 3), dtype=np.uint8)
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


@dataclass
class ReadState:
    """What a pass over a video learned besides its frames."""

    end_s: float = 0.0  # where the last decoded frame stops being shown
    frames: int = 0
    # Containers round times to their tick, so a frame due at t may carry a time just after t. Half a tick settles it;
    # more than half a millisecond (AVI's tick is a whole frame) would show frames early.
    slack_s: float = 1e-6
    errors: list[str] | None = None


def timed_frames(
    path: str, start_s: float, end_s: float | None, origin: Fraction, state: ReadState
) -> Iterator[tuple[float, Any, Fraction]]:
    """Decode the frames that are shown within [start_s, end_s), plus the one already shown at start_s.

    Frames before start_s may come first; whoever resamples passes over them. Yields (time in seconds on the video's own clock, frame, pixel aspect ratio), times strictly increasing. Memory does
    not depend on the length: one frame is held at a time.
    """
    errors: list[str] = []
    state.errors = errors
    with open_video(path) as container:
        stream = _video_stream(container)
        stream.thread_type = "NONE"  # parallel over files, not within one; a thread's queue holds frames
        if start_s > 1.0:
            try:
                target = int((start_s + float(origin)) / stream.time_base) - 1
                container.seek(target, stream=stream, backward=True)
            except (av.error.FFmpegError, OSError):
                container.seek(0)
        state.slack_s = min(max(float(stream.time_base) / 2, 1e-6), 5e-4)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        if not 0.1 < aspect < 10:
            aspect = Fraction(1)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        step = float(1 / rate) if rate > 0 else 0.04
        ticks = Fraction(stream.time_base)
        shift = round(origin / ticks)
        last = -1.0
        first = True
        for frame in _decoded(container, stream, errors):
            stamp = frame.pts if frame.pts is not None else frame.dts
            # Whole ticks are exact in floating point; the division is the only rounding.
            time = (
                (stamp - shift) * ticks.numerator / ticks.denominator
                if stamp is not None
                else max(0.0, last + step)
            )
            if first and time > start_s + step and start_s > 1.0:
                # The index was wrong and the seek landed too late: read from the beginning instead.
                first = False
                container.close()
                yield from timed_frames(path, 0.0, end_s, origin, state)
                return
            first = False
            if time <= last:
                continue  # a stream that jumps back would show an older picture later
            shown = float(frame.duration * ticks) if frame.duration else step
            last = time
            state.frames += 1
            state.end_s = time + shown
            if end_s is not None and time >= end_s:
                return
            yield time, frame, aspect


def image_files(folder: str, prefix: str = "im_") -> list[str]:
    """Numbered pictures of a folder in the order of their numbers (im_2 before im_10)."""
    numbered = []
    for name in os.listdir(folder):
        stem, extension = os.path.splitext(name)
        if stem.startswith(prefix) and extension.lower() in (".jpg", ".jpeg", ".png"):
            digits = stem[len(prefix) :]
            if digits.isdigit():
                numbered.append((int(digits), name))
    return [os.path.join(folder, name) for _, name in sorted(numbered)]


def read_image(path: str) -> np.ndarray:
    """(h, w, 3) uint8 RGB, turned as its EXIF data says.

    Raises:
        UnreadableVideoError: the file is missing or not a picture.
    """
    try:
        data = np.frombuffer(Path(path).read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise UnreadableVideoError("cannot be read", error_text(error)) from error
    return decode_image(data, os.path.basename(path))


def decode_image(data: np.ndarray, name: str) -> np.ndarray:
    """Encoded picture bytes -> (h, w, 3) uint8 RGB."""
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise UnreadableVideoError("cannot be decoded", f"{name} is not a picture")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

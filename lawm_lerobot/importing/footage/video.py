"""Reading any video file safely: what it claims, and which frame is shown when.

Time. The video's own clock starts at the presentation time of its first frame. The picture at time t is the last frame
whose presentation time is <= t, which is what a player shows; so a variable-frame-rate phone video, a 24 fps film and a
60 fps action camera all come out right at any other rate, and a pause in the stream repeats the frame before it.

Safety. The container is recognised by its first bytes and opened with that demuxer only. FFmpeg's own guess would also
accept play lists and concatenation scripts, and those can name any other file or address.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, ClassVar

import av
import av.error

from lawm_lerobot.importing.fitting import PictureMaker
from lawm_lerobot.importing.footage.base import Footage, Probe, Reading, ShownPicture
from lawm_lerobot.importing.reasons import Reason, UnreadableVideoError, error_text

# A frame larger than this is a wrong or hostile claim, not a camera (16K x 16K is 256 megapixels).
MAX_PIXELS = 16384 * 16384
MAX_FAILURES = 200  # packets in a row; nothing but garbage follows


@dataclass(frozen=True)
class VideoFile(Footage):
    """A video file of any container and codec that `sniff_container` and FFmpeg know."""

    is_stream: ClassVar[bool] = True

    def probe(self) -> Probe:
        with open_video(self.path) as container:
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
                stamp = _stamp(frame)
                if stamp is not None:
                    times.append(Fraction(stamp * frame.time_base))
                if frames >= 2:
                    break
            if not frames:
                _check_size(width, height)
                reason = Reason.CANNOT_BE_DECODED if errors else Reason.NO_FRAMES
                raise UnreadableVideoError(reason, errors[0] if errors else "")
            duration: float | None = None
            if stream.duration is not None and stream.duration > 0:
                duration = float(stream.duration * stream.time_base)
            elif container.duration is not None and container.duration > 0:
                duration = float(container.duration / av.time_base)
            return Probe(str(min(times) if times else Fraction(0)), duration)

    def frames(self, reading: Reading, maker: PictureMaker) -> Iterator[ShownPicture]:
        for time, frame, aspect in self._timed_frames(reading.start_s, reading):
            yield time, partial(maker.from_frame, frame, aspect)

    def _timed_frames(self, start_s: float, reading: Reading) -> Iterator[tuple[float, Any, Fraction]]:
        """Decode the frames that are shown from `start_s` on, after the one already shown then.

        Frames before `start_s` may come first; whoever resamples passes over them. One frame is held at a time.
        """
        reading.errors = []
        with open_video(self.path) as container:
            stream = _video_stream(container)
            stream.thread_type = "NONE"  # parallel over files, not within one; a thread's queue holds frames
            if start_s > 1.0:
                try:
                    target = int((start_s + float(reading.origin)) / stream.time_base) - 1
                    container.seek(target, stream=stream, backward=True)
                except (av.error.FFmpegError, OSError):
                    container.seek(0)
            reading.slack_s = min(max(float(stream.time_base) / 2, 1e-6), 5e-4)
            aspect = stream.sample_aspect_ratio or Fraction(1)
            if not 0.1 < aspect < 10:
                aspect = Fraction(1)
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            step = float(1 / rate) if rate > 0 else 0.04
            ticks = Fraction(stream.time_base)
            shift = round(reading.origin / ticks)
            last = -1.0
            first = True
            for frame in _decoded(container, stream, reading.errors):
                stamp = _stamp(frame)
                # Whole ticks are exact in floating point; the division is the only rounding.
                time = (
                    (stamp - shift) * ticks.numerator / ticks.denominator
                    if stamp is not None
                    else max(0.0, last + step)
                )
                if first and time > start_s + step and start_s > 1.0:
                    # The index was wrong and the seek landed too late: read from the beginning instead.
                    container.close()
                    yield from self._timed_frames(0.0, reading)
                    return
                first = False
                if time <= last:
                    continue  # a stream that jumps back would show an older picture later
                last = time
                reading.frames += 1
                reading.shown_to_s = time + (float(frame.duration * ticks) if frame.duration else step)
                if reading.end_s is not None and time >= reading.end_s:
                    return
                yield time, frame, aspect


def sniff_container(path: str) -> str:
    """Return the FFmpeg demuxer for the file's first bytes, or raise an `UnreadableVideoError`."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnreadableVideoError(Reason.NOT_A_FILE)
        with open(path, "rb") as file:
            head = file.read(16)
    except PermissionError as error:
        raise UnreadableVideoError(Reason.NO_PERMISSION) from error
    except FileNotFoundError as error:
        raise UnreadableVideoError(Reason.NOT_FOUND) from error
    except OSError as error:
        raise UnreadableVideoError(Reason.CANNOT_BE_READ, error_text(error)) from error
    if not head:
        raise UnreadableVideoError(Reason.EMPTY)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    raise UnreadableVideoError(Reason.NOT_A_VIDEO, "no mp4, mov, mkv, webm or avi header")


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
        raise UnreadableVideoError(Reason.CANNOT_BE_OPENED, error_text(error)) from error


def _video_stream(container: Any) -> Any:
    # A cover picture in an audio file is a video stream of one frame; it is not a video.
    streams = [
        stream for stream in container.streams.video if "attached_pic" not in str(stream.disposition).lower()
    ]
    if not streams:
        raise UnreadableVideoError(Reason.NO_STREAM, "audio or data only")
    stream = streams[0]
    if stream.codec_context is None:
        raise UnreadableVideoError(Reason.UNKNOWN_CODEC)
    return stream


def _check_size(width: int, height: int) -> None:
    if width <= 0 or height <= 0 or width * height > MAX_PIXELS:
        raise UnreadableVideoError(Reason.IMPOSSIBLE_SIZE, f"{width}x{height}")


def _stamp(frame: Any) -> int | None:
    """Presentation time of a decoded frame in ticks of its stream; None if the container gives none."""
    return frame.pts if frame.pts is not None else frame.dts


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
            if failures >= MAX_FAILURES:
                return
            continue
        for frame in frames:
            if not frame.is_corrupt:
                yield frame

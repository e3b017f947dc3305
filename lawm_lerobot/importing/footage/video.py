"""Reading any video file safely: what it claims, and which frame is shown when.

Time. The video's own clock starts at the presentation time of its first frame. The picture at time t is the last frame
whose presentation time is <= t, which is what a player shows; so a variable-frame-rate phone video, a 24 fps film and a
60 fps action camera all come out right at any other rate, and a pause in the stream repeats the frame before it. Where
the clock jumps by seconds, the picture before the jump ends with its own duration. After a jump back, as in recordings
joined end to end, the clock goes on from there.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any, ClassVar

import av
import av.error
import numpy as np

from lawm_lerobot.importing.fitting import PictureMaker
from lawm_lerobot.importing.footage.base import GAP_S, Footage, Probe, Reading, ShownPicture
from lawm_lerobot.importing.footage.containers import open_video, outline, sniff_container
from lawm_lerobot.importing.footage.decoding import BACK_S, decoded
from lawm_lerobot.importing.footage.hardware import first_orientation, is_on_hardware, restore_colours
from lawm_lerobot.importing.reasons import Reason, UnreadableVideoError

# A frame larger than this is a wrong or hostile claim, not a camera (16K x 16K is 256 megapixels).
MAX_PIXELS = 16384 * 16384
INDEXED = ("mov", "matroska", "avi")  # containers in which a time can be looked up
ROUNDING_S = 1e-7  # more than the rounding of times in floating point
MAX_UNPROVEN_PACKETS = 2000  # a track that shows no second picture among so many of the file does not move
# Video of fewer bytes per second than this has a wrong length, more likely than not, and is small enough to be measured.
MIN_BYTES_PER_S = 2000.0


@dataclass(frozen=True)
class VideoFile(Footage):
    """A video file of any container and codec that `sniff_container` and FFmpeg know."""

    is_stream: ClassVar[bool] = True
    takes_depth: ClassVar[bool] = False
    needs_every: ClassVar[bool] = False  # of its pictures, or only those shown at the times that are read

    def probe(self) -> Probe:
        with open_video(self.path) as container:
            track, others = self._choose_track(container)
            stream = container.streams[track]
            grey = re.fullmatch(r"gray(9|1\d)[bl]e", str(stream.codec_context.pix_fmt))
            if grey and not self.takes_depth:
                raise UnreadableVideoError(Reason.DEPTH, f"grey of {grey[1]} bits")
            width, height = stream.codec_context.width, stream.codec_context.height
            if width and height:
                _check_size(width, height)
            # The first frame in decoding order need not be the first shown; a few frames settle it.
            errors: list[str] = []
            times: list[Fraction] = []
            frames = 0
            for frame, stamp, _ in decoded(container, stream, errors):
                _check_size(frame.width, frame.height)
                frames += 1
                if stamp is not None:
                    times.append(Fraction(stamp * frame.time_base))
                if frames >= 2:
                    break
            if not frames:
                _check_size(width, height)
                reason = Reason.CANNOT_BE_DECODED if errors else Reason.NO_FRAMES
                raise UnreadableVideoError(reason, errors[0] if errors else "")
            duration: float | None = None
            size = os.path.getsize(self.path)
            if stream.duration is not None and stream.duration > 0:
                duration = float(stream.duration * stream.time_base)
            elif container.duration is not None and container.duration > 0:
                duration = float(container.duration / av.time_base)
            step = _step(stream)
        claimed = duration
        if duration is not None and size < duration * MIN_BYTES_PER_S and duration > GAP_S:
            duration = self._measured_length(track, step)
        notes = [
            ["another video track", f"track {number} moves too, and is not the default one"]
            for number in others
        ]
        parts = outline(self.path)
        if parts.recordings > parts.readable:
            more = f"{parts.recordings - parts.readable} more in the file, which FFmpeg does not read"
            notes.append(["joined recordings", more])
        return Probe(
            origin=str(min(times) if times else Fraction(0)),
            duration_s=duration,
            claimed_s=claimed,
            track=track,
            one_piece=sniff_container(self.path) not in INDEXED
            or (parts.fragments and parts.recordings > 1)
            or bool(parts.begins),
            notes=notes,
        )

    def _choose_track(self, container: Any) -> tuple[int, list[int]]:
        """Number of the track that is shown, the default one among those that move, and of the others that move."""
        # A cover picture in an audio file is a video stream of one frame; it is not a video.
        streams = [
            stream
            for stream in container.streams.video
            if "attached_pic" not in str(stream.disposition).lower()
        ]
        if not streams:
            raise UnreadableVideoError(Reason.NO_STREAM, "audio or data only")
        known = [stream for stream in streams if stream.codec_context is not None]
        if not known:
            raise UnreadableVideoError(Reason.UNKNOWN_CODEC)
        known.sort(key=lambda stream: "default" not in str(stream.disposition).lower())
        numbers = [stream.index for stream in known]
        pictures = dict.fromkeys(numbers, 0)
        if len(numbers) > 1:
            with open_video(self.path) as again, contextlib.suppress(av.error.FFmpegError, OSError):
                packets = again.demux([again.streams[number] for number in numbers])
                for packet in itertools.islice(packets, MAX_UNPROVEN_PACKETS):
                    pictures[packet.stream.index] += bool(packet.size)
                    if min(pictures.values()) > 1:
                        break
        first, *rest = [number for number in numbers if pictures[number] > 1] or numbers[:1]
        return first, rest

    def _measured_length(self, track: int, step: float) -> float:
        """Seconds that the pictures are shown, from the times of the packets: jumps of the clock do not count."""
        total, usual = 0.0, min(step, GAP_S)
        last: float | None = None
        with open_video(self.path) as container, contextlib.suppress(av.error.FFmpegError, OSError):
            for packet in container.demux(container.streams[track]):
                if not packet.size:
                    continue
                passed = usual
                stamp = packet.dts if packet.dts is not None else packet.pts
                if stamp is not None:
                    time = float(stamp * packet.time_base)
                    if last is not None and 0 < time - last <= _longest(step):
                        passed = usual = time - last
                    last = time
                total += passed
        return total

    def ends_early(self, probe: Probe) -> bool:
        """True unless every picture of the index was there, another track goes on, or the file has all its parts."""
        if probe.track is None or probe.claimed_s is None:
            return False
        end, packets = 0.0, 0
        with open_video(self.path) as container, contextlib.suppress(av.error.FFmpegError, OSError):
            start = float(Fraction(probe.origin))
            indexed = container.streams[probe.track].frames
            for packet in container.demux():
                stamp = packet.pts if packet.pts is not None else packet.dts
                if stamp is None or not packet.size:
                    continue
                packets += packet.stream.index == probe.track
                end = max(end, float((stamp + (packet.duration or 0)) * packet.time_base) - start)
        claims_too_much = 0 < indexed <= packets or outline(self.path).complete
        return end < probe.claimed_s - 1.0 and not claims_too_much

    def frames(self, reading: Reading, maker: PictureMaker) -> Iterator[ShownPicture]:
        return self._shown_from(reading.start_s, reading, maker)

    def _shown_from(self, start_s: float, reading: Reading, maker: PictureMaker) -> Iterator[ShownPicture]:
        """Decode the frames that are shown from `start_s` on, after the one already shown then.

        Frames before `start_s` may come first; whoever resamples passes over them. One frame is held at a time.
        """
        reading.errors, reading.jumps = [], []
        with open_video(self.path, reading.device) as container:
            track = reading.track if reading.track is not None else self._choose_track(container)[0]
            stream = container.streams[track]
            stream.thread_type = "NONE"  # parallel over files, not within one; a thread's queue holds frames
            if start_s > 1.0:
                _seek(container, stream, start_s + float(reading.origin))
            reading.slack_s = min(max(float(stream.time_base) / 2, 1e-6), 5e-4)
            step = _step(stream)
            longest, usual = _longest(step), min(step, GAP_S)
            ticks = Fraction(stream.time_base)
            shift = round(reading.origin / ticks)
            last, joined_s, lasts = -1.0, 0.0, 0.0
            first = True
            begins = outline(self.path).begins if container.format.name == "avi" else ()
            make = self._maker_of(stream, maker)

            def seconds(stamp: int) -> float:
                # Whole ticks are exact in floating point; the division is the only rounding.
                return (stamp - shift) * ticks.numerator / ticks.denominator

            seen = None if self.needs_every else partial(_will_be_asked_for, reading, seconds)
            for frame, stamp, is_new in decoded(container, stream, reading.errors, begins, seen):
                time = max(0.0, last + step) if stamp is None else seconds(stamp) + joined_s
                if first and time > start_s + step and start_s > 1.0:
                    # The index was wrong and the seek landed too late: read from the beginning instead.
                    container.close()
                    yield from self._shown_from(0.0, reading, maker)
                    return
                if 0 < time <= reading.start_s + reading.slack_s:
                    reading.errors.clear()  # what is damaged before the stretch is not of it
                if not first and (is_new or time - last > longest or last - time > BACK_S):
                    reading.jumps.append(_jump(last, time, is_new))
                    yield reading.shown_to_s, None
                    if time < last:
                        joined_s += reading.shown_to_s - time
                        time = reading.shown_to_s
                elif time <= last:
                    continue  # a frame out of order would show an older picture later
                elif not first:
                    usual = time - last
                first = False
                last = time
                reading.frames += 1
                lasts = float(frame.duration * ticks) if frame.duration else step
                reading.shown_to_s = time + (lasts if lasts <= longest else usual)
                if reading.end_s is not None and time >= reading.end_s:
                    return
                yield time, make(frame)
            if first and (start_s > 1.0 or reading.device is not None):
                # The seek landed behind the last picture that the others are made from, or the device gives none.
                reading.device = None
                yield from self._shown_from(0.0, reading, maker)
            elif lasts > longest:
                reading.jumps.append(f"the last picture stands for {lasts:.2f} s")

    def _maker_of(self, stream: Any, maker: PictureMaker) -> Callable[[Any], Callable[[], np.ndarray]]:
        """The function that gives a frame of the stream its `maker`, with what the frame itself does not say."""
        aspect = stream.sample_aspect_ratio or Fraction(1)
        if not 0.1 < aspect < 10:
            aspect = Fraction(1)
        context, orientation = stream.codec_context, None
        if is_on_hardware(context):
            with open_video(self.path) as in_software:
                orientation = first_orientation(in_software, stream.index)

        def make(frame: Any) -> Callable[[], np.ndarray]:
            if orientation is not None:
                restore_colours(frame, context)
            return partial(maker.from_frame, frame, aspect, context.color_trc, orientation)

        return make


@dataclass(frozen=True)
class DatasetVideo(VideoFile):
    """An episode in a video file of a LeRobotDataset, read as LeRobot does: frame i is the one whose time is nearest to
    i frames after the episode's start, on the clock of the file itself.

    The times in the table and in the file need not agree to the tick: LeRobot's conversion of older datasets adds up
    the lengths that the containers claim. With a tolerance, reading ends at the first picture that is further from its
    frame's time than LeRobot would take.
    """

    first_s: float
    frame_rate: float
    tolerance_s: float | None = None

    takes_depth: ClassVar[bool] = True
    needs_every: ClassVar[bool] = True

    def probe(self) -> Probe:
        return replace(super().probe(), origin="0", notes=[])

    def frames(self, reading: Reading, maker: PictureMaker) -> Iterator[ShownPicture]:
        last = -math.inf
        # A frame of the episode may carry a time just before it.
        for time, picture in self._shown_from(reading.start_s - 1 / self.frame_rate, reading, maker):
            number = round((time - self.first_s) * self.frame_rate)
            if number > last:
                last = number
                due = self.first_s + number / self.frame_rate
                if picture is not None and number >= 0 and (reading.end_s is None or due < reading.end_s):
                    self._require_near(number, abs(time - due))
                yield due, picture

    def _require_near(self, number: int, away_s: float) -> None:
        if self.tolerance_s is not None and away_s >= self.tolerance_s:
            detail = f"picture {number} by {away_s:.4f} s: raise --source.tolerance_s"
            raise UnreadableVideoError(Reason.BESIDE_ITS_TIME, detail)


def _seek(container: Any, stream: Any, time_s: float) -> None:
    try:
        container.seek(int(time_s / stream.time_base) - 1, stream=stream, backward=True)
    except (av.error.FFmpegError, OSError):
        container.seek(0)


def _will_be_asked_for(reading: Reading, seconds: Callable[[int], float], stamp: int, following: int) -> bool:
    """True if a time that is read lies between those of a picture and of the next one, in ticks."""
    if reading.fps is None:
        return True
    since, until = (seconds(each) - reading.start_s - reading.slack_s for each in (stamp, following))
    return max(0, math.ceil((since - ROUNDING_S) * reading.fps)) / reading.fps < until + ROUNDING_S


def _jump(last: float, time: float, is_new: bool) -> str:
    way, by = ("forward", time - last) if time > last else ("back", last - time)
    jump = "another recording begins" if is_new else f"{way} by {by:.2f} s"
    return f"{jump} after {last:.2f} s"


def _step(stream: Any) -> float:
    """Usual time between two frames."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return float(1 / rate) if rate > 0 else 0.04


def _longest(step: float) -> float:
    """Longest time that a picture is shown; a time lapse shows each of them long."""
    return max(GAP_S, 5 * step)


def _check_size(width: int, height: int) -> None:
    if width <= 0 or height <= 0 or width * height > MAX_PIXELS:
        raise UnreadableVideoError(Reason.IMPOSSIBLE_SIZE, f"{width}x{height}")

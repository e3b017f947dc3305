"""From the packets of a video to its frames, past whatever is damaged."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import av
import av.error

from lawm_lerobot.importing.footage.skipping import IsSeen, skip_unseen
from lawm_lerobot.importing.reasons import error_text

MAX_FAILURES = 200  # packets in a row; nothing but garbage follows
BACK_S = 0.5  # frames out of order by less are dropped one by one; more is a clock that starts again


def _undiscarded(packet: Any, stream: Any) -> list[Any]:
    """Decode a packet that the mp4 demuxer marks as cut away, since the recording before it was at the same times."""
    copy = av.Packet(bytes(packet))
    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
    return stream.codec_context.decode(copy)


def decoded(
    container: Any,
    stream: Any,
    errors: list[str],
    begins: Sequence[int] = (),
    is_seen: IsSeen | None = None,
) -> Iterator[tuple[Any, int | None, bool]]:
    """Decode packet by packet, so that one damaged packet costs its own frames and not the rest of the file.

    Yields frames with their presentation time in ticks of the stream, None if the container gives none, and whether the
    frame is the first after one of the bytes `begins`. AVI has no such times: its packets are numbered in coding order,
    so the k-th frame shown has the k-th smallest of the numbers. Frames that nobody sees by `is_seen` may be missing.
    """
    ahead = list(begins)
    packets = container.demux(stream)
    failures = 0
    numbered = container.format.name == "avi"
    if is_seen is not None and not numbered:
        packets = skip_unseen(packets, stream.codec_context, is_seen)
    waiting: list[int] = []
    last: int | None = None
    joined = is_new = False
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as error:
            errors.append(error_text(error))
            return
        passed = sum(packet.pos is not None and packet.pos >= place for place in ahead)
        del ahead[:passed]
        if passed or _goes_back(last, packet):
            # A recording that was joined on begins: the decoder gives out the old one and forgets it.
            old: list[Any] = []
            with contextlib.suppress(av.error.FFmpegError):
                old = stream.codec_context.decode(None)
            stream.codec_context.flush_buffers()
            joined = True
            for frame, stamp in _stamped(old, waiting, errors):
                yield frame, stamp, is_new
                is_new = False
            is_new = is_new or bool(passed)
        if joined:
            stream.codec_context.skip_frame = "DEFAULT"  # `is_seen` knows the clock of the first recording
        last = last if packet.dts is None else packet.dts
        if numbered and packet.dts is not None and packet.size:
            heapq.heappush(waiting, packet.dts)
        try:
            frames = _undiscarded(packet, stream) if joined and packet.is_discard else packet.decode()
            failures = 0
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, ValueError) as error:
            errors.append(error_text(error))
            if numbered and packet.dts in waiting:
                waiting.remove(packet.dts)
                heapq.heapify(waiting)
            failures += 1
            if failures >= MAX_FAILURES:
                return
            continue
        for frame, stamp in _stamped(frames, waiting, errors):
            yield frame, stamp, is_new
            is_new = False


def _goes_back(last: int | None, packet: Any) -> bool:
    if last is None or packet.dts is None:
        return False
    return bool((last - packet.dts) * packet.time_base > BACK_S)


def _stamped(
    frames: Iterable[Any], waiting: list[int], errors: list[str]
) -> Iterator[tuple[Any, int | None]]:
    """Yield decoded frames with their times, the smallest of `waiting` if there are any; damaged ones are errors."""
    for frame in frames:
        stamp = frame.pts if frame.pts is not None else frame.dts
        if waiting:
            stamp = heapq.heappop(waiting)
        if frame.is_corrupt:
            errors.append("a picture is damaged")
        else:
            yield frame, stamp

"""Pictures that a lower frame rate never shows are not decoded, where no other picture is made from them.

Which ones are needed by others is the decoder's to know: of the H.264 and HEVC that most encoders write, every second or
third picture is not. Whether a picture is seen depends on when the next one comes, which the packets ahead tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import av.error

#: A function of the time at which a picture begins to be shown and that of the next one, in ticks.
type IsSeen = Callable[[int, int], bool]

AHEAD = 17  # packets; a picture stands at most 16 places before or after its packet (H.264, HEVC)
# A picture is decoded at least this often: where none comes for longer, the clock is taken to jump.
LONGEST_S = 0.5


def skip_unseen(packets: Iterator[Any], context: Any, is_seen: IsSeen) -> Iterator[Any]:
    """Yield all packets, and have the decoder `context` skip those that nobody sees and no other picture needs."""
    able = _knows_what_is_needed(context)
    kept: deque[int] = deque(maxlen=2 * AHEAD)
    for packet, following in _with_following(packets):
        skipped = able and following is not None and not is_seen(packet.pts, following)
        if skipped:
            before = max((time for time in kept if time < packet.pts), default=None)
            skipped = before is not None and (packet.pts - before) * packet.time_base < LONGEST_S
        if not skipped and packet.pts is not None:
            kept.append(packet.pts)
        context.skip_frame = "NONREF" if skipped else "DEFAULT"
        yield packet


def _knows_what_is_needed(context: Any) -> bool:
    """True for H.264, and for HEVC without temporal layers: higher ones may need what their own layer does not."""
    header = context.extradata or b""
    if context.name == "hevc":
        # Byte 21 of an mp4's or mkv's header, which begins with a 1, has the number of layers.
        return len(header) > 21 and header[0] == 1 and header[21] >> 3 & 7 <= 1
    return bool(context.name == "h264")


def _with_following(packets: Iterator[Any]) -> Iterator[tuple[Any, int | None]]:
    """Pair each packet with the time in ticks at which the next picture is shown, None where it is not known."""
    behind: deque[int] = deque(maxlen=AHEAD)
    ahead: deque[Any] = deque()
    last: int | None = None
    fault: Exception | None = None
    try:
        for packet in packets:
            if packet.pts is None or packet.dts is None or (last is not None and packet.dts <= last):
                # The file ends, or another recording begins: its times say nothing about those before.
                yield from ((each, None) for each in ahead)
                behind.clear()
                ahead.clear()
            last = packet.dts
            ahead.append(packet)
            if len(ahead) > AHEAD:
                first = ahead.popleft()
                times = (*behind, *(each.pts for each in ahead))
                yield first, min((time for time in times if time > first.pts), default=None)
                behind.append(first.pts)
    except (av.error.FFmpegError, OSError) as error:
        fault = error
    yield from ((each, None) for each in ahead)
    if fault is not None:
        raise fault

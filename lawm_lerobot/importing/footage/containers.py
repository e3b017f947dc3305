"""Opening a video file safely.

The container is recognised by its first bytes and opened with that demuxer only. FFmpeg's own guess would also accept
play lists and concatenation scripts, and those can name any other file or address.
"""

from __future__ import annotations

import collections
import io
import os
import stat
from dataclasses import dataclass
from typing import Any

import av
import av.error
from av.codec.hwaccel import HWAccel

from lawm_lerobot.importing.reasons import Reason, UnreadableVideoError, error_text

# FFmpeg's demuxer, and the place and the bytes by which a file is known to need it.
MARKS: tuple[tuple[str, int, tuple[bytes, ...]], ...] = (
    ("mov", 4, (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")),
    ("matroska", 0, (b"\x1a\x45\xdf\xa3",)),
    ("avi", 0, (b"RIFF",)),
    ("asf", 0, (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",)),
    ("flv", 0, (b"FLV\x01",)),
    ("mpeg", 0, (b"\x00\x00\x01\xba",)),
    ("mpegvideo", 0, (b"\x00\x00\x01\xb3",)),
    ("gif", 0, (b"GIF87a", b"GIF89a")),
    ("ogg", 0, (b"OggS",)),
    ("ivf", 0, (b"DKIF",)),
    ("mxf", 0, (b"\x06\x0e\x2b\x34",)),
    ("rm", 0, (b".RMF",)),
    ("yuv4mpegpipe", 0, (b"YUV4MPEG2",)),
)
# Not for the streams: FFmpeg finds some only after it has read on, for which PyAV has made no room.
LOCAL_FILES = {"protocol_whitelist": "file,crypto,data"}
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
RECORDING, CONTINUATION = b"AVI ", b"AVIX"
OUTERMOST = (EBML, SEGMENT, RECORDING, CONTINUATION)
MAX_PARTS = 100_000  # of a file that are looked at


def sniff_container(path: str) -> str:
    """Return the FFmpeg demuxer for the file's first bytes, or raise an `UnreadableVideoError`."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnreadableVideoError(Reason.NOT_A_FILE)
        with open(path, "rb") as file:
            head = file.read(5 * 192)
    except PermissionError as error:
        raise UnreadableVideoError(Reason.NO_PERMISSION) from error
    except FileNotFoundError as error:
        raise UnreadableVideoError(Reason.NOT_FOUND) from error
    except OSError as error:
        raise UnreadableVideoError(Reason.CANNOT_BE_READ, error_text(error)) from error
    if not head:
        raise UnreadableVideoError(Reason.EMPTY)
    for demuxer, at, marks in MARKS:
        if head[at:].startswith(marks) and (demuxer != "avi" or head[8:12] == b"AVI "):
            return demuxer
    # Packets of 188 bytes, in .m2ts and .mts with four more in front of each.
    for size, at in ((188, 0), (192, 4)):
        packets = head[at::size]
        if len(packets) > 2 and not packets.strip(b"G"):
            return "mpegts"
    raise UnreadableVideoError(Reason.NOT_A_VIDEO, "the first bytes are of no container of video")


@dataclass(frozen=True)
class Outline:
    """The outermost parts of a file.

    Args:
        recordings: Number of recordings, each with a header of its own; 0 in containers that are not looked into.
        readable: Number of those that FFmpeg reads.
        fragments: True for an mp4 in fragments, which are read one after the other.
        complete: True if the file is as long as its parts say.
        begins: Places in bytes where recordings begin into which FFmpeg reads on with the clock of the one before, as
            in AVI.
    """

    recordings: int
    readable: int
    fragments: bool
    complete: bool
    begins: tuple[int, ...] = ()


def outline(path: str) -> Outline:
    """Read the outermost parts of an mp4, mov, mkv, webm or avi file."""
    container = sniff_container(path)
    read_part = {"mov": _box, "avi": _riff}.get(container, _element)
    found: collections.Counter[bytes] = collections.Counter()
    begins: list[int] = []
    open_end = container == "mov"
    place, end = 0, os.path.getsize(path)
    with open(path, "rb") as file:
        while place < end and found.total() < MAX_PARTS:
            file.seek(place)
            name, size = read_part(file.read(16))
            if not size or not (open_end or name in OUTERMOST):
                break
            # What is streamed to a file has a segment of no known size, so that its parts come next.
            open_end = open_end or (name == SEGMENT and size <= 12)
            found[name] += 1
            if name == RECORDING:
                begins.append(place)
            place += size
        file.seek(-min(end, 4096), os.SEEK_END)
        tail = file.read()
    # A download that was broken off may have its full size, with nothing but zeros from somewhere on.
    complete = place == end and any(tail)
    if container == "mov":
        fragments = bool(found[b"moof"])
        return Outline(found[b"moov"], found[b"moov"] if fragments else 1, fragments, complete)
    if container == "avi":
        return Outline(len(begins), len(begins), False, complete, tuple(begins[1:]))
    # Where a recording knows its size, FFmpeg reads one more and stops.
    return Outline(found[EBML], found[EBML] if open_end else 2, False, complete)


def _box(head: bytes) -> tuple[bytes, int]:
    """Name and size of a part of an mp4 file; size 0 if it cannot be told."""
    size = int.from_bytes(head[:4])
    if size == 1:
        size = int.from_bytes(head[8:16])
    return head[4:8], size if size >= 8 else 0


def _riff(head: bytes) -> tuple[bytes, int]:
    """Name and size of a part of an avi file; size 0 if it cannot be told."""
    size = int.from_bytes(head[4:8], "little")
    return head[8:12], 8 + size + size % 2 if head.startswith(b"RIFF") else 0


def _element(head: bytes) -> tuple[bytes, int]:
    """Name and size of a part of an mkv file, of its head alone if its size is not known; 0 if it cannot be told."""
    named = _bytes_of_number(head)
    sized = _bytes_of_number(head[named:])
    if named > 4 or len(head) < named + sized:
        return b"", 0
    unknown = (1 << 7 * sized) - 1
    size = int.from_bytes(head[named : named + sized]) & unknown
    return head[:named], named + sized + (0 if size == unknown else size)


def _bytes_of_number(head: bytes) -> int:
    """Length of a number of an mkv file: the zeros before its first bit say it. More than 8 is no such number."""
    return 9 - head[0].bit_length() if head else 9


def open_video(path: str, device: str | None = None) -> Any:
    """Open `path` with the demuxer its bytes call for, local files only, to be decoded by `device` if it takes the codec.

    The caller closes it.
    """
    demuxer = sniff_container(path)
    # PyAV encodes names as UTF-8; a name that is not UTF-8 is passed as an open file instead.
    try:
        path.encode("utf-8")
        target: Any = os.path.abspath(path)
    except UnicodeEncodeError:
        target = io.FileIO(path)
    hardware = None if device is None else HWAccel(device)
    try:
        return av.open(target, format=demuxer, container_options=LOCAL_FILES, hwaccel=hardware)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if device is not None:
            return open_video(path)  # the device may be busy, and the file as good as any
        raise UnreadableVideoError(Reason.CANNOT_BE_OPENED, error_text(error)) from error

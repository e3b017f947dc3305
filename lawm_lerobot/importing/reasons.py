"""Reasons for leaving something out of an import."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """A reason in the words of the summary. A source adds reasons of its own as plain text: nothing compares these."""

    # A path that cannot be opened.
    NOT_A_FILE = "not a regular file"
    NO_PERMISSION = "no read permission"
    NOT_FOUND = "file not found"
    CANNOT_BE_READ = "cannot be read"
    EMPTY = "empty file"
    NOT_A_VIDEO = "not a video"
    CANNOT_BE_OPENED = "cannot be opened"
    # A video without pictures that could be shown.
    NO_STREAM = "no video stream"
    UNKNOWN_CODEC = "unknown video codec"
    DEPTH = "depth maps"
    IMPOSSIBLE_SIZE = "claims an impossible picture size"
    ODD_ROTATION = "rotated by less than a quarter turn"
    CANNOT_BE_DECODED = "cannot be decoded"
    CRASHED = "crashed the decoder"
    NO_FRAMES = "no frames"
    ONE_FRAME = "one frame only"
    # A stretch that holds no episode, or less than was promised.
    STARTS_TOO_LATE = "starts after the end of the video"
    TOO_SHORT = "shorter than --min_episode_s"
    NO_MOTION = "no motion above --min_motion"
    BREAKS_OFF = "the video breaks off"
    DAMAGED = "damaged"
    BESIDE_ITS_TIME = "pictures beside their frames' times"
    CLOCK_JUMPS = "its clock jumps, or pictures are missing"
    # An entry of a source's own files.
    NOT_AN_ID = "not a video id"
    UNUSABLE_TIMES = "unusable time range"
    LEADS_OUT = "leads out of the source folder"


def in_part(reason: str) -> str:
    """Words of the summary for footage of which a part was imported."""
    return f"imported in part: {reason}"


class UnreadableVideoError(Exception):
    """A video that cannot be imported."""

    def __init__(self, reason: Reason, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


def error_text(error: BaseException) -> str:
    """One line of an error, without the file's path (the summary names the file already)."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())

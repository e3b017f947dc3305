"""Decoding on hardware, by FFmpeg's names for it: cuda, videotoolbox, vaapi and so on."""

from __future__ import annotations

import contextlib
from typing import Any

import av
import av.error
from av.codec.hwaccel import HWAccel, hwdevices_available

from lawm_lerobot.importing.fitting import Orientation, display_orientation


def known_devices() -> list[str]:
    """Names of the kinds of hardware that this PyAV was built for."""
    return list(hwdevices_available())


def works(device: str) -> bool:
    """True if this machine has the device, and it decodes H.264 or HEVC."""
    for codec in ("h264", "hevc"):
        with contextlib.suppress(av.error.FFmpegError):
            if av.CodecContext.create(codec, "r", hwaccel=HWAccel(device)).is_hwaccel:
                return True
    return False


def is_on_hardware(context: Any) -> bool:
    """True if frames of this decoder may come from the hardware."""
    return bool(context.is_hwaccel)


def first_orientation(container: Any, track: int) -> Orientation:
    """Which way up the video is, from the first frame of a container that is decoded in software."""
    for frame in container.decode(container.streams[track]):
        return display_orientation(frame)
    return Orientation()


def restore_colours(frame: Any, context: Any) -> None:
    """Tell a frame its matrix and range: PyAV takes it from the hardware with its time and nothing else."""
    frame.colorspace, frame.color_range = context.colorspace, context.color_range

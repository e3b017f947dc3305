"""The interface of footage. It is plain data that travels to worker processes, which load neither LeRobot nor torch."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

import numpy as np

from lawm_lerobot.importing.fitting import PictureMaker

#: A time on the footage's own clock in seconds, and the function that makes the picture shown from then on. None in its
#: place means that nothing is shown until the next one, which begins something new.
type ShownPicture = tuple[float, Callable[[], np.ndarray] | None]

# A pause up to this long repeats the picture before it. In a longer one the clock has jumped, or recording had stopped.
GAP_S = 2.0


@dataclass(frozen=True)
class Probe:
    """The claims of footage about itself, or the reason why it cannot be read.

    Args:
        origin: Presentation time of the first frame in seconds, as a fraction.
        duration_s: Length in seconds, measured if the claim is unlikely; None if the footage does not say.
        claimed_s: Time at which the footage ends as it says itself.
        track: Number of the video track that is read; None if the footage has no tracks.
        one_piece: True if entering the footage in the middle could miss a part of it.
        notes: Reason and detail of each part of the file that is passed over.
        state: Size and time of change of the file when it was probed.
    """

    origin: str = "0"
    duration_s: float | None = None
    claimed_s: float | None = None
    reason: str | None = None
    detail: str = ""
    track: int | None = None
    one_piece: bool = False
    notes: list[list[str]] = field(default_factory=list)
    state: list[int] = field(default_factory=list)


@dataclass
class Reading:
    """One pass over a stretch of footage: first what is asked for, then what the pass has learned besides the pictures.

    Args:
        fps: Number of pictures per second, from `start_s` on, that will be asked for; None if it may be any.
        device: Hardware that decodes, as FFmpeg names it; None for the processor.
        origin: Presentation time of the footage's first frame.
        track: Number of the video track, as its probe found it.
        shown_to_s: Time at which the last decoded frame stops being shown.
        frames: Number of decoded frames.
        sampled: Number of pictures taken from them at the dataset's frame rate.
        slack_s: Rounding of the container's times. A frame due at t may carry a time just after t; half a tick settles
            it, while more than half a millisecond (AVI's tick is a whole frame) would show frames early.
        errors: Texts of the decoder's errors.
        jumps: Places where the footage's clock jumps, in words.
    """

    start_s: float
    end_s: float | None
    origin: Fraction = Fraction(0)
    track: int | None = None
    fps: int | None = None
    device: str | None = None
    shown_to_s: float = 0.0
    frames: int = 0
    sampled: int = 0
    slack_s: float = 1e-6
    errors: list[str] = field(default_factory=list)
    jumps: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Footage(abc.ABC):
    """Pictures in the order of time.

    Args:
        path: Absolute path of a file or folder. One path is probed once, however many segments are cut from it.
    """

    path: str

    #: Footage that can be entered in the middle, so that several workers share it, and that may end too early.
    is_stream: ClassVar[bool] = False

    @abc.abstractmethod
    def probe(self) -> Probe:
        """Read what the footage claims about itself; an `UnreadableVideoError` if it cannot be imported."""

    @abc.abstractmethod
    def frames(self, reading: Reading, maker: PictureMaker) -> Iterator[ShownPicture]:
        """Yield the frames that are shown within the stretch, and at least the one already shown at its start.

        Times are strictly increasing. Pictures that are not needed are never made, and memory does not depend on the
        length.
        """

    def length(self, probe: Probe) -> float | None:
        """Length in seconds; None if it is not known before everything is decoded."""
        return probe.duration_s

    def ends_early(self, probe: Probe) -> bool:
        """True if something is missing of footage that was read to its end and is shorter than it says."""
        return False

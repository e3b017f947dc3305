"""From frames with times to pictures at the dataset's frame rate, with still stretches left out on request."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np

from lawm_lerobot.importing.footage import Reading, ShownPicture

STILL_STRETCH_S = 1.0  # a still stretch shorter than this is a pause within an action and stays
MOTION_SPAN_S = 0.5  # motion is judged against the picture this long ago, so that slow motion counts


def on_grid(
    shown: Iterable[ShownPicture], times: Iterator[float], reading: Reading
) -> Iterator[tuple[float, np.ndarray] | None]:
    """Yield the picture shown at each of `times`: the last one whose time is <= t, up to the container's rounding.

    None marks a cut. Times at which nothing is shown are passed over.
    """
    wanted = next(times, None)
    for picture, until in _with_ends(shown, reading):
        if picture is None:
            yield None
        made: np.ndarray | None = None
        while wanted is not None and wanted < until - reading.slack_s:
            if picture is None:
                wanted = next(times, None)
                continue
            made = picture() if made is None else made
            reading.sampled += 1
            yield wanted, made
            wanted = next(times, None)
        if wanted is None:
            return


def _with_ends(
    shown: Iterable[ShownPicture], reading: Reading
) -> Iterator[tuple[Callable[[], np.ndarray] | None, float]]:
    """Pair each picture, or None between two of them, with the time at which it stops being shown."""
    held: Callable[[], np.ndarray] | None = None
    begun = False
    for time, picture in shown:
        if begun:
            yield held, time
        held, begun = picture, True
    if held is not None:
        end = reading.shown_to_s
        yield held, end if reading.end_s is None else min(reading.end_s, end)


def without_still_stretches(
    pictures: Iterable[tuple[float, np.ndarray] | None], fps: int, min_motion: float
) -> Iterator[tuple[float, np.ndarray] | None]:
    """Leave out stretches of at least a second without motion; None marks the cut.

    Motion is the mean absolute difference of 32x32 grey pictures half a second apart, 0 to 1. Only the still pictures
    of the last second are held back, so memory stays bounded.
    """
    span, patience = max(1, round(MOTION_SPAN_S * fps)), max(1, round(STILL_STRETCH_S * fps))
    history: deque[np.ndarray] = deque(maxlen=span)
    waiting: deque[tuple[float, np.ndarray]] = deque()
    removing = False
    for sample in pictures:
        if sample is None:
            if not removing:
                yield from waiting
            yield None
            history.clear()
            waiting.clear()
            removing = False
            continue
        time, image = sample
        grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
        small = grey.astype(np.float32) / 255.0
        moving = bool(history) and float(np.abs(small - history[0]).mean()) >= min_motion
        history.append(small)
        if moving:
            if removing:
                yield None
            else:
                yield from waiting
            removing = False
            waiting.clear()
            yield time, image
        elif removing:
            continue
        else:
            waiting.append((time, image))
            if len(waiting) >= patience:
                removing = True
                waiting.clear()
    if not removing:
        yield from waiting

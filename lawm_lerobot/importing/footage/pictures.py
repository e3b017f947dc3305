"""Pictures that are stored one by one, in a folder or in a table."""

from __future__ import annotations

import abc
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from lawm_lerobot.importing.fitting import PictureMaker
from lawm_lerobot.importing.footage.base import GAP_S, Footage, Probe, Reading, ShownPicture
from lawm_lerobot.importing.reasons import Reason, UnreadableVideoError, error_text

PREFIX = "im_"
EXTENSIONS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class StoredPictures(Footage):
    """Pictures at a constant rate per second."""

    frame_rate: float

    @abc.abstractmethod
    def images(self) -> Iterable[tuple[int, Callable[[], np.ndarray]]]:
        """Numbers of the pictures, from 0, with functions that load them as (h, w, 3) uint8 RGB, in order."""

    def frames(self, reading: Reading, maker: PictureMaker) -> Iterator[ShownPicture]:
        reading.jumps = []
        longest = max(GAP_S, 5 / self.frame_rate)
        last = -1
        for index, load in self.images():
            time = index / self.frame_rate
            missing = index - last - 1
            if missing:
                reading.jumps.append(f"{missing} missing after picture {last}")
            if (index - last) / self.frame_rate > longest:
                yield reading.shown_to_s, None
            if reading.end_s is not None and time >= reading.end_s:
                return
            last = index
            reading.frames += 1
            reading.shown_to_s = (index + 1) / self.frame_rate
            yield time, partial(_load_and_fit, load, maker)


def _load_and_fit(load: Callable[[], np.ndarray], maker: PictureMaker) -> np.ndarray:
    return maker.from_image(load())


@dataclass(frozen=True)
class NumberedPictures(StoredPictures):
    """The pictures im_<number>.jpg of a folder in the order of their numbers (im_2 before im_10). A gap takes its time."""

    def probe(self) -> Probe:
        try:
            files = self._files()
        except OSError as error:
            raise UnreadableVideoError(Reason.CANNOT_BE_READ, error_text(error)) from error
        if not files:
            raise UnreadableVideoError(Reason.NO_FRAMES, "no im_<number>.jpg in the folder")
        length_s = (files[-1][0] + 1) / self.frame_rate
        return Probe(duration_s=length_s, claimed_s=length_s)

    def images(self) -> Iterable[tuple[int, Callable[[], np.ndarray]]]:
        return [(number, partial(_read_image, path)) for number, path in self._files()]

    def _files(self) -> list[tuple[int, str]]:
        numbered = []
        for name in os.listdir(self.path):
            stem, extension = os.path.splitext(name)
            match = re.fullmatch(rf"{PREFIX}([0-9]+)", stem)
            if match and extension.lower() in EXTENSIONS:
                numbered.append((int(match[1]), name))
        numbered.sort()
        return [(number - numbered[0][0], os.path.join(self.path, name)) for number, name in numbered]


def _read_image(path: str) -> np.ndarray:
    """(h, w, 3) uint8 RGB, turned as its EXIF data says."""
    try:
        data = np.frombuffer(Path(path).read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise UnreadableVideoError(Reason.CANNOT_BE_READ, error_text(error)) from error
    return decode_image(data, os.path.basename(path))


def decode_image(data: np.ndarray, name: str) -> np.ndarray:
    """Encoded picture bytes -> (h, w, 3) uint8 RGB."""
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise UnreadableVideoError(Reason.CANNOT_BE_DECODED, f"{name} is not a picture")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@dataclass(frozen=True)
class ParquetPictures(StoredPictures):
    """One episode's pictures, rows `from_row` up to `to_row` in a table of a LeRobotDataset that holds many episodes."""

    column: str
    from_row: int
    to_row: int

    def probe(self) -> Probe:
        return Probe()

    def length(self, probe: Probe) -> float | None:
        return (self.to_row - self.from_row) / self.frame_rate

    def images(self) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        import pyarrow.parquet as pq

        row = 0
        for batch in pq.ParquetFile(self.path).iter_batches(batch_size=64, columns=[self.column]):
            for value in batch.column(0):
                if self.from_row <= row < self.to_row:
                    data = np.frombuffer(value["bytes"].as_py() or b"", dtype=np.uint8)
                    yield row - self.from_row, partial(decode_image, data, f"row {row}")
                row += 1
            if row >= self.to_row:
                return

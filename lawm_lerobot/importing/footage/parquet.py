"""Pictures in the rows of a LeRobotDataset's data file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from lawm_lerobot.importing.footage.base import Probe
from lawm_lerobot.importing.footage.pictures import StoredPictures, decode_image


@dataclass(frozen=True)
class ParquetPictures(StoredPictures):
    """One episode's pictures in a table that holds many episodes.

    Args:
        column: Image feature.
        from_row: First row of the episode within the file.
        to_row: Row after its last one.
    """

    column: str
    from_row: int
    to_row: int

    def probe(self) -> Probe:
        return Probe()

    def length(self, probe: Probe) -> float | None:
        return (self.to_row - self.from_row) / self.frame_rate

    def images(self) -> Iterator[Callable[[], np.ndarray]]:
        import pyarrow.parquet as pq

        row = 0
        for batch in pq.ParquetFile(self.path).iter_batches(batch_size=64, columns=[self.column]):
            for value in batch.column(0):
                if self.from_row <= row < self.to_row:
                    data = np.frombuffer(value["bytes"].as_py() or b"", dtype=np.uint8)
                    yield partial(decode_image, data, f"row {row}")
                row += 1
            if row >= self.to_row:
                return

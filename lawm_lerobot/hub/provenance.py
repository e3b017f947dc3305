"""The sidecar of an imported dataset that says where each of its episodes came from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PROVENANCE_PATH = "meta/lawm_provenance.parquet"
PROVENANCE_SCHEMA = pa.schema(
    [
        ("episode_index", pa.int64()),
        ("source", pa.string()),
        ("source_path", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("caption", pa.string()),
        ("caption_source", pa.string()),
        ("license_note", pa.string()),
    ]
)


def write_provenance(rows: list[dict[str, Any]], root: Path) -> None:
    """Write the sidecar that says where each episode came from."""
    pq.write_table(pa.Table.from_pylist(rows, schema=PROVENANCE_SCHEMA), root / PROVENANCE_PATH)


def read_provenance(root: Path) -> list[dict[str, Any]]:
    """Rows of the sidecar, one per episode."""
    return pq.read_table(root / PROVENANCE_PATH).to_pylist()


def merged_provenance(roots: list[Path]) -> Iterator[dict[str, Any]]:
    """Sidecars of several datasets as one, numbered as LeRobot's aggregation numbers the episodes."""
    offset = 0
    for root in roots:
        rows = read_provenance(root)
        for row in rows:
            yield {**row, "episode_index": row["episode_index"] + offset}
        offset += len(rows)

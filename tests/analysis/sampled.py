"""Samples made by hand, in seconds, and the file that holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

S = 1_000_000_000
SCHEMA = pa.schema(
    [
        *(("run", pa.int32()), ("time", pa.int64()), ("source", pa.string()), ("name", pa.string())),
        *(("labels", pa.string()), ("kind", pa.string()), ("value", pa.float64())),
    ]
)
Row = dict[str, Any]


def rows(
    name: str,
    values: dict[float, float],
    *,
    source: str = "server",
    number: int = 0,
    kind: str = "gauge",
    **labels: str,
) -> list[Row]:
    """Samples of one series; values by time in seconds."""
    text = json.dumps(labels, sort_keys=True)
    common = {"run": number, "source": source, "name": name, "labels": text, "kind": kind}
    return [{**common, "time": round(at * S), "value": value} for at, value in values.items()]


def write(path: Path, told: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(told, SCHEMA), path)
    return path

"""Files that exist whole or not at all: written under another name, then renamed.

Whatever the moment of a crash, a file that has its name can be read. On a full disk the unfinished file is removed,
because its space is needed most.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["whole", "write_tables", "write_text"]


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """The path of a file that becomes `path` when the block ends. On OSError it is removed; `path` stays as it was."""
    partial = path.with_suffix(".tmp")
    try:
        yield partial
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Replace `path`. Raises OSError."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_tables(path: Path, open_: Callable[[Path], pq.ParquetWriter], tables: Iterable[pa.Table]) -> int:
    """The number of rows written to `path`, each of `tables` as a row group. Raises OSError."""
    rows = 0
    with whole(path) as partial, open_(partial) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(table.num_rows, 1))
            rows += table.num_rows
    return rows

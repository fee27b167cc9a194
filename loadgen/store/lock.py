"""One process at a time makes runs in a directory: a second one would drop or replace the runs just measured.

The lock is the system's own, on the folder itself: it leaves no file, and ends with the process however that ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadgen.errors import UsageError

__all__ = ["held"]

NO_LOCKS = (
    errno.ENOLCK,
    errno.ENOTSUP,
    errno.EINVAL,
)  # file systems without locks; there the directory is taken to be free


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold the lock of `directory`. Raises UsageError if another process holds it, OSError if there is no directory."""
    folder = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{directory}: another loadgen is measuring into it; wait until it has ended") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        os.close(folder)

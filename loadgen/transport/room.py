"""Room for sockets: the process's limit and table of open files, before the run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource

__all__ = ["make_room_for_sockets"]

SPARE_FILES = 64
PLENTY_OF_FILES = 65_536


def make_room_for_sockets(wanted: int) -> None:
    """Let this process hold `wanted` sockets, and more if that costs nothing: an open loop may need any number.

    Raises OSError, in words, if the system does not allow it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = max(wanted + SPARE_FILES, min(PLENTY_OF_FILES, hard if hard != resource.RLIM_INFINITY else PLENTY_OF_FILES))
    if soft < need and soft != resource.RLIM_INFINITY:
        if hard != resource.RLIM_INFINITY and hard < need:
            words = f"{wanted} connections need {wanted + SPARE_FILES} open files, the limit is {hard} (ulimit -n)"
            raise OSError(words)
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
    # Linux doubles a table that is full, and in a process of several threads waits for the other processors to notice:
    # 10 to 30 ms at the 256th socket, the 512th and so on, in which nothing is read. So it grows before the run, if
    # the system lets it: the run is right without.
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = PLENTY_OF_FILES if allowed == resource.RLIM_INFINITY else min(allowed, PLENTY_OF_FILES)
    with contextlib.suppress(OSError), open(os.devnull, "rb") as file:
        os.close(fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, last - 1))

"""The true timing of the emulator's answers: one line of JSON per finished request, appended to a file.

Lines are buffered and written when the server is about to sleep or the buffer is large, so the log costs no system
call on the path of a token, and memory does not grow with the number of requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

__all__ = ["Truth", "TruthLog", "read_truth"]

BUFFER_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Truth:
    """One request as the server saw it. Every *_ns instant is CLOCK_MONOTONIC of the host."""

    request_id: str  # the X-Request-Id header, else "#<seq>"
    seq: int  # order of arrival at the emulator, over all its instances
    instance: int
    path: str
    status: int
    arrived_ns: int  # the kernel's stamp of the last byte of the request
    head_ns: int | None  # just before the first byte of the answer was given to the kernel
    token_ns: tuple[int, ...]  # just before the send of each token-bearing event
    done_ns: int  # the last send, or the moment the connection was lost
    first_due_ns: int  # the deadline by the law; 0 if the request did not get so far
    last_due_ns: int
    queue_ns: int
    load_ns: int
    prefill_ns: int
    input_tokens: int
    output_tokens: int  # the number really sent
    fault: str | None
    cached_tokens: int  # of the prompt, which cost no prefill
    complete: bool  # the whole answer, terminal marker included, was given to the kernel


class TruthLog:
    """Append-only writer."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._lines: list[bytes] = []
        self._bytes = 0

    def add(self, entry: dict[str, object]) -> None:
        """Keep an entry for the next flush."""
        line = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes > BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the buffered entries."""
        if self._lines:
            self._file.write(b"".join(self._lines))
            self._lines.clear()
            self._bytes = 0

    def close(self) -> None:
        """Write the rest and close."""
        self.flush()
        self._file.close()


def read_truth(path: str | Path) -> dict[str, Truth]:
    """The log by request id, in order of completion. Where an id repeats, the last one stays."""
    entries: dict[str, Truth] = {}
    for line in Path(path).read_bytes().splitlines():
        fields = orjson.loads(line)
        fields["token_ns"] = tuple(fields["token_ns"])
        entries[fields["request_id"]] = Truth(**fields)
    return entries

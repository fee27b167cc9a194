"""Each request without its tokens: one array per column, one element per request.

First of the two passes over the records. It reads no event list, so it is quick, and its result (which requests
count, over which window) decides what the second pass, tokens.py, has to gather.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from analysis.records.frame import Frame
from loadgen.record import Int32, Int64, Outcome

__all__ = ["ABSENT", "Bool", "Failure", "Requests", "read_requests"]

Bool = NDArray[np.bool_]

ABSENT = np.iinfo(np.int64).min  # null in an int64 column: no stamp and no count can be that
ERROR_CHARACTERS = 200  # of a server's error text; the first line says it
ERROR_KINDS = 1000  # distinct errors kept apart; a server that numbers its errors must not fill the memory

_INT64 = (
    *("run", "seq", "intended_ns", "connect_ns", "sent_ns", "headers_ns", "done_ns"),
    *("input_tokens", "output_tokens", "stale_connections"),
)
_NAMES = ("endpoint", "agent", "outcome", "tokens_from")
_COLUMNS = (*_INT64, *_NAMES, "status", "error")


@dataclass(frozen=True, slots=True)
class Failure:
    """A kind of failure: the outcome, the status of the answer, if any, and the server's or the client's error text."""

    outcome: str
    status: int | None
    error: str


@dataclass(frozen=True, slots=True)
class Requests:
    """n requests. Every array has shape (n,), in the order of the records; *_ns on the clock of the request's run."""

    run: Int64
    seq: Int64
    intended_ns: Int64
    connect_ns: Int64  # ABSENT on a reused connection
    sent_ns: Int64  # ABSENT if never sent
    headers_ns: Int64
    done_ns: Int64
    input_tokens: Int64
    output_tokens: Int64
    stale_connections: Int64
    endpoint: Int32  # index into endpoints; likewise below
    agent: Int32
    outcome: Int32
    tokens_from: Int32
    endpoints: tuple[str, ...]
    agents: tuple[str, ...]
    outcomes: tuple[str, ...]
    tokens_froms: tuple[str, ...]
    failures: Counter[Failure]

    def __len__(self) -> int:
        return len(self.run)

    def ended(self, *outcomes: Outcome) -> Bool:
        """Whether each request ended in one of `outcomes`, shape (n,)."""
        wanted = [index for index, name in enumerate(self.outcomes) if name in outcomes]
        ended: Bool = np.isin(self.outcome, wanted)
        return ended

    @property
    def ok(self) -> Bool:
        return self.ended(Outcome.OK)

    def counted_tokens(self) -> Bool:
        """Whether each request has a true output token count, not one made by counting events; shape (n,)."""
        events = [index for index, name in enumerate(self.tokens_froms) if name in ("events", "")]
        counted: Bool = (self.output_tokens != ABSENT) & ~np.isin(self.tokens_from, events)
        return counted


class _Codes:
    """Strings to small integers, in order of appearance."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def encode(self, column: pa.Array) -> Int32:
        encoded = column.fill_null("").dictionary_encode()
        table = np.array([self._codes.setdefault(name, len(self._codes)) for name in encoded.dictionary.to_pylist()])
        indices = encoded.indices.to_numpy(zero_copy_only=False)
        return table.astype(np.int32)[indices] if len(indices) else np.empty(0, np.int32)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._codes)


def read_requests(frame: Frame) -> Requests:
    """The columns that have one value per request."""
    columns: dict[str, list[NDArray[np.generic]]] = {name: [] for name in (*_INT64, *_NAMES)}
    codes = {name: _Codes() for name in _NAMES}
    failures: Counter[Failure] = Counter()
    for batch in frame.batches(_COLUMNS):
        for name in _INT64:
            columns[name].append(_int64(batch.column(name)))
        for name in _NAMES:
            columns[name].append(codes[name].encode(batch.column(name)))
        _count_failures(batch, failures)
    joined = {
        name: np.concatenate(parts) if parts else np.empty(0, np.int64 if name in _INT64 else np.int32)
        for name, parts in columns.items()
    }
    names = {f"{name}s": codes[name].names for name in _NAMES}
    return Requests(**joined, **names, failures=failures)  # type: ignore[arg-type]


def _int64(column: pa.Array) -> Int64:
    return np.asarray(column.cast(pa.int64()).fill_null(ABSENT).to_numpy(zero_copy_only=False), dtype=np.int64)


def _count_failures(batch: pa.RecordBatch, failures: Counter[Failure]) -> None:
    failed = batch.filter(pc.fill_null(pc.not_equal(batch.column("outcome"), Outcome.OK.value), True))
    outcomes, statuses, errors = (failed.column(name).to_pylist() for name in ("outcome", "status", "error"))
    for outcome, status, error in zip(outcomes, statuses, errors, strict=True):
        failure = Failure(outcome or "", status, (error or "")[:ERROR_CHARACTERS])
        if failure not in failures and len(failures) >= ERROR_KINDS:
            failure = Failure(outcome or "", status, "(further distinct errors)")
        failures[failure] += 1

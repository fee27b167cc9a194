"""Samples taken beside a run while it is measured: GPU, host, loadgen's own processes, the servers' own metrics.

A *source* is read at intervals; each read gives values with one time on the clock of the records (a `Look`). Names and
units are Prometheus's (base units, `_ratio` from 0 to 1); those of servers and exporters are kept as reported.
`labels` is a JSON object with sorted keys, so that equal labels are equal text.

A source that does not exist (`Absent`) is reported in words and is no error. A source that goes away (`Lost`) is
reported and ends; a source that does not answer this time (`Missed`) is counted and read again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from loadgen.clock import now_ns
from loadgen.manifest import SourceFact

__all__ = ["Absent", "Look", "Lost", "Missed", "Source", "Value", "blocking", "labelled"]


class Absent(Exception):
    """There is no such source here; the message is the reason, in one line.

    expected: this is the ordinary case, which need not be reported while the campaign runs.
    """

    def __init__(self, reason: str, *, expected: bool = False) -> None:
        super().__init__(reason)
        self.expected = expected


class Lost(Exception):
    """The source existed and will not come back."""


class Missed(Exception):
    """No answer this time."""


class Value(NamedTuple):
    """One value of one series. A counter only grows; only its differences have a meaning."""

    name: str
    labels: str
    value: float
    counter: bool = False


class Look(NamedTuple):
    """The values of one read of a source. time_ns: monotonic, the middle of the read."""

    time_ns: int
    values: Sequence[Value]


async def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Source:
    """A source of samples. facts: those that do not change while it is read, for the manifest.

    read: raises Lost or Missed. at_most_every_s: the shortest harmless interval, whatever the profile states.
    """

    name: str
    read: Callable[[], Awaitable[Look]]
    facts: Mapping[str, SourceFact] = field(default_factory=dict)
    close: Callable[[], Awaitable[None]] = _nothing
    at_most_every_s: float = 0.0


def labelled(**labels: object) -> str:
    """The text of the column `labels`."""
    return json.dumps({name: str(value) for name, value in sorted(labels.items())}, ensure_ascii=False)


def blocking(read: Callable[[], Sequence[Value]]) -> Callable[[], Awaitable[Look]]:
    """A `read` of a source out of a function that waits for a driver or the kernel: it runs in a thread."""

    def timed() -> Look:
        before = now_ns()
        values = read()
        return Look((before + now_ns()) // 2, values)

    async def look() -> Look:
        return await asyncio.to_thread(timed)

    return look

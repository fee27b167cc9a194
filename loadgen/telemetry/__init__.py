"""What stands around a run while it is measured: GPU, host, our own processes, the servers' own metrics.

A *source* is looked at again and again; each look gives values with one time on the clock of the records. Names and
units are Prometheus's (base units, `_ratio` from 0 to 1); those of servers and exporters are kept as they are told.
`labels` is a JSON object with sorted keys, so that equal labels are equal text.

A source that is not there (`Absent`) is told in words and is no error. One that goes away (`Lost`) is told and ends;
one that does not answer this time (`Missed`) is counted and asked again.
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
    """There is no such source here; the message says why, in one line.

    expected: nobody will be surprised, so it need not be said while others wait for results.
    """

    def __init__(self, reason: str, *, expected: bool = False) -> None:
        super().__init__(reason)
        self.expected = expected


class Lost(Exception):
    """The source was there and will not come back."""


class Missed(Exception):
    """No answer this time."""


class Value(NamedTuple):
    """One value of one series. A counter only grows; what counts is how much."""

    name: str
    labels: str
    value: float
    counter: bool = False


class Look(NamedTuple):
    """What one look at a source gave. time_ns: monotonic, the middle of the look."""

    time_ns: int
    values: Sequence[Value]


async def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Source:
    """read: raises Lost or Missed. facts: what does not change while it is read, for the manifest.

    at_most_every_s: how often it may be looked at without doing harm, whatever the profile says.
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
    """Make a look of a function that waits for a driver or the kernel: it runs in a thread."""

    def timed() -> Look:
        before = now_ns()
        values = read()
        return Look((before + now_ns()) // 2, values)

    async def look() -> Look:
        return await asyncio.to_thread(timed)

    return look

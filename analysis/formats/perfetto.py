"""A run's directory as a trace in the trace-event format, for Perfetto and chrome://tracing.

Requests, their tokens and the telemetry on one time axis. A process per endpoint and agent, a thread per lane: two
requests share a lane if they do not overlap. A request's slice runs from when it was due to its end and holds slices
of its stages. Times are µs from the first run's zero, all runs on the one monotonic clock; a run whose
start is not in the manifest is put behind the one before.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow.parquet as pq

from analysis.records.frame import Frame, load
from analysis.records.requests import ABSENT, Requests, read_requests
from loadgen import latency
from loadgen.record import Int64

__all__ = ["write_trace"]

Event = dict[str, Any]

MOST_TOKENS = 500_000  # instants in a trace; of a longer run, only the requests and the rate of tokens
RATE_BIN_NS = 100_000_000
LOAD, TELEMETRY = 1, 1000  # process ids: of the load's counters, and of the first source of telemetry
COLUMNS = ("run", "seq", "agent", "endpoint", "outcome", "error", "event_ns", "event_kind", "output_tokens")


def write_trace(directory: str | Path, file: TextIO) -> int:
    """The number of requests in the trace of a run's directory, which is written to `file`. Raises NoRecordsError."""
    frame = load(directory)
    requests = read_requests(frame)
    zeros = _zeros(frame, requests)
    file.write('{"displayTimeUnit": "ns", "traceEvents": [\n')
    separator = ""
    for event in _events(frame, requests, zeros, Path(directory)):
        file.write(separator + json.dumps(event, ensure_ascii=False, separators=(",", ":")))
        separator = ",\n"
    file.write("\n]}\n")
    return len(requests)


def _events(frame: Frame, requests: Requests, zeros: Mapping[int, int], directory: Path) -> Iterator[Event]:
    shift = np.array([zeros[run] for run in requests.run.tolist()], np.int64)
    yield _named("process_name", LOAD, 0, "load")
    yield from _in_flight(requests, shift)
    yield from _requests(frame, requests, shift)
    telemetry = directory / "telemetry.parquet"
    if telemetry.is_file():
        yield from _telemetry(telemetry, zeros)


def _zeros(frame: Frame, requests: Requests) -> dict[int, int]:
    """The position of each run's zero on the trace's axis, ns: {run: position}."""
    starts = {run.run: run.start_ns for run in frame.manifest.runs if run.start_ns is not None}
    first, zeros, end = min(starts.values(), default=0), {}, 0
    for run in sorted({*starts, *np.unique(requests.run).tolist()}):
        zeros[run] = starts[run] - first if run in starts else end
        of_run = requests.run == run
        end = zeros[run] + int(
            max(requests.done_ns[of_run].max(initial=0), requests.intended_ns[of_run].max(initial=0))
        )
    return zeros


def _in_flight(requests: Requests, shift: Int64) -> Iterator[Event]:
    flown = (requests.sent_ns != ABSENT) & (requests.done_ns != ABSENT)
    began, ended = (requests.sent_ns + shift)[flown], (requests.done_ns + shift)[flown]
    times = np.concatenate([ended, began])
    steps = np.repeat([-1, 1], len(began))
    order = np.lexsort((steps, times))
    for at, level in zip(times[order].tolist(), np.cumsum(steps[order]).tolist(), strict=True):
        yield _counter(LOAD, "requests in flight", at, level)


def _requests(frame: Frame, requests: Requests, shift: Int64) -> Iterator[Event]:
    lanes = _lanes(requests, shift)
    processes: dict[tuple[str, str], int] = {}
    rate: dict[int, int] = {}
    tokens, row = 0, 0
    for batch in frame.batches(COLUMNS):
        for record in batch.to_pylist():
            who = record["endpoint"], record["agent"]
            if who not in processes:
                processes[who] = LOAD + 1 + len(processes)
                yield _named("process_name", processes[who], 0, " · ".join(part for part in who if part))
            bearing = latency.bears_token(np.array(record["event_kind"], np.uint8))
            stamps = (np.array(record["event_ns"], np.int64)[bearing] + shift[row]).tolist()
            place = processes[who], int(lanes[row])
            yield from _slices(requests, row, int(shift[row]), record, stamps, place)
            tokens += len(stamps)
            if tokens <= MOST_TOKENS:
                for stamp in stamps:
                    yield {"ph": "i", "s": "t", "name": "token", "cat": "token", **_at(place, stamp)}
            for stamp in stamps:
                rate[stamp // RATE_BIN_NS] = rate.get(stamp // RATE_BIN_NS, 0) + 1
            row += 1
    for bin_ in range(min(rate, default=0), max(rate, default=-1) + 2):
        yield _counter(LOAD, "token events per second", bin_ * RATE_BIN_NS, rate.get(bin_, 0) * 1e9 / RATE_BIN_NS)


def _slices(
    requests: Requests, row: int, shift: int, record: Mapping[str, Any], stamps: list[int], place: tuple[int, int]
) -> Iterator[Event]:
    due = int(requests.intended_ns[row]) + shift
    sent, done = (None if at == ABSENT else int(at) + shift for at in (requests.sent_ns[row], requests.done_ns[row]))
    end = max(at for at in (due, sent, done) if at is not None)
    arguments = {"outcome": record["outcome"], "output_tokens": record["output_tokens"], "error": record["error"]}
    name = f"{record['run']}-{record['seq']}"
    yield _slice(
        "request", name, place, due, end, {key: value for key, value in arguments.items() if value is not None}
    )
    if sent is None:
        return
    if sent > due:
        yield _slice("part", "queue", place, due, sent)
    first, last = (stamps[0], stamps[-1]) if stamps else (end, end)
    yield _slice("part", "first token", place, sent, first)
    if last > first:
        yield _slice("part", "tokens", place, first, last)


def _lanes(requests: Requests, shift: Int64) -> Int64:
    """The lowest lane per request that is free from when it was due until it ended; shape (n,)."""
    begin = requests.intended_ns + shift
    end = np.maximum(np.where(requests.done_ns == ABSENT, requests.intended_ns, requests.done_ns) + shift, begin)
    lanes = np.zeros(len(requests), np.int64)
    free: dict[tuple[int, int], list[int]] = {}
    busy: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row in np.argsort(begin, kind="stable").tolist():
        who = int(requests.endpoint[row]), int(requests.agent[row])
        taken, idle = busy.setdefault(who, []), free.setdefault(who, [])
        while taken and taken[0][0] <= begin[row]:
            heapq.heappush(idle, heapq.heappop(taken)[1])
        lanes[row] = heapq.heappop(idle) if idle else len(taken)
        heapq.heappush(taken, (int(end[row]), int(lanes[row])))
    return lanes


def _telemetry(path: Path, zeros: Mapping[int, int]) -> Iterator[Event]:
    processes: dict[str, int] = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["run", "time", "source", "name", "labels", "value"]):
            for sample in batch.to_pylist():
                if sample["run"] not in zeros:
                    continue
                source = sample["source"]
                if source not in processes:
                    processes[source] = TELEMETRY + len(processes)
                    yield _named("process_name", processes[source], 0, source)
                name = f"{sample['name']} {sample['labels']}".strip()
                yield _counter(processes[source], name, sample["time"] + zeros[sample["run"]], sample["value"])


def _slice(
    kind: str, name: str, place: tuple[int, int], begin: int, end: int, arguments: Mapping[str, Any] | None = None
) -> Event:
    event = {"ph": "X", "cat": kind, "name": name, **_at(place, begin), "dur": (end - begin) / 1e3}
    return event | {"args": dict(arguments)} if arguments else event


def _counter(process: int, name: str, at: int, value: float) -> Event:
    return {"ph": "C", "name": name, **_at((process, 0), at), "args": {"value": value}}


def _named(what: str, process: int, thread: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}


def _at(place: tuple[int, int], at: int) -> Event:
    return {"pid": place[0], "tid": place[1], "ts": at / 1e3}

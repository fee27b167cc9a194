"""The trace of a run, held against the trace-event format and the records it came from."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.formats.perfetto import write_trace
from tests.analysis.handmade import directory, request, run

NEEDED = {
    "X": {"name", "cat", "pid", "tid", "ts", "dur"},
    "i": {"name", "cat", "pid", "tid", "ts", "s"},
    "C": {"name", "pid", "tid", "ts", "args"},
    "M": {"name", "pid", "tid", "args"},
}


def trace(path: Path) -> list[dict[str, Any]]:
    text = io.StringIO()
    write_trace(path, text)
    events: list[dict[str, Any]] = json.loads(text.getvalue())["traceEvents"]
    for event in events:
        assert event.keys() - {"args"} >= NEEDED[event["ph"]] - {"args"}, event
        assert event.get("dur", 0) >= 0
    return events


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event.get("cat") == kind]


def test_a_query_gives_the_number_of_requests_and_tokens(tmp_path: Path) -> None:
    rows = [request(10 * i, (10 * i + 50, 10 * i + 70, 10 * i + 90), sent=10 * i + 1) for i in range(25)]
    rows.append(request(300, outcome="refused", done=301, error="connection refused"))
    events = trace(directory(tmp_path, rows))
    assert len(of(events, "request")) == 26
    assert len(of(events, "token")) == 75
    refused = [event for event in of(events, "request") if event["args"]["outcome"] == "refused"]
    assert [event["args"]["error"] for event in refused] == ["connection refused"]


def test_a_request_is_cut_into_what_it_waited_for(tmp_path: Path) -> None:
    events = trace(directory(tmp_path, [request(100, (150, 170, 210), sent=120)]))
    (whole,) = of(events, "request")
    assert (whole["ts"], whole["dur"]) == (100_000, 110_000)
    parts = [(event["name"], event["ts"], event["dur"]) for event in of(events, "part")]
    assert parts == [("queue", 100_000, 20_000), ("first token", 120_000, 30_000), ("tokens", 150_000, 60_000)]


def test_slices_of_a_lane_do_not_overlap_and_lanes_are_as_few_as_can_be(tmp_path: Path) -> None:
    rows = [request(7 * i, (7 * i + 20 + i % 3,)) for i in range(40)]
    lanes = defaultdict(list)
    for event in of(trace(directory(tmp_path, rows)), "request"):
        lanes[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert len(lanes) == 4  # the longest lasts 22 ms, one begins every 7
    for slices in lanes.values():
        ends = [end for _, end in sorted(slices)]
        assert all(end <= begin for end, (begin, _) in zip(ends, sorted(slices)[1:], strict=False))


def test_endpoints_and_agents_are_processes_of_their_own(tmp_path: Path) -> None:
    rows = [request(0, (5,), agent="collector"), request(0, (5,), agent="insight"), request(0, (5,), endpoint="b")]
    events = trace(directory(tmp_path, rows))
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {"load", "a · collector", "a · insight", "b"}
    assert len({event["pid"] for event in of(events, "request")}) == 3


def test_runs_and_telemetry_share_the_axis(tmp_path: Path) -> None:
    rows = [request(10, (20,), run=0), request(10, (20,), run=1)]
    path = directory(tmp_path, rows, runs=[run(0, start_ns=5_000_000_000), run(1, start_ns=8_000_000_000)])
    samples = [{"run": 1, "time": 15_000_000, "source": "gpu", "name": "power_watts", "labels": "", "value": 90.0}]
    pq.write_table(pa.Table.from_pylist(samples), path / "telemetry.parquet")
    events = trace(path)
    assert [event["ts"] for event in of(events, "request")] == [10_000, 3_010_000]
    (power,) = [event for event in events if event["name"] == "power_watts"]
    assert (power["ts"], power["args"]["value"]) == (3_015_000, 90.0)


@pytest.mark.parametrize("n", [1, 30])
def test_in_flight_rises_and_falls_to_nothing(tmp_path: Path, n: int) -> None:
    events = trace(directory(tmp_path, [request(i, (100 + i,)) for i in range(n)]))
    levels = [event["args"]["value"] for event in events if event["name"] == "requests in flight"]
    assert (max(levels), levels[-1]) == (n, 0)

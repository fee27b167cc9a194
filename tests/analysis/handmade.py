"""Records made by hand, in milliseconds, and a run's directory to hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import analysis
from loadgen.record import Kind

MS = 1_000_000
CONTENT = int(Kind.CONTENT)

LISTS = {"event_ns": pa.int64(), "event_tokens": pa.int32(), "event_kind": pa.uint8(), "event_read": pa.int32()}
INTS = {
    **dict.fromkeys(("run", "turn", "input_tokens", "output_tokens", "cached_tokens", "status"), pa.int32()),
    **{"seq": pa.int64(), "stale_connections": pa.int32()},
}
STRINGS = ("agent", "endpoint", "session", "tokens_from", "outcome", "error", "finish_reason", "prompt_sha")
COLUMNS = [
    *("run", "seq", "agent", "endpoint", "session", "turn", "intended_ns", "sent_ns", "sent_last_ns", "connect_ns"),
    *("connected_ns", "headers_ns", "done_ns", "event_ns", "event_tokens", "event_kind", "event_read"),
    *("input_tokens", "output_tokens", "cached_tokens", "tokens_from", "outcome", "status", "error", "finish_reason"),
    *("server_load_ns", "server_prompt_eval_ns", "server_eval_ns", "server_queue_ns", "stale_connections"),
    "prompt_sha",
]


def _type(name: str) -> pa.DataType:
    if name in LISTS:
        return pa.list_(LISTS[name])
    return pa.string() if name in STRINGS else INTS.get(name, pa.int64())


# The journal's schema, written down a second time on purpose: these are the columns that analysis promises to read.
SCHEMA = pa.schema([(name, _type(name)) for name in COLUMNS])


def request(
    intended: float = 0.0,
    tokens_at: Sequence[float] = (),
    *,
    sent: float | None = None,
    done: float | None = None,
    reads: Sequence[int] | None = None,
    kinds: Sequence[int] | None = None,
    counts: Sequence[int] | None = None,
    output: int | None = None,
    **others: Any,
) -> dict[str, Any]:
    """One row. Times in ms; sent, done and reads default to intended, the last event and a read an event."""
    sent = intended if sent is None else sent
    done = (tokens_at[-1] if len(tokens_at) else sent) if done is None else done
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"run": 0, "seq": 0, "agent": "", "endpoint": "a", "outcome": "ok", "stale_connections": 0}
    row |= {
        "intended_ns": round(intended * MS),
        "sent_ns": round(sent * MS),
        "done_ns": round(done * MS),
        "event_ns": [round(at * MS) for at in tokens_at],
        "event_kind": list(kinds) if kinds is not None else [CONTENT] * len(tokens_at),
        "event_read": list(reads) if reads is not None else list(range(len(tokens_at))),
        "event_tokens": None if counts is None else list(counts),
        "output_tokens": output,
        "tokens_from": "usage" if output is not None else None,
        "input_tokens": 10,
    }
    return row | others


def directory(
    path: Path,
    rows: Sequence[dict[str, Any]],
    *,
    runs: Sequence[dict[str, Any]] | None = None,
    tier: str = "kernel",
    objectives: dict[str, float] | None = None,
    load: dict[str, Any] | None = None,
    instrument: dict[str, Any] | None = None,
    **manifest: Any,
) -> Path:
    """Write a finished run's directory. Rows without a `seq` of their own are numbered as they stand."""
    path.mkdir(parents=True, exist_ok=True)
    write(path / "records.parquet", rows)
    told = {
        "profile": {"objectives": objectives or {}, "load": load or {"arrivals": "closed", "concurrency": 1}},
        "targets": [{"name": "a", "url": "http://localhost:8000", "api": "openai", "model": "tiny"}],
        "instrument": {"tier": tier, "workers": 1, "calibration": None, "cpu_share": 0.1, **(instrument or {})},
        "runs": list(runs) if runs is not None else [run()],
        **manifest,
    }
    (path / "manifest.json").write_text(json.dumps(told))
    return path


def run(number: int = 0, measured: tuple[float, float] = (0, 1_000_000), **others: Any) -> dict[str, Any]:
    """One entry of the manifest's runs; the window in ms."""
    entry = {"run": number, "start_ns": 0, "wall_start": "2025-01-01T00:00:00Z", "open_loop": False}
    entry |= {"measured_from_ns": round(measured[0] * MS), "measured_to_ns": round(measured[1] * MS)}
    return entry | {"interrupted": False} | others


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    numbered = [row | {"seq": row["seq"] or index} for index, row in enumerate(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(numbered, schema=SCHEMA), path)


def chat(n=300, seed=1, endpoints=("a",), failures=True):
    """An open loop with a bit of everything: several tokens an event, shared reads, failures, missing counts."""
    rng = np.random.default_rng(seed)
    rows, due = [], 0.0
    for i in range(n):
        due += float(rng.exponential(20))
        where = endpoints[i % len(endpoints)]
        if failures and i % 60 == 59:
            rows.append(
                request(due, outcome="http_error", status=503, error="over capacity", done=due + 5, endpoint=where)
            )
            continue
        size = int(rng.integers(2, 40))
        at = due + 60 * rng.lognormal(0, 0.3) + np.append(0, np.cumsum(20 * rng.lognormal(0, 0.2, size - 1)))
        reads = np.arange(size)
        if i % 50 == 7:
            at[1], reads[1] = at[0], reads[0]
        rows.append(request(due, at.tolist(), reads=reads.tolist(), output=size, sent=due + 0.1, endpoint=where))
    return rows


OPEN = {"load": {"arrivals": "poisson", "rate_per_s": 50}, "runs": [run(open_loop=True, measured=(500, 6000))]}


def plain(section: object) -> Any:
    """A section of a summary as JSON has it."""
    return msgspec.json.decode(msgspec.json.encode(section))


def mapping_of(source: Any) -> dict[str, Any]:
    """The summary as JSON has it, for tests of readers that are not typed yet."""
    return dict(plain(analysis.summarise(source)))

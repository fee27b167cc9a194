"""The calls that the agents of a campaign made, in the solo arms and in the concurrent one: one element per call.

An arm with one agent is that agent's solo arm, the primary one is the concurrent one; other arms (a control) are left
out. Calls of an agent are numbered within their run, so that the same number in a solo run and in a concurrent
one is the same work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.records import arms
from analysis.records.frame import Frame
from analysis.records.requests import ABSENT, Bool, read_requests
from analysis.records.tokens import read_tokens
from loadgen import latency
from loadgen.manifest import Manifest
from loadgen.record import Int64

__all__ = ["Calls", "agents_of", "read_calls"]

Float64 = NDArray[np.float64]

_REPORTED = (
    "sent_last_ns",
    "connected_ns",
    "server_load_ns",
    "server_prompt_eval_ns",
    "server_eval_ns",
    "server_queue_ns",
)


@dataclass(frozen=True, slots=True)
class Calls:
    """n calls of finished runs, ordered by run, agent and time. Arrays of shape (n,); ABSENT where not known."""

    row: Int64  # place in the records
    run: Int64
    block: Int64  # ABSENT where the run has none
    agent: Int64  # index into agents
    endpoint: Int64  # index into endpoints
    turn: Int64  # place among the calls of its agent in its run
    concurrent: Bool  # else solo
    ok: Bool
    intended_ns: Int64
    sent_ns: Int64
    sent_last_ns: Int64
    first_ns: Int64  # first and last token
    last_ns: Int64
    done_ns: Int64
    input_tokens: Int64
    output_tokens: Int64  # as counted by the server or a tokenizer, ABSENT if only events were counted
    first_tokens: Int64  # in the first event, 1 where not reported
    events: Int64  # that bore tokens
    server_load_ns: Int64
    server_prompt_eval_ns: Int64
    server_eval_ns: Int64
    server_queue_ns: Int64
    agents: tuple[str, ...]
    endpoints: tuple[str, ...]
    failures: Mapping[int, str]  # run: the outcome of its first failed call

    def __len__(self) -> int:
        return len(self.run)

    def only(self, chosen: Bool) -> Calls:
        """The chosen calls. chosen: shape (n,)."""
        whole = ("agents", "endpoints", "failures")
        return replace(self, **{f.name: getattr(self, f.name)[chosen] for f in fields(self) if f.name not in whole})

    def ttft(self) -> Float64:
        """TTFT from the intended start, ns; NaN where there was no token or the call failed."""
        return _where_known(latency.ttft, self.intended_ns, self.first_ns, self.ok)

    def ttft_service(self) -> Float64:
        """TTFT from the sending, ns; NaN where there was no token or the call failed."""
        return _where_known(latency.ttft_service, self.sent_ns, self.first_ns, self.ok)

    def tpot(self) -> Float64:
        """TPOT, ns; NaN where tokens were not counted."""
        usable = self.ok & (self.output_tokens != ABSENT) & (self.last_ns > self.first_ns)
        usable &= latency.has_tpot(self.events, self.output_tokens, self.first_tokens)
        first_ns, last_ns = (np.where(usable, stamps, 0) for stamps in (self.first_ns, self.last_ns))
        tokens, first_tokens = np.where(usable, self.output_tokens, 1), np.where(usable, self.first_tokens, 0)
        return np.where(usable, latency.tpot(first_ns, last_ns, tokens, first_tokens), np.nan)


def agents_of(manifest: Manifest) -> tuple[str, ...]:
    """The names of the agents, in the order of the manifest."""
    return tuple(agent.name for agent in manifest.crew)


def read_calls(frame: Frame) -> Calls:
    """Read the calls of solo and concurrent arms. Runs that did not come to their end are left out."""
    manifest = frame.manifest
    names = agents_of(manifest)
    kinds = _runs(manifest)
    requests = read_requests(frame)
    tokens, _, _ = read_tokens(frame, requests, np.zeros(len(requests), np.bool_))
    codes = np.array([names.index(name) if name in names else -1 for name in requests.agents], np.int64)
    agent = codes[requests.agent] if len(requests) else np.empty(0, np.int64)
    reported = _reported_columns(frame)
    row = np.flatnonzero(np.isin(requests.run, list(kinds)) & (agent >= 0))
    start = np.where(requests.sent_ns == ABSENT, requests.intended_ns, requests.sent_ns)
    row = row[np.lexsort((requests.seq[row], start[row], agent[row], requests.run[row]))]
    run = requests.run[row]
    output = np.where(requests.counted_tokens(), requests.output_tokens, tokens.counted)
    blocks = {entry.run: ABSENT if entry.block is None else entry.block for entry in manifest.runs}
    failures: dict[int, str] = {}
    for number, outcome in zip(run.tolist(), requests.outcome[row].tolist(), strict=True):
        if requests.outcomes[outcome] != "ok":
            failures.setdefault(number, requests.outcomes[outcome])
    return Calls(
        row=row,
        run=run,
        block=np.array([blocks[number] for number in run.tolist()], np.int64),
        agent=agent[row],
        endpoint=requests.endpoint[row].astype(np.int64),
        turn=_turns(run, agent[row]),
        concurrent=np.array([kinds[number] for number in run.tolist()], np.bool_),
        ok=requests.ok[row],
        intended_ns=requests.intended_ns[row],
        sent_ns=requests.sent_ns[row],
        sent_last_ns=reported["sent_last_ns"][row],
        first_ns=tokens.first_ns[row],
        last_ns=tokens.last_ns[row],
        done_ns=requests.done_ns[row],
        input_tokens=requests.input_tokens[row],
        output_tokens=output[row],
        first_tokens=np.where(tokens.first_tokens == ABSENT, 1, tokens.first_tokens)[row],
        events=tokens.events[row],
        server_load_ns=reported["server_load_ns"][row],
        server_prompt_eval_ns=reported["server_prompt_eval_ns"][row],
        server_eval_ns=reported["server_eval_ns"][row],
        server_queue_ns=reported["server_queue_ns"][row],
        agents=names,
        endpoints=tuple(requests.endpoints),
        failures=failures,
    )


def _runs(manifest: Manifest) -> dict[int, bool]:
    """{run: whether concurrent} of the finished runs of solo and concurrent arms."""
    members = {arm.name: arm.agents for arm in manifest.planned_design.arms}
    primary, everyone = arms.primary(manifest), agents_of(manifest)
    runs = {}
    for entry in manifest.runs:
        if not entry.whole:
            continue
        arm = arms.arm_of(manifest, entry.run)
        if arm == primary or arm is None:
            runs[entry.run] = True
        elif len(members.get(arm, ())) == 1 and members[arm][0] in everyone:
            runs[entry.run] = False
    return runs


def _turns(run: Int64, agent: Int64) -> Int64:
    """The place of each call within its run and agent; both sorted by (run, agent)."""
    if not len(run):
        return np.empty(0, np.int64)
    begins = np.flatnonzero(np.append(True, (run[1:] != run[:-1]) | (agent[1:] != agent[:-1])))
    return np.arange(len(run)) - np.repeat(begins, np.diff(np.append(begins, len(run))))


def _reported_columns(frame: Frame) -> dict[str, Int64]:
    """The columns of stamps and of durations that a server reports, shape (n,), ns; ABSENT where there is none."""
    parts: dict[str, list[Int64]] = {name: [np.empty(0, np.int64)] for name in _REPORTED}
    for batch in frame.batches(_REPORTED):
        for name in _REPORTED:
            column = batch.column(name).cast(pa.int64()).fill_null(ABSENT)
            parts[name].append(np.asarray(column.to_numpy(zero_copy_only=False), np.int64))
    return {name: np.concatenate(columns) for name, columns in parts.items()}


def _where_known(duration: Callable[[Int64, Int64], Int64], start: Int64, end: Int64, usable: Bool) -> Float64:
    """The duration of each usable call, ns; NaN where the call is not usable or one of its ends is not known."""
    has_both = usable & (start != ABSENT) & (end != ABSENT)
    return np.where(has_both, duration(np.where(has_both, start, 0), np.where(has_both, end, 0)), np.nan)

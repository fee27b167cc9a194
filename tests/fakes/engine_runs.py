"""One run of the engine in virtual time, from a plan to the records it kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from loadgen.clock import NS_PER_S
from loadgen.engine.engine import Engine
from loadgen.engine.health import Health
from loadgen.engine.plan import Plan
from loadgen.record import Outcome, Record
from loadgen.wire import Ask
from tests.fakes.scripted import ScriptedTransport, Serve
from tests.fakes.virtual import START_NS, VirtualLoop, run_virtually

__all__ = ["Ran", "closed", "opened", "run_engine"]

ZERO_NS = START_NS + NS_PER_S  # runs begin a second after they are prepared


def ask(seq: int) -> Ask:
    return Ask(prompt=f"request {seq}", output_tokens=1)


def closed(steps: Sequence[tuple[float, int]], *, requests: int = 1_000_000, **more: Any) -> Plan:
    """A closed loop; steps are (from this second, this many workers)."""
    steps_ns = [(round(at_s * NS_PER_S), workers) for at_s, workers in steps]
    return replace(Plan(run=3, zero_ns=ZERO_NS, seqs=range(requests), steps=steps_ns), **more)


def opened(offsets_ns: Sequence[int], **more: Any) -> Plan:
    """An open loop."""
    return replace(
        Plan(run=3, zero_ns=ZERO_NS, seqs=range(len(offsets_ns)), offsets_ns=np.array(offsets_ns, np.int64)), **more
    )


@dataclass
class Ran:
    """What a run left. `error` is what `Engine.run` raised."""

    records: list[Record] = field(default_factory=list)
    transports: list[ScriptedTransport] = field(default_factory=list)
    health: Health = field(default_factory=Health)
    error: BaseException | None = None

    @property
    def seqs(self) -> list[int]:
        return sorted(record.seq for record in self.records)

    @property
    def outcomes(self) -> list[Outcome]:
        return [record.outcome for record in sorted(self.records, key=lambda r: r.seq)]

    def assert_one_record_each(self) -> None:
        """Every request that was begun has one record, and nothing else has one."""
        assert self.seqs == sorted(seen.seq for transport in self.transports for seen in transport.served)


def run_engine(
    patch: pytest.MonkeyPatch,
    plan: Plan,
    serve: Serve | Callable[[VirtualLoop], Serve],
    *,
    endpoints: int = 1,
    deal: Sequence[int] = (0,),
    ask: Callable[[int], Ask] = ask,
    keep: Callable[[Record], None] | None = None,
    at: Sequence[tuple[float, Callable[[Engine, Ran], None]]] = (),
    makes_server: bool = False,
    agents: Sequence[str] = ("",),
    hear: Callable[[int, str], None] | None = None,
) -> Ran:
    """Run `plan` to its end. agents: one a client, dealt over the endpoints.

    keep: called before a record counts as kept. at: (second of the run, what to do then).
    makes_server: `serve` wants the loop and returns what serves.
    """

    async def main(loop: VirtualLoop) -> Ran:
        ran = Ran()
        server = serve(loop) if makes_server else serve  # type: ignore[arg-type]
        ran.transports = [ScriptedTransport(server, loop) for _ in range(endpoints)]  # type: ignore[arg-type]
        clients = [
            ran.transports[i % endpoints].client(f"endpoint-{i % endpoints}", agents[i % len(agents)])
            for i in range(max(endpoints, len(agents)))
        ]

        def kept(record: Record) -> None:
            if keep is not None:
                keep(record)
            ran.records.append(record)

        engine = Engine(plan, clients, deal, ask, kept, hear=hear)
        for second, action in at:
            loop.call_at((ZERO_NS + round(second * NS_PER_S)) / NS_PER_S, action, engine, ran)
        try:
            ran.health = await engine.run()
        except Exception as error:
            ran.error = error
        assert engine.in_flight == 0
        return ran

    return run_virtually(patch, main)

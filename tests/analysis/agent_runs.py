"""Campaigns of agents made by hand: who called when, and how fast the answer came. Times in ms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.analysis.handmade import directory, request, run

NAMES = ("collector", "insight")


@dataclass(frozen=True)
class Call:
    """One call: TTFT and gap in ms; its tokens are one an event."""

    sent: float
    ttft: float
    gap: float
    tokens: int = 11
    intended: float | None = None
    others: Mapping[str, Any] | None = None

    @property
    def done(self) -> float:
        return self.sent + self.ttft + self.gap * (self.tokens - 1)

    def at(self, endpoint: str) -> Call:
        return replace(self, others={**(self.others or {}), "endpoint": endpoint})


Calls = Mapping[str, Sequence[Call]]  # by agent


def one_after_the_other(start: float, *shapes: tuple[float, float, int], **others: Any) -> list[Call]:
    """Calls of one agent that follow each other at once. shapes: (TTFT, gap, tokens)."""
    calls = []
    for ttft, gap, tokens in shapes:
        calls.append(Call(start, ttft, gap, tokens, others=others))
        start = calls[-1].done
    return calls


def campaign(path: Path, blocks: Sequence[Mapping[str, Calls]], names: Sequence[str] = NAMES, **manifest: Any) -> Path:
    """Write a finished campaign. blocks: {arm: {agent: calls}}, in order; arms are "solo:NAME" and "concurrent"."""
    rows: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    for block, runs in enumerate(blocks):
        for arm, by_agent in runs.items():
            number = len(entries)
            for agent, calls in by_agent.items():
                rows += [_row(number, agent, turn, call) for turn, call in enumerate(calls)]
            entries.append(run(number, block=block, arm=arm))
    arms: list[dict[str, Any]] = [{"name": f"solo:{name}", "agents": [name]} for name in names]
    arms.append({"name": "concurrent", "agents": list(names)})
    planned = [[block, arm["name"]] for block in range(len(blocks)) for arm in arms]
    design = {"arms": arms, "primary": "concurrent", "blocks": len(blocks), "planned": planned, "order": "fixed"}
    agents = [{"name": name, "endpoint": "a", "options": {}, "workload": "two-stage", "think_ms": 0} for name in names]
    told: dict[str, Any] = {"design": design, "agents": agents, "permits": len(names), "scenario": "chimera_homo"}
    return directory(path, rows, runs=entries, **(told | manifest))


def _row(number: int, agent: str, turn: int, call: Call) -> dict[str, Any]:
    stamps = [call.sent + call.ttft + call.gap * token for token in range(call.tokens)]
    intended = call.sent if call.intended is None else call.intended
    told = {"run": number, "agent": agent, "turn": turn, **(call.others or {})}
    return request(intended, stamps, sent=call.sent, output=call.tokens, **told)

"""What TTFT means is changed in loadgen/latency.py, and nowhere else: every figure of it follows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import analysis
from analysis.formats.multi_agent_guide import write_artifacts
from loadgen import latency
from loadgen.engine.tally import Tally
from loadgen.record import Kind, Outcome, Record
from tests.fakes.command import run_here

MADE = Path(__file__).parent / "fixtures" / "b318a7d"
LATER_MS = 1000.0  # added to TTFT from the intended start
LATER_SERVICE_MS = 3000.0  # added to TTFT from the sending
NS_PER_MS = 1_000_000

Figures = dict[str, float]


def seen(tmp_path: Path) -> Figures:
    """The TTFT, ms, in each place that shows one."""
    agents = shutil.copytree(MADE / "agents", tmp_path / "agents")
    run = shutil.copytree(MADE / "five", tmp_path / "five")
    shutil.copytree(MADE / "five-b", tmp_path / "five-b")
    summary = json.loads(analysis.summarise(agents).to_json())
    collector = summary["agents"]["per_agent"]["collector"]["concurrent"]
    compared = json.loads(run_here("compare", tmp_path / "five", tmp_path / "five-b", "--json").out)
    text, page = run_here("report", run).out, run_here("report", run, "--format", "html").out
    write_artifacts(agents)
    artifacts = json.loads((agents / "artifacts" / "run_1" / "metrics.json").read_text())
    return {
        "summary": summary["metrics"]["ttft_ms"]["mean"]["value"],
        "summary, service": summary["metrics"]["ttft_service_ms"]["mean"]["value"],
        "agents": collector["ttft_ms"]["value"],
        "agents, service": collector["ttft_service_ms"]["value"],
        "compare": compared["metrics"]["ttft_mean_ms"]["a"]["value"],
        "terminal": in_text(text, "TTFT  "),
        "terminal, service": in_text(text, "TTFT service"),
        "page": on_page(page, "TTFT"),
        "page, service": on_page(page, "TTFT service"),
        "artifacts, service": artifacts["collector"]["aggregate_metrics"]["average_ttft_ms"],
        "exporter": exported(),
    }


def in_text(report: str, label: str) -> float:
    return float(next(line for line in report.splitlines() if line.startswith(label)).removeprefix(label).split()[0])


def on_page(page: str, label: str) -> float:
    return float(page.partition(f">{label}</th><td>")[2].partition("<")[0])


def exported() -> float:
    tally = Tally()
    record = Record(run=0, seq=0, endpoint="a", intended_ns=0, outcome=Outcome.OK, sent_ns=NS_PER_MS)
    record.event_ns = np.array([50 * NS_PER_MS])
    record.event_kind = np.array([Kind.CONTENT], np.uint8)
    record.event_read = np.array([0], np.int32)
    tally.add(record)
    return tally.total().ttft.counted().sum_ns / NS_PER_MS


def changed(monkeypatch: pytest.MonkeyPatch, name: str, later_ms: float) -> None:
    definition: Callable[..., Any] = getattr(latency, name)
    monkeypatch.setattr(latency, name, lambda *instants: definition(*instants) + round(later_ms * NS_PER_MS))


def test_a_changed_definition_of_ttft_changes_every_figure_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seen(tmp_path / "before")
    changed(monkeypatch, "ttft", LATER_MS)
    changed(monkeypatch, "ttft_service", LATER_SERVICE_MS)
    after = seen(tmp_path / "after")
    later = {place: LATER_SERVICE_MS if "service" in place else LATER_MS for place in before}
    # Geometric means over runs and the digits of a report leave a little.
    assert {place: after[place] - before[place] for place in before} == pytest.approx(later, abs=5)

"""The files of the multi-agent guide for a campaign, with the guide's fields and their meanings.

See docs/agents.md#artifacts.

The guide is a set of benchmarks of two agents, the collector and the insight agent, whose tools read these files; of
more agents, the first two take these places. They are written beside the run's own files, in `artifacts/`, from the
records alone. Null is "not measurable". The guide's speedup and efficiency are overlap
(docs/methodology.md#speedup-of-agents): the measured ones are in the campaign's summary.json. Deltas are the insight
agent's figure minus the collector's.

The guide's TTFT, in every key with `ttft` of its own, counts from the sending of a call. Beside it are two keys of
loadgen: `ttft_service_ms`, the same by its name here, and `ttft_intended_ms`, from when the call was due.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from msgspec import UNSET

from analysis.estimate import Float64, significant
from analysis.formats.guide_report import Plain, comparison_text, summary_text
from analysis.records.calls import Calls
from analysis.records.reading import Reading, reading_of
from analysis.records.requests import ABSENT
from loadgen.manifest import ARTIFACTS, AgentFacts, Manifest

__all__ = ["write_artifacts", "write_json"]

CONTENDED_BELOW = 1.5
P95_LEAST = 20  # calls; with fewer, the 95th percentile is beyond the largest
DIRECTION = "insight minus collector"
DEFINITIONS = {
    "ttft_definition": "client wall time from sending a call to its first token",
    "ttft_intended_definition": "client wall time from when a call was due to its first token",
    "throughput_definition": "generated tokens over the server's own generation time",
}
UNKNOWN_ON_A_CLIENT = ("average_gpu_utilization", "peak_gpu_memory_gb", "peak_gpu_temperature_c")


def write_artifacts(directory: Path, reading: Reading | None = None) -> None:
    """Write the artifacts of a campaign of agents. reading: of the directory, if there is one. Raises OSError."""
    reading = reading_of(directory if reading is None else reading)
    calls, manifest, folder = reading.calls, reading.manifest, directory / ARTIFACTS
    folder.mkdir(exist_ok=True)
    numbers = {facts.run: facts.block + 1 for facts in manifest.runs if facts.block is not None}
    runs = [
        _write_run(calls.only(calls.run == run), numbers[run], run in calls.failures, manifest, folder)
        for run in np.unique(calls.run[calls.concurrent]).tolist()
    ]
    summary = _summary(runs, manifest)
    write_json(folder / "summary.json", summary)
    (folder / "summary.md").write_text(summary_text(summary), encoding="utf-8")
    (folder / "comparison_report.md").write_text(comparison_text(summary, manifest), encoding="utf-8")


def write_json(path: Path, plain: object) -> None:
    """Write a file of the guide. Raises OSError."""
    path.write_text(json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


# --- one run ---------------------------------------------------------------------------------------------------------


def _write_run(calls: Calls, number: int, failed: bool, manifest: Manifest, folder: Path) -> Plain:
    """Write the files of one concurrent run, whose number begins at 1; its part of the summary."""
    place = folder / f"run_{number}"
    place.mkdir(exist_ok=True)
    per_agent = [_agent(calls, index, facts, place) for index, facts in enumerate(manifest.crew)]
    summary = _run(number, failed, calls, per_agent, manifest)
    metrics: dict[str, Any] = {agent["agent_type"]: agent for agent in per_agent} | {"summary": summary}
    metrics |= {f"{agent['agent_type']}_execution_time": agent["execution_time_s"] for agent in per_agent}
    write_json(place / "metrics.json", metrics)
    _write_combined(place, manifest.crew)
    return summary


def _agent(calls: Calls, index: int, facts: AgentFacts, place: Path) -> Plain:
    sent = calls.only((calls.agent == index) & (calls.sent_ns != ABSENT))
    each = _calls(sent, facts, place)
    wall_s = (int(sent.done_ns.max()) - int(sent.sent_ns.min())) / 1e9 if len(sent) else None
    return {
        "agent_type": facts.name,
        "model": facts.model,
        "configuration": "chimera" if facts.asked_options else "baseline",
        "chimera_config": facts.asked_options or None,
        "config": {"id": facts.name, "base_url": facts.endpoint, "options": facts.options},
        "execution_time_s": significant(wall_s),
        "aggregate_metrics": _aggregate(each),
        **DEFINITIONS,
        "llm_calls": each,
    }


def _aggregate(calls: Sequence[Plain]) -> Plain:
    """The figures over the calls of an agent in one run."""
    rates, ttfts = ([call[key] for call in calls] for key in ("throughput_tokens_per_sec", "ttft_ms"))
    return {
        "total_requests": len(calls),
        "total_duration_ms": significant(sum(call["total_duration_ms"] for call in calls)),
        "total_tokens_generated": _total([call["tokens_generated"] for call in calls]),
        "average_ttft_ms": _mean(ttfts),
        "average_ttft_service_ms": _mean(ttfts),
        "average_ttft_intended_ms": _mean([call["ttft_intended_ms"] for call in calls]),
        "average_tokens_per_second": _mean(rates),
        "p95_ttft_ms": _p95(ttfts),
        "p95_tokens_per_second": _p95(rates),
        "stddev_throughput": _sd(rates),
        "stddev_ttft": _sd(ttfts),
        **dict.fromkeys(UNKNOWN_ON_A_CLIENT),
    }


def _calls(calls: Calls, facts: AgentFacts, place: Path) -> list[Plain]:
    """The calls of an agent in one run, in their order."""
    service_ms, intended_ms = calls.ttft_service() / 1e6, calls.ttft() / 1e6
    return [_call(calls, at, _ttfts(service_ms, intended_ms, at), facts, place) for at in range(len(calls))]


def _ttfts(service_ms: Float64, intended_ms: Float64, at: int) -> Plain:
    # `significant` makes None of NaN.
    service = significant(float(service_ms[at]))
    return {
        "ttft_ms": service,
        "ttft_service_ms": service,
        "ttft_intended_ms": significant(float(intended_ms[at])),
    }


def _call(calls: Calls, at: int, ttfts: Plain, facts: AgentFacts, place: Path) -> Plain:
    tokens = _known(calls.output_tokens[at])
    eval_ns = _known(calls.server_eval_ns[at])
    turn, files = int(calls.turn[at]), facts.files or ()
    return {
        "stage": facts.calls[turn] if turn < len(facts.calls) else None,
        **ttfts,
        "throughput_tokens_per_sec": significant(tokens / eval_ns * 1e9) if tokens and eval_ns else None,
        "total_duration_ms": significant((int(calls.done_ns[at]) - int(calls.sent_ns[at])) / 1e6),
        "tokens_generated": tokens,
        "prompt_eval_duration_ms": _ms(calls.server_prompt_eval_ns[at]),
        "eval_duration_ms": _ms(calls.server_eval_ns[at]),
        "load_duration_ms": _ms(calls.server_load_ns[at]),
        "queue_duration_ms": _ms(calls.server_queue_ns[at]),
        "response": _text(place / files[turn]) if turn < len(files) else None,
    }


def _run(number: int, failed: bool, calls: Calls, per_agent: Sequence[Plain], manifest: Manifest) -> Plain:
    """The summary of one run."""
    walls = [agent["execution_time_s"] for agent in per_agent]
    sent = calls.only(calls.sent_ns != ABSENT)
    wall = (int(sent.done_ns.max()) - int(sent.sent_ns.min())) / 1e9 if len(sent) else None
    whole = wall is not None and None not in walls and not failed
    speedup = sum(walls) / wall if whole and wall else None
    rates = _pair(per_agent, "average_tokens_per_second")
    ttfts = _pair(per_agent, "average_ttft_ms")
    return {
        "run_number": number,
        "scenario": _scenario(manifest),
        **_urls(manifest),
        "collector_throughput": rates[0],
        "insight_throughput": rates[1],
        "baseline_throughput": rates[0],
        "chimera_throughput": rates[1],
        "throughput_delta": rates[2],
        "collector_ttft_ms": ttfts[0],
        "insight_ttft_ms": ttfts[1],
        "baseline_ttft_ms": ttfts[0],
        "chimera_ttft_ms": ttfts[1],
        "ttft_delta_ms": ttfts[2],
        "direction": DIRECTION,
        "baseline_duration": walls[0],
        "chimera_duration": walls[1] if len(walls) > 1 else None,
        "concurrent_wall_time": significant(wall),
        "sequential_estimated_time": significant(sum(walls)) if whole else None,
        "concurrency_speedup": significant(speedup),
        "efficiency_percent": significant(100 * speedup / len(walls)) if speedup is not None else None,
        "gpu_memory_peak": None,
        "resource_contention_detected": speedup < CONTENDED_BELOW if speedup is not None else None,
        "resource_contention_rule": f"concurrency_speedup < {CONTENDED_BELOW}",
    }


def _pair(per_agent: Sequence[Plain], key: str) -> tuple[float | None, float | None, float | None]:
    """The figure `key` of the first agent and of the second, and the second minus the first."""
    a, b = (per_agent[index]["aggregate_metrics"][key] if index < len(per_agent) else None for index in range(2))
    return a, b, None if a is None or b is None else significant(b - a)


def _write_combined(place: Path, crew: Sequence[AgentFacts]) -> None:
    parts = ["# Combined report"]
    for facts in crew:
        texts = [_text(place / name) for name in facts.files or ()]
        parts += [f"## {facts.name}", (texts[-1] if texts else None) or "(no answer)"]
    (place / "combined_report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


# --- all runs --------------------------------------------------------------------------------------------------------


def _summary(runs: Sequence[Plain], manifest: Manifest) -> Plain:
    def average(key: str) -> float | None:
        return _mean([run[key] for run in runs])

    options = [facts.asked_options or None for facts in manifest.crew]
    return {
        "runs": list(runs),
        "aggregate": {
            "average_throughput_delta": average("throughput_delta"),
            "average_ttft_delta_ms": average("ttft_delta_ms"),
            "baseline_throughput": average("baseline_throughput"),
            "chimera_throughput": average("chimera_throughput"),
            "average_concurrency_speedup": average("concurrency_speedup"),
            "average_wall_time": average("concurrent_wall_time"),
            "average_efficiency": average("efficiency_percent"),
            "contention_detected_runs": sum(run["resource_contention_detected"] is True for run in runs),
        },
        "direction": DIRECTION,
        "scenario": _scenario(manifest),
        "chimera_overrides": next((asked for asked in options if asked is not None), None),
        "chimera_overrides_agent2": options[1] if len(options) > 1 else None,
        **_urls(manifest),
        "generated_at": None if manifest.wall_end is UNSET else manifest.wall_end,
    }


def _scenario(manifest: Manifest) -> str | None:
    return None if manifest.scenario is UNSET else manifest.scenario


def _urls(manifest: Manifest) -> dict[str, str | None]:
    """The servers of the first two agents."""
    urls = {target.name: target.url for target in manifest.targets}
    endpoints = [urls.get(facts.endpoint or "") for facts in manifest.crew[:2]] + [None, None]
    return {"collector_ollama_url": endpoints[0], "insight_ollama_url": endpoints[1]}


# --- numbers ---------------------------------------------------------------------------------------------------------


def _known(value: np.int64) -> int | None:
    return None if int(value) == ABSENT else int(value)


def _ms(ns: np.int64) -> float | None:
    known = _known(ns)
    return None if known is None else significant(known / 1e6)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return significant(mean(known)) if known else None


def _sd(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return significant(stdev(known)) if len(known) > 1 else None


def _p95(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return significant(float(np.quantile(known, 0.95))) if len(known) >= P95_LEAST else None


def _total(values: Sequence[int | None]) -> int | None:
    return None if None in values else sum(value for value in values if value is not None)


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None

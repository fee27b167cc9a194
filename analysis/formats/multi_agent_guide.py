"""The files of the multi-agent guide, for who has tools that read them: SYSTEMS 1.7, its fields and their meanings.

Written beside the run's own files, in `artifacts/` of a campaign and at the top of a sweep, and made from the records
alone. The guide has two agents, the collector and the insight agent; of more, the first two take these places.
Null is "not measurable". What the guide calls speedup and efficiency is overlap (METHODOLOGY 9): the measured ones are
in the campaign's summary.json. Deltas are the insight agent's figure minus the collector's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from analysis.agents.grades import grade
from analysis.estimate import significant
from analysis.records.calls import Calls, read_calls
from analysis.records.frame import load
from analysis.records.requests import ABSENT
from loadgen.suite_manifest import matrix_path

__all__ = ["FOLDER", "write_artifacts", "write_suite"]

FOLDER = "artifacts"
CONTENDED_BELOW = 1.5
P95_LEAST = 20  # calls; with fewer, the 95th percentile is beyond the largest
TOP = 10
TARGETS = {
    "speedup": "ideal 2.0, typical 1.6 to 2.0, target above 1.9",
    "efficiency": "ideal 100 %, typical 85 to 99 %, target above 95 %",
    "contention": "ideal 0 %, acceptable below 10 %, problematic above 30 %",
}
RUN_BY_RUN = {
    "concurrent_wall_time": "wall s",
    "concurrency_speedup": "speedup",
    "efficiency_percent": "efficiency %",
    "ttft_delta_ms": "TTFT delta ms",
    "throughput_delta": "throughput delta tok/s",
    "resource_contention_detected": "contention",
}


def write_artifacts(directory: Path) -> None:
    """Write the artifacts of a campaign of agents. Raises OSError."""
    frame = load(directory)
    calls, manifest, folder = read_calls(frame), frame.manifest, directory / FOLDER
    folder.mkdir(exist_ok=True)
    runs = []
    for run in np.unique(calls.run[calls.concurrent]).tolist():
        number = next(entry["block"] for entry in manifest["runs"] if entry["run"] == run) + 1
        mine = calls.only(calls.run == run)
        place = folder / f"run_{number}"
        place.mkdir(exist_ok=True)
        per_agent = [_agent(mine, index, agent, place) for index, agent in enumerate(manifest["agents"])]
        summary = _run(number, run in calls.failures, mine, per_agent, manifest)
        runs.append(summary)
        metrics = {agent["agent_type"]: agent for agent in per_agent} | {"summary": summary}
        metrics |= {f"{agent['agent_type']}_execution_time": agent["execution_time_s"] for agent in per_agent}
        _write(place / "metrics.json", metrics)
        _combine(place, manifest["agents"])
    summary = _summary(runs, manifest)
    _write(folder / "summary.json", summary)
    (folder / "summary.md").write_text(_summary_text(summary), encoding="utf-8")
    (folder / "comparison_report.md").write_text(_comparison(summary, manifest), encoding="utf-8")


def write_suite(directory: Path) -> None:
    """Write what the guide keeps of a sweep: `comprehensive_test_summary.json` and a log. Raises OSError."""
    manifest = json.loads(matrix_path(directory).read_text(encoding="utf-8"))
    ended = {str(one["id"]): one for one in manifest["tests"]}
    tests = [_test(directory, one, ended[str(one["id"])], manifest["blocks"]) for one in manifest["configurations"]]
    done = [test for test in tests if test["summary"] is not None]
    ranked = sorted(done, key=lambda test: test["summary"]["aggregate"]["average_efficiency"] or 0.0, reverse=True)
    phases = sorted({test["phase"] for test in tests})
    told = {
        "test_execution": {
            "start_time": manifest["wall_start"],
            "end_time": manifest["wall_end"],
            "duration_seconds": manifest["duration_s"],
            **_counted(tests, "_tests"),
        },
        "phase_breakdown": {
            f"phase_{phase}": _counted([test for test in tests if test["phase"] == phase], "") for phase in phases
        },
        "configuration_analysis": {
            "top_10_configs": [_ranked(test) for test in ranked[:TOP]],
            "total_configs_tested": len(tests),
        },
        "all_test_results": tests,
    }
    _write(directory / "comprehensive_test_summary.json", told)
    log = [
        {key: test[key] for key in ("phase", "test_id", "start_time", "end_time", "success", "stderr")}
        for test in tests
    ]
    _write(directory / "test_execution_log.json", log)


# --- one run ---------------------------------------------------------------------------------------------------------


def _agent(calls: Calls, index: int, agent: Mapping[str, Any], place: Path) -> dict[str, Any]:
    mine = calls.only((calls.agent == index) & (calls.sent_ns != ABSENT))
    ttft_ms = (mine.ttft_service() / 1e6).tolist()
    each = [_call(mine, at, ttft_ms[at], agent, place) for at in range(len(mine))]
    rates, ttfts = ([one[key] for one in each] for key in ("throughput_tokens_per_sec", "ttft_ms"))
    wall_s = (int(mine.done_ns.max()) - int(mine.sent_ns.min())) / 1e9 if len(mine) else None
    return {
        "agent_type": agent["name"],
        "model": agent.get("model"),
        "configuration": "chimera" if agent["asked_options"] else "baseline",
        "chimera_config": agent["asked_options"] or None,
        "config": {"id": agent["name"], "base_url": agent["endpoint"], "options": agent["options"]},
        "execution_time_s": significant(wall_s),
        "aggregate_metrics": {
            "total_requests": len(each),
            "total_duration_ms": significant(sum(one["total_duration_ms"] for one in each)),
            "total_tokens_generated": _total([one["tokens_generated"] for one in each]),
            "average_ttft_ms": _mean(ttfts),
            "average_tokens_per_second": _mean(rates),
            "p95_ttft_ms": _p95(ttfts),
            "p95_tokens_per_second": _p95(rates),
            "stddev_throughput": _sd(rates),
            "stddev_ttft": _sd(ttfts),
            "average_gpu_utilization": None,
            "peak_gpu_memory_gb": None,
            "peak_gpu_temperature_c": None,
        },
        "ttft_definition": "client wall time from sending a call to its first token",
        "throughput_definition": "generated tokens over the server's own generation time",
        "llm_calls": each,
    }


def _call(calls: Calls, at: int, ttft_ms: float, agent: Mapping[str, Any], place: Path) -> dict[str, Any]:
    tokens = _told(calls.output_tokens[at])
    eval_ns = _told(calls.server_eval_ns[at])
    turn = int(calls.turn[at])
    return {
        "stage": agent["calls"][turn] if turn < len(agent["calls"]) else None,
        "ttft_ms": None if np.isnan(ttft_ms) else significant(ttft_ms),
        "throughput_tokens_per_sec": significant(tokens / eval_ns * 1e9) if tokens and eval_ns else None,
        "total_duration_ms": significant((int(calls.done_ns[at]) - int(calls.sent_ns[at])) / 1e6),
        "tokens_generated": tokens,
        "prompt_eval_duration_ms": _ms(calls.server_prompt_eval_ns[at]),
        "eval_duration_ms": _ms(calls.server_eval_ns[at]),
        "load_duration_ms": _ms(calls.server_load_ns[at]),
        "queue_duration_ms": _ms(calls.server_queue_ns[at]),
        "response": _text(place / agent["files"][turn]) if turn < len(agent.get("files") or ()) else None,
    }


def _run(
    number: int, failed: bool, calls: Calls, per_agent: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    first, second = per_agent[0], per_agent[1] if len(per_agent) > 1 else None
    walls = [agent["execution_time_s"] for agent in per_agent]
    sent = calls.only(calls.sent_ns != ABSENT)
    wall = (int(sent.done_ns.max()) - int(sent.sent_ns.min())) / 1e9 if len(sent) else None
    whole = wall is not None and None not in walls and not failed
    speedup = sum(walls) / wall if whole and wall else None

    def pair(key: str) -> tuple[float | None, float | None, float | None]:
        a, b = (None if x is None else x["aggregate_metrics"][key] for x in (first, second))
        return a, b, None if a is None or b is None else significant(b - a)

    rates, ttfts = pair("average_tokens_per_second"), pair("average_ttft_ms")
    return {
        "run_number": number,
        "scenario": manifest["scenario"],
        "collector_ollama_url": _url(manifest, 0),
        "insight_ollama_url": _url(manifest, 1),
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
        "direction": "insight minus collector",
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


def _combine(place: Path, agents: Sequence[Mapping[str, Any]]) -> None:
    parts = ["# Combined report"]
    for agent in agents:
        texts = [_text(place / name) for name in agent.get("files") or ()]
        parts += [f"## {agent['name']}", (texts[-1] if texts else None) or "(no answer)"]
    (place / "combined_report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


# --- all runs --------------------------------------------------------------------------------------------------------


def _summary(runs: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]) -> dict[str, Any]:
    def average(key: str) -> float | None:
        return _mean([run[key] for run in runs])

    options = [agent["asked_options"] or None for agent in manifest["agents"]]
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
        "direction": "insight minus collector",
        "scenario": manifest["scenario"],
        "chimera_overrides": next((one for one in options if one is not None), None),
        "chimera_overrides_agent2": options[1] if len(options) > 1 else None,
        "collector_ollama_url": _url(manifest, 0),
        "insight_ollama_url": _url(manifest, 1),
        "generated_at": manifest.get("wall_end"),
    }


def _grades(summary: Mapping[str, Any]) -> dict[str, str | None]:
    runs, told = summary["runs"], summary["aggregate"]
    values = [run["efficiency_percent"] for run in runs if run["efficiency_percent"] is not None]
    cv = stdev(values) / mean(values) if len(values) > 1 else None
    efficiency = told["average_efficiency"]
    return {
        "efficiency": grade("overlap_efficiency", None if efficiency is None else efficiency / 100),
        "contention": grade("contended_share", told["contention_detected_runs"] / len(runs) if runs else None),
        "cv": grade("cv", cv),
    }


def _summary_text(summary: Mapping[str, Any]) -> str:
    told = summary["aggregate"]
    rows = [f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in told.items()]
    return "\n".join(
        [f"# {summary['scenario']}", "", "| figure | value |", "|---|---|", *rows, "", _OVERLAP, _DIRECTION, ""]
    )


_OVERLAP = "Speedup and efficiency here are overlap: how much the agents ran at the same time, not what that gained."
_DIRECTION = "Deltas are the insight agent's figure minus the collector's."


def _comparison(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    grades = _grades(summary)
    verdict = grades["efficiency"] or "no grade"
    sections = {
        "Executive summary": [_executive(summary, verdict)],
        "Aggregate performance": _aggregate(summary, grades, verdict),
        "Run by run": _run_by_run(summary["runs"]),
        "Configuration": _configuration(manifest),
        "Conclusion": [
            f"Overlap is {verdict}. Whether running the agents together gained anything is told by the measured "
            "speedup in the campaign's own summary.json and report.html, which compare with each agent alone."
        ],
    }
    lines = _title(summary, manifest)
    for title, told in sections.items():
        lines += ["", f"## {title}", "", *told]
    return "\n".join([*lines, ""])


def _title(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    starts = [entry["start_ns"] for entry in manifest["runs"]]
    lasted_s = (max(starts) - min(starts)) / 1e9 if starts else 0.0
    models = sorted({target["model"] for target in manifest["targets"]})
    return [
        f"# Agents: {summary['scenario']}",
        "",
        f"- date: {manifest['wall_start']}",
        f"- model: {', '.join(models)}",
        f"- runs: {len(summary['runs'])}",
        f"- duration: {lasted_s:.4g} s from the first run's start to the last one's",
    ]


def _executive(summary: Mapping[str, Any], verdict: str) -> str:
    told = summary["aggregate"]
    return (
        f"Over {len(summary['runs'])} runs the agents ran at the same time with an efficiency of "
        f"{_shown(told['average_efficiency'])} % ({verdict}); {told['contention_detected_runs']} runs are labelled "
        f"contended. {_OVERLAP} {_DIRECTION}"
    )


def _aggregate(summary: Mapping[str, Any], grades: Mapping[str, str | None], verdict: str) -> list[str]:
    told = summary["aggregate"]
    contended = f"{told['contention_detected_runs']} of {len(summary['runs'])}"
    return [
        "| figure | value | grade | guide |",
        "|---|---|---|---|",
        f"| speedup | {_shown(told['average_concurrency_speedup'])} | | {TARGETS['speedup']} |",
        f"| efficiency % | {_shown(told['average_efficiency'])} | {verdict} | {TARGETS['efficiency']} |",
        f"| contended runs | {contended} | {grades['contention'] or ''} | {TARGETS['contention']} |",
        f"| CV of efficiency | | {grades['cv'] or ''} | below 1 / 5 / 10 % |",
        f"| throughput, collector tok/s | {_shown(told['baseline_throughput'])} | | |",
        f"| throughput, insight tok/s | {_shown(told['chimera_throughput'])} | | |",
        f"| wall time s | {_shown(told['average_wall_time'])} | | |",
    ]


def _run_by_run(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [[str(run["run_number"]), *(_shown(run[key]) for key in RUN_BY_RUN)] for run in runs]
    head = ["run", *RUN_BY_RUN.values()]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def _configuration(manifest: Mapping[str, Any]) -> list[str]:
    agents = [
        f"- {agent['name']} at {agent['endpoint']}: "
        + (", ".join(f"{key} {value}" for key, value in agent["asked_options"].items()) or "the server's defaults")
        for agent in manifest["agents"]
    ]
    return [*agents, f"- permits: {manifest['permits']}"]


# --- a sweep ---------------------------------------------------------------------------------------------------------


def _test(directory: Path, one: Mapping[str, Any], ended: Mapping[str, Any], runs: int) -> dict[str, Any]:
    place = directory / one["directory"]
    path = place / FOLDER / "summary.json"
    options = [agent["options"] for agent in one["agents"]]
    main: Mapping[str, Any] = next((option for option in options if option), {})
    second = options[1] if one["scenario"] == "chimera_hetero" and len(options) > 1 else {}
    return {
        "phase": one["phase"],
        "test_id": one["id"],
        "scenario": one["scenario"],
        "config": {
            "gpu_layers": main.get("num_gpu"),
            "context": main.get("num_ctx"),
            "temperature": main.get("temperature"),
            "gpu2_layers": second.get("num_gpu"),
            "context2": second.get("num_ctx"),
            "temperature2": second.get("temperature"),
        },
        "runs": runs,
        "output_dir": one["directory"],
        "start_time": ended["wall_start"],
        "end_time": ended["wall_end"],
        "exit_code": 0 if ended["success"] else 1,
        "success": ended["success"],
        "stdout": None,
        "stderr": ended["error"],
        "summary": json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None,
    }


def _ranked(test: Mapping[str, Any]) -> dict[str, Any]:
    told, config = test["summary"]["aggregate"], test["config"]
    return {
        "scenario": test["scenario"],
        "gpu": config["gpu_layers"],
        "context": config["context"],
        "temperature": config["temperature"],
        "speedup": told["average_concurrency_speedup"],
        "efficiency": told["average_efficiency"],
        "throughput_delta": told["average_throughput_delta"],
    }


def _counted(tests: Sequence[Mapping[str, Any]], suffix: str) -> dict[str, int]:
    good = sum(test["success"] for test in tests)
    return {f"total{suffix}": len(tests), f"successful{suffix}": good, f"failed{suffix}": len(tests) - good}


# --- small things ----------------------------------------------------------------------------------------------------


def _url(manifest: Mapping[str, Any], index: int) -> str | None:
    agents = manifest["agents"]
    if index >= len(agents):
        return None
    return next((t["url"] for t in manifest["targets"] if t["name"] == agents[index]["endpoint"]), None)


def _told(value: Any) -> int | None:
    return None if int(value) == ABSENT else int(value)


def _ms(value: Any) -> float | None:
    told = _told(value)
    return None if told is None else significant(told / 1e6)


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return significant(mean(known)) if known else None


def _sd(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return significant(stdev(known)) if len(known) > 1 else None


def _p95(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    return significant(float(np.quantile(known, 0.95))) if len(known) >= P95_LEAST else None


def _total(values: Sequence[int | None]) -> int | None:
    return None if None in values else sum(value for value in values if value is not None)


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")

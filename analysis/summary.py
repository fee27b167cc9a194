"""A directory of records in, `summary.json` out: the `loadgen.summary/1` schema and nothing that depends on the day.

The same records give the same bytes, in whatever order and number of files they lie, for `loadgen verify` computes
this again and compares.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from analysis.agents.section import agents_section
from analysis.estimate import significant
from analysis.figures import order, runs, throughput
from analysis.figures.arrivals import arrivals, littles_law, off_schedule, out_of_balance
from analysis.figures.instrument import Verdict, beyond_calibration, instrument_of, judge
from analysis.figures.metrics import (
    NS_PER_MS,
    Context,
    event_gaps,
    forgiven,
    itl_refusal,
    one_token_share,
    request_latencies,
)
from analysis.figures.objectives import decide, good, objectives_of, terms_of
from analysis.records import arms, latency, settling
from analysis.records.frame import Frame, load
from analysis.records.measured import Measured, measure
from analysis.records.requests import Bool
from analysis.records.windows import Window
from analysis.stats import intervals, planning
from analysis.stats.quantiles import SortedArray, type7
from analysis.telemetry.consumption import energy_of, energy_of_arms
from analysis.telemetry.section import telemetry_of
from loadgen.record import Outcome

__all__ = ["SCHEMA", "Source", "measured_from", "summarise", "to_json"]

SCHEMA = "loadgen.summary/1"
ERRORS_SHOWN = 20
ENDPOINT_LATENCIES = ("ttft_ms", "tpot_ms", "e2e_ms")

Source = str | Path | Frame | Measured


def summarise(source: Source) -> dict[str, Any]:
    """Return the summary of a run's directory, or of what was read from one. Raises NoRecordsError.

    What other arms say (control, agents) is not in the summary of a Measured, which is of one arm.
    """
    frame = None if isinstance(source, Measured) else _frame(source)
    m = measured_from(source if frame is None else frame)
    instrument = instrument_of(m)
    verdict = judge(m, instrument)
    context = Context(instrument, verdict)
    objectives = objectives_of(m)
    met = good(m, terms_of(objectives))
    whole = m.counted
    metrics = _metrics(whole, context, met)
    refusal = itl_refusal(whole, instrument)
    side = runs.side_by_side(m, met)
    due, balance = arrivals(m), littles_law(m)
    checked = order.early_late(m.manifest, m.runs, side, whole.runs)
    left_out = [{"run": window.run, "why": window.cut_short} for window in m.left_out.windows]
    notes = [
        *m.notes,
        *beyond_calibration(m),
        *(f"run {one['run']}: {one['why']}: listed, and left out of every estimate over runs" for one in left_out),
        *off_schedule(due),
        *out_of_balance(balance),
        *settling.shifted(m),
        *(order.in_words(checked) if checked else []),
        *([refusal] if refusal else []),
    ]
    summary: dict[str, Any] = {
        "schema": SCHEMA,
        "verdict": verdict.name,
        "verdict_reasons": list(verdict.reasons),
        "interrupted": m.interrupted,
        "runs": len(m.windows),
        "left_out": left_out,
        "missing_runs": arms.missing_runs(m.manifest),
        "halted": m.manifest.get("halted"),
        "stopping": planning.stopping(m.manifest),
        "requests": _requests(m),
        "window_s": significant(sum(window.seconds for window in m.windows)),
        "metrics": metrics,
        "objectives": decide(m, objectives, metrics, verdict),
        "goodput": _goodput(whole, terms_of(objectives), met),
        "instrument": instrument.to_json(),
        "tokens_per_event": _tokens_per_event(m),
        "tokens_from": _tokens_from(m),
        "stale_connections": int(m.requests.stale_connections.clip(0).sum()),
        "errors": _errors(m),
        "per_run": [_run(m, context, index, side) for index in range(len(m.windows))],
        "over_runs": side,
        "early_late": checked,
        "control": None if frame is None else order.control(frame),
        "arrivals": due,
        "littles_law": balance,
        "notes": notes,
        **_what_ran(m.manifest),
    }
    return summary | _sections(m, frame, context, verdict)


def _sections(m: Measured, frame: Frame | None, context: Context, verdict: Verdict) -> dict[str, Any]:
    """Return the parts that only some campaigns have."""
    sections: dict[str, Any] = {}
    if len(m.requests.endpoints) > 1:
        sections["endpoints"] = _endpoints(m.counted, context)
    if frame is not None and m.manifest.get("agents"):
        void = verdict.name if verdict.forbids_percentiles else None
        sections["agents"] = msgspec.to_builtins(agents_section(frame, void))
    energy = energy_of(m) if frame is None else energy_of_arms(frame, m)
    beside = {"telemetry": msgspec.to_builtins(telemetry_of(m)), "energy": msgspec.to_builtins(energy)}
    return sections | {name: section for name, section in beside.items() if section is not None}


def to_json(summary: Mapping[str, Any]) -> str:
    """Return the text of summary.json."""
    return json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def measured_from(source: Source) -> Measured:
    if isinstance(source, Measured):
        return source
    return measure(_frame(source))


def _frame(source: str | Path | Frame) -> Frame:
    return source if isinstance(source, Frame) else load(source)


def _metrics(m: Measured, context: Context, met: Bool | None) -> dict[str, Any]:
    everywhere = np.ones(len(m.requests), np.bool_)
    metrics: dict[str, Any] = request_latencies(m, context, everywhere)
    gaps = event_gaps(m, context)
    metrics["event_gap_ms"] = gaps
    metrics["itl_ms"] = None
    if itl_refusal(m, context.instrument) is None:
        metrics["itl_ms"] = gaps
    rates = throughput.rates(m, met)
    return metrics | {name: figure.to_json() for name, figure in rates.items()}


def _requests(m: Measured) -> dict[str, Any]:
    outcomes = Counter(m.requests.outcomes[code] for code in m.requests.outcome.tolist())
    completed = outcomes.pop(Outcome.OK, 0)
    return {
        "offered": sum(window.offered for window in m.windows),
        "completed": completed,
        "failed": dict(sorted(outcomes.items())),
        "measured": int(m.inside.sum()),
        "measured_completed": int(m.answered.sum()),
    }


def _goodput(m: Measured, terms: Mapping[str, float], met: Bool | None) -> dict[str, Any] | None:
    """Return what goodput asked of each request, and the share of requests, failed ones included, that gave it."""
    if met is None:
        return None
    mine = [m.inside & (m.requests.run == run) for run in m.runs]
    shares = [float(met[run].mean()) for run in mine if run.any()]
    attainment = intervals.proportion(int((met & m.inside).sum()), int(m.inside.sum()), shares, m.confidence)
    return {"terms": dict(terms), "attainment": attainment.to_json()}


def _tokens_per_event(m: Measured) -> dict[str, Any]:
    known = m.answered & (m.tokens.events > 0) & m.requests.counted_tokens()
    events = int(m.tokens.events[known].sum())
    share, deduced = one_token_share(m)
    return {
        "mean": significant(float(m.requests.output_tokens[known].sum()) / events) if events else None,
        "one_token_share": significant(share),
        "deduced": deduced,
    }


def _tokens_from(m: Measured) -> dict[str, int]:
    codes = m.requests.tokens_from[m.requests.ok].tolist()
    counts = Counter(m.requests.tokens_froms[code] or "unknown" for code in codes)
    return dict(sorted(counts.items()))


def _errors(m: Measured) -> list[dict[str, Any]]:
    """Return the commonest failures. The texts are the servers' and not to be trusted."""
    ranked = sorted(
        m.requests.failures.items(), key=lambda item: (-item[1], item[0].outcome, str(item[0].status), item[0].error)
    )
    return [
        {"outcome": failure.outcome, "status": failure.status, "error": failure.error, "n": n}
        for failure, n in ranked[:ERRORS_SHOWN]
    ]


def _run(m: Measured, context: Context, index: int, side: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of one run, to be listed beside the figures over all. side: all runs, figure by figure.

    A verdict that forbids percentiles forbids those of single runs too.
    """
    window = m.windows[index]
    mine = m.requests.run == window.run
    ttft = SortedArray(latency.ttft(m)[mine & m.answered])
    quotable = ttft.n > 0 and not context.verdict.forbids_percentiles
    due, succeeded = int((mine & m.inside & ~forgiven(m)).sum()), int((mine & m.answered).sum())
    return {
        "run": window.run,
        "block": arms.block_of(m.manifest, window.run),
        "arm": arms.arm_of(m.manifest, window.run),
        "offered": window.offered,
        "completed": int((mine & m.requests.ok).sum()),
        "window_s": significant(window.seconds),
        "settled": _settled(window),
        "interrupted": window.interrupted,
        "cut_short": window.cut_short,
        "due": due,
        "succeeded": succeeded,
        "success_rate": significant(succeeded / due) if due else None,
        "ttft_mean_ms": side["ttft_ms"]["values"][index],
        "ttft_p50_ms": significant(type7(ttft, 0.5) / NS_PER_MS) if quotable else None,
        "ttft_p99_ms": significant(type7(ttft, 0.99) / NS_PER_MS) if quotable else None,
        "tpot_mean_ms": side["tpot_ms"]["values"][index],
        "requests_per_s": side["requests_per_s"]["values"][index],
        "output_tokens_per_s": side["output_tokens_per_s"]["values"][index],
        "outlier_in": [name for name, figure in side.items() if window.run in figure["outliers"]],
    }


def _settled(window: Window) -> dict[str, Any] | None:
    """Return the window asked for and the one measured, and whether MSER-5 found a steady state; None: not judged."""
    if window.asked_from_ns is None:
        return None
    return {
        "steady": window.steady,
        "asked_s": [significant(window.asked_from_ns / 1e9), significant(window.to_ns / 1e9)],
        "measured_s": [significant(window.from_ns / 1e9), significant(window.to_ns / 1e9)],
        "cut": window.cut,
        "spared": window.spared,
    }


def _endpoints(m: Measured, context: Context) -> dict[str, Any]:
    result = {}
    for code, name in sorted(enumerate(m.requests.endpoints), key=lambda item: item[1]):
        here = m.requests.endpoint == code
        latencies = request_latencies(m, context, here)
        rates = throughput.rates(m, chosen=here)
        result[name] = {
            "requests": {"completed": int((here & m.requests.ok).sum()), "failed": int((here & ~m.requests.ok).sum())},
            **{metric: latencies[metric] for metric in ENDPOINT_LATENCIES},
            "event_gap_ms": event_gaps(m, context, code),
            "requests_per_s": rates["requests_per_s"].to_json(),
            "output_tokens_per_s": rates["output_tokens_per_s"].to_json(),
        }
    return result


def _what_ran(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a report's headline needs of the manifest, so that it can be made from the summary alone."""
    profile = manifest.get("profile")
    load_asked = profile.get("load") if isinstance(profile, Mapping) else None
    kept = ("name", "url", "api", "model", "version")
    targets = [
        {key: target[key] for key in kept if target.get(key) is not None}
        for target in manifest.get("targets") or []
        if isinstance(target, Mapping)
    ]
    told = {"targets": targets, "load": load_asked or None}
    return told | ({"workload": manifest["workload"]} if manifest.get("workload") else {})

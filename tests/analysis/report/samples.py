"""Campaigns whose reports are tests, and what a hostile server says."""

from pathlib import Path

from tests.analysis.handmade import OPEN, chat, directory, request, run

GOLDEN = Path(__file__).parents[2] / "golden"
EVIL = "</script><script>alert(1)</script><img src=http://evil/x onerror=alert(2)> \u2028"

CALIBRATION = {"ttft_bias_us": 17, "ttft_halfwidth_us": 6, "gap_bias_us": 0, "gap_halfwidth_us": 8}
INSTRUMENT = {"calibration": CALIBRATION, "loop_lag_ms": {"p50": 0.1, "p99": 1.24, "max": 9.1}}
OBJECTIVES = {"ttft_p99_ms": 500, "tpot_p90_ms": 40, "error_rate": 0.001}


def reports(tmp_path):
    late = [row | {"sent_ns": row["sent_ns"] + 40_000_000} for row in chat()]
    two = {"targets": [{"name": name, "url": f"http://{name}:8000", "api": "openai"} for name in "ab"]}
    yield "ok", directory(tmp_path / "ok", chat(), objectives=OBJECTIVES, instrument=INSTRUMENT, **OPEN)
    yield "limited", directory(tmp_path / "limited", late, objectives=OBJECTIVES, **OPEN)
    yield "failed", directory(tmp_path / "failed", [request(0, outcome="refused", error="no route")] * 3)
    yield "endpoints", directory(tmp_path / "two", chat(endpoints="ab"), **OPEN, **two)
    few = chat(30, failures=False)
    runs = [run(number, open_loop=True, measured=(500, 6000)) for number in range(2)]
    both = [row | {"run": number} for number in range(2) for row in chat(seed=number, failures=False)]
    yield "runs", directory(tmp_path / "runs", both, load=OPEN["load"], runs=runs)
    planned = [[block, "main"] for block in range(6)]
    design = {"arms": [{"name": "main"}], "primary": "main", "blocks": 6, "planned": planned}
    levels = [chat(seed=number, failures=False) for number in range(4)]
    levels.append(_slower(chat(seed=9, failures=False), 1.4))
    five = [row | {"run": number, "seq": i + 1} for number, rows in enumerate(levels) for i, row in enumerate(rows)]
    runs = [run(number, open_loop=True, measured=(500, 6000), block=number, arm="main") for number in range(5)]
    yield "campaign", directory(tmp_path / "campaign", five, load=OPEN["load"], runs=runs, design=design)
    yield "few", directory(tmp_path / "few", few, runs=[run(measured=(0, 700), interrupted=True)])


def _slower(rows, factor):
    for row in rows:
        row["event_ns"] = [row["intended_ns"] + round((at - row["intended_ns"]) * factor) for at in row["event_ns"]]
        row["done_ns"] = max([row["done_ns"], *row["event_ns"]])
    return rows


SLOTS_SIZE = {"k": 2, "bursts": 3, "at_once": [2, 2], "undecided": 1, "refused": 0, "failed": 0}
SLOTS_SIZE |= {"ttft_first_ms": 20.0, "ttft_last_ms": 21.0, "output_tokens_per_s": 400.0}
SLOTS_RATIO = {"value": 0.5, "low": 0.4, "high": 0.6, "confidence": 0.95, "n": 3, "notes": []}
SLOTS = {
    "target": {"name": "a", "url": "http://127.0.0.1:1", "version": "Ollama 0.33.0", "model": "tiny"},
    "slots": {"value": 2, "low": 2, "high": 3, "confidence": 0.97, "n": 12, "notes": ["12 of 12 bursts agree"]},
    "verdict": "found",
    "reason": None,
    "turned_away": "2 refused",
    "told": {"slots": 1, "from": "/props total_slots", "verdict": "disagrees"},
    "advice": ["2 slots: run at most 2 requests at once"],
    "sizes": [SLOTS_SIZE],
    "cache": {
        **{
            "verdict": "polluted",
            "ratio": SLOTS_RATIO,
            "control": SLOTS_RATIO,
            "fresh_ttft_ms": 20.0,
            "repeat_ttft_ms": 10.0,
        },
        **{"told": "50 % cached", "sentence": "a repeated prompt is answered sooner"},
    },
}

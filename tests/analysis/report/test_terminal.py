from pathlib import Path

import pytest

import analysis
from analysis.report import figures
from tests.analysis.handmade import directory, request, run
from tests.analysis.test_summary import OPEN, chat

GOLDEN = Path(__file__).parents[2] / "golden"

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


def test_reports_are_those_of_tests_golden(tmp_path, request):
    for name, path in reports(tmp_path):
        text = analysis.terminal_report(analysis.summarise(path))
        golden = GOLDEN / f"terminal-{name}.txt"
        if request.config.getoption("--refresh-golden"):
            golden.write_text(text)
        assert text == golden.read_text(), name


def test_no_line_is_wider_than_eighty_columns(tmp_path):
    for name, path in reports(tmp_path):
        for line in analysis.terminal_report(analysis.summarise(path)).splitlines():
            assert len(line) <= 80, (name, line)


def test_colour_only_adds_escape_sequences(tmp_path):
    import re

    for _, path in reports(tmp_path):
        summary = analysis.summarise(path)
        coloured = analysis.terminal_report(summary, colour=True)
        assert "\x1b[" in coloured
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == analysis.terminal_report(summary)


def test_a_servers_text_cannot_steer_the_terminal(tmp_path):
    rows = [request(0, outcome="http_error", status=500, error="\x1b[2Jgone\nverdict: OK\r" + "x" * 500)]
    text = analysis.terminal_report(analysis.summarise(directory(tmp_path, rows)))
    assert "\x1b" not in text
    assert "\r" not in text
    assert "\nverdict: OK" not in text
    assert "gone verdict: OK" in text


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (411.73, 398.9, 424.6, ("412", "± 13")),
        (20.0312475, 19.975, 20.089, ("20.031", "± 0.057")),
        (141.63, 129.1, 189.9, ("142", "129..190")),
        (0.0123, 0.0113, 0.0133, ("0.0123", "± 0.0010")),
        (82.1, 80.2, None, ("82.1", "≥ 80.2")),
        (None, 80.23, None, ("≥ 80.2", "")),
        (None, None, None, ("–", "")),
        (0.05, 0.05, 0.05, ("0.0500", "")),
        (923.4, 768.1, 1078.9, ("920", "± 160")),
        (1234567.8, 1230000.0, 1240000.0, ("1234600", "1230000..1240000")),
        (1234.5, None, None, ("1234", "")),
    ],
)
def test_figures_have_the_digits_their_doubt_leaves(value, low, high, expected):
    estimate = {"value": value, "low": low, "high": high}
    assert (figures.value(estimate), figures.interval(estimate)) == expected


def test_an_interval_that_does_not_fit_loses_decimals():
    estimate = {"value": 10234.5678, "low": 10234.1, "high": 10235.9}
    assert figures.interval(estimate, 14) == "10234..10236"

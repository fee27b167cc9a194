import pytest

import analysis
from analysis.estimate import Figure
from analysis.report import numbers
from tests.analysis.handmade import directory, request
from tests.analysis.report.samples import GOLDEN, reports


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
    figure = Figure(value, low, high, 0.95, 100)
    assert (numbers.value(figure), numbers.interval(figure)) == expected


def test_an_interval_that_does_not_fit_loses_decimals():
    assert numbers.interval(Figure(10234.5678, 10234.1, 10235.9, 0.95, 100), 14) == "10234..10236"

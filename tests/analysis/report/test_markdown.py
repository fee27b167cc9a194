import pytest
from msgspec import structs

import analysis
from analysis.figures.drawn import drawn_of
from analysis.report import sections
from analysis.report.charts import charts_of
from analysis.report.document import PAGE, Chart, Paragraph, Section
from tests.analysis.handmade import directory, request
from tests.analysis.report.samples import EVIL, GOLDEN, reports


def test_the_markdown_is_that_of_tests_golden(tmp_path, request):
    for name, path in reports(tmp_path):
        if name not in ("ok", "campaign"):
            continue
        text = analysis.markdown_report(analysis.summarise(path))
        golden = GOLDEN / f"markdown-{name}.md"
        if request.config.getoption("--refresh-golden"):
            golden.write_text(text)
        assert text == golden.read_text(), name


def test_every_kind_of_run_has_tables_with_as_many_cells_as_columns(tmp_path):
    for name, path in reports(tmp_path):
        text = analysis.markdown_report(analysis.summarise(path))
        assert text.endswith("\n"), name
        for block in text.split("\n\n"):
            rows = [line for line in block.splitlines() if line.startswith("|")]
            assert len({line.replace("\\|", "").count("|") for line in rows}) <= 1, (name, block)


def test_a_servers_words_do_not_become_markup(tmp_path):
    rows = [request(0, outcome="http_error", status=500, error=EVIL + "[x](http://evil) | `a` **b**\n# c")] * 3
    text = analysis.markdown_report(analysis.summarise(directory(tmp_path, rows, targets=[{"name": "a", "url": EVIL}])))
    assert "<script" not in text.replace("\\<script", "")
    assert "[x](" not in text.replace("\\[x\\](", "")
    assert "\n# c" not in text


def test_a_section_is_shown_in_every_report_where_the_summary_has_its_key(tmp_path, monkeypatch):
    def weather(summary):
        chart = Chart("Sky", "", [{"x": [1], "y": [2], "role": "gap"}], {})
        sections = [Section("Weather", [Paragraph("sky <blue>")]), Section("", [chart], only=PAGE)]
        return sections if summary.halted == "rain" else []

    monkeypatch.setitem(sections.PARTS, "weather", sections.Part(weather))
    path = directory(tmp_path, [request(10 * i, [10 * i + 5], output=1) for i in range(30)])
    summary = analysis.summarise(path)
    assert "Weather" not in analysis.terminal_report(summary)
    summary = structs.replace(summary, halted="rain")
    assert "\nWeather\nsky <blue>\n" in analysis.terminal_report(summary)
    assert "## Weather\n\nsky \\<blue\\>\n" in analysis.markdown_report(summary)
    page = analysis.html_report(path, summary)
    assert "<h2>Weather</h2>\n<p>sky &lt;blue&gt;</p>" in page
    assert '"title":"Sky"' in page


def test_runs_are_drawn_as_dots_and_what_stands_out_as_a_ring(tmp_path):
    path = dict(reports(tmp_path))["campaign"]
    m = analysis.measure(analysis.load(path))
    summary = analysis.summarise(m)
    charts = charts_of(drawn_of(m), summary)
    chart = next(chart for chart in charts if chart.title == "TTFT mean, run by run")
    band, line, dots, rings = chart.traces
    mean = summary.metrics.ttft_ms.mean
    assert (min(band["y"]), max(band["y"])) == pytest.approx((mean.low, mean.high), rel=1e-4)
    assert line["y"][0] == pytest.approx(mean.value, rel=1e-4)
    assert (dots["x"], rings["x"]) == ([0, 1, 2, 3], [4])
    curve = next(chart for chart in charts if chart.title == "TTFT by percentile")
    solid, dotted = curve.traces[-2:]
    n = summary.metrics.ttft_ms.p50.n
    assert (solid["line"]["dash"], dotted["line"]["dash"]) == ("solid", "dot")
    assert solid["x"][-1] == pytest.approx(n / 10, rel=1e-3)  # 1 - 10/n
    assert dotted["x"][-1] == pytest.approx(n, rel=1e-3)  # 1 - 1/n

"""The page: parseable, self-contained, harmless whatever a server said, small whatever the run was."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

import analysis
from analysis.figures.timeline import timeline_of
from analysis.stats.in_flight import time_in_flight
from tests.analysis.handmade import OPEN, chat, directory, request, run
from tests.analysis.report.samples import CALIBRATION, EVIL, OBJECTIVES, reports

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Elements, the texts of scripts, and whether every element that opens is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.scripts, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.text.append(data)


def page_of(path):
    return Page(analysis.html_report(path))


def charts_in(page):
    return json.loads(page.scripts[0])


def test_every_kind_of_run_makes_a_page_that_parses(tmp_path):
    for name, path in reports(tmp_path):
        page = page_of(path)
        ids = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
        assert {f"chart-{index}" for index in range(len(charts_in(page)))} <= ids, name


def test_the_page_loads_nothing(tmp_path):
    page = page_of(directory(tmp_path, chat(), objectives=OBJECTIVES, **OPEN))
    for tag, attrs in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base"), tag
        assert not {"src", "href", "srcset", "action", "data"} & set(attrs), (tag, attrs)
    policy = next(attrs["content"] for _, attrs in page.elements if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    style = next(text for text in page.text if ":root" in text)
    assert "url(" not in style
    assert "@import" not in style


def test_texts_of_servers_and_manifests_are_escaped_everywhere(tmp_path):
    rows = [request(0, outcome="http_error", status=500, error=EVIL)] * 3
    rows += [request(i, [i + 5, i + 9], endpoint=EVIL if i % 2 else "b", outcome="ok") for i in range(20)]
    rows += [request(0, outcome=EVIL)]
    targets = [{"name": EVIL, "url": EVIL, "model": EVIL}]
    path = directory(
        tmp_path, rows, targets=targets, host={"system": EVIL}, workload={"source": EVIL}, objectives={EVIL: 1}
    )
    text = analysis.html_report(path)
    page = Page(text)
    assert len(page.scripts) == 3
    assert "alert(1)" not in "".join(page.scripts[1:])
    assert not any(tag == "img" for tag, _ in page.elements)
    assert "<script>alert(1)" not in text
    assert EVIL.strip() in "".join(page.text)  # shown, as text
    drawn = json.dumps(charts_in(page), ensure_ascii=False)
    assert EVIL.strip().replace("<", "&lt;") in drawn  # plotly makes links of the tags that it reads
    assert set(re.findall("<[^>]*>", drawn)) <= {"<br>", "<extra>", "</extra>"}


def test_light_and_dark_are_both_there_and_give_every_role_a_colour(tmp_path):
    page = page_of(directory(tmp_path, chat(), **OPEN))
    style = next(text for text in page.text if ":root" in text)
    light, dark = style.split("@media (prefers-color-scheme: dark)", 1)
    dark = dark[: dark.index("* {")]
    roles = {trace["role"] for chart in charts_in(page) for trace in chart["traces"]}
    assert {"ttft", "gap", "flight", "worst", "failed0"} <= roles
    for role in {*roles, "card", "ink", "quiet", "rule"}:
        for part in (light, dark):
            assert re.search(rf"--{role}: #[0-9a-f]{{6}};", part), role  # page.js reads six digits


def test_no_percentile_is_drawn_where_the_verdict_forbids_them(tmp_path):
    late = [row | {"sent_ns": row["sent_ns"] + 40_000_000} for row in chat()]
    titles = [chart["title"] for chart in charts_in(page_of(directory(tmp_path / "late", late, **OPEN)))]
    assert "TTFT by percentile" not in titles
    assert "Requests in flight" in titles
    titles = [chart["title"] for chart in charts_in(page_of(directory(tmp_path / "ok", chat(), **OPEN)))]
    assert titles[:3] == ["TTFT by percentile", "ITL by percentile", "Share of samples no slower"]


def test_the_page_does_not_grow_with_the_run(tmp_path):
    few = analysis.html_report(directory(tmp_path / "few", chat(200), **OPEN))
    many = analysis.html_report(directory(tmp_path / "many", chat(4000), **OPEN))
    assert len(many) - len(few) < 60_000


def test_the_page_says_what_the_terminal_says(tmp_path):
    path = directory(tmp_path, chat(), objectives=OBJECTIVES, instrument={"calibration": CALIBRATION}, **OPEN)
    summary = analysis.summarise(path)
    text = "".join(Page(analysis.html_report(path, summary)).text)
    for expected in ("http://localhost:8000", "+17 ± 6 µs", "over capacity", "error_rate", "inconclusive", "✓ OK"):
        assert expected in text.replace("\n", " "), expected


@pytest.mark.parametrize(
    ("number", "told"),
    [(1, "95 %, within-run: of these requests"), (3, "95 %, over runs"), (5, "95 %, over runs")],
)
def test_the_page_says_what_its_intervals_are(tmp_path, number, told):
    rows = [row | {"run": run_, "seq": i + 1} for run_ in range(number) for i, row in enumerate(chat(seed=run_))]
    runs = [run(run_, open_loop=True, measured=(500, 6000)) for run_ in range(number)]
    path = directory(tmp_path, rows, load=OPEN["load"], runs=runs)
    page = page_of(path)
    text = "".join(page.text)
    assert told in text
    assert ("few runs" in text) == (number == 3)
    titles = [chart["title"] for chart in charts_in(page)]
    assert ("TTFT mean, run by run" in titles) == (number > 1)
    band = charts_in(page)[0]["traces"][0]
    assert band["band"] is True
    low = analysis.summarise(path).metrics.ttft_ms.p50.low
    assert min(abs(y - low) for y in band["y"]) < 0.02 * low  # the band is the interval that is printed


def test_time_in_flight_is_the_integral_of_what_is_in_flight():
    starts, ends = np.array([0, 10, 20]), np.array([30, 15, 40])
    at = np.array([0.0, 5, 12, 20, 50])
    expected = [sum(min(t, e) - min(t, s) for s, e in zip(starts, ends, strict=True)) for t in at]
    assert time_in_flight(starts, ends, at).tolist() == expected


def test_a_timeline_holds_every_request_and_token_once(tmp_path):
    m = analysis.measure(analysis.load(directory(tmp_path, chat(), **OPEN)))
    line = timeline_of(m, 0)
    flown = (m.requests.done_ns - m.requests.sent_ns).sum() / 1e9
    assert line.in_flight.sum() * line.width_s == pytest.approx(flown)  # Little's law, over everything
    assert line.tokens_per_s.sum() * line.width_s == pytest.approx(m.tokens.events.sum())
    assert line.failures["http_error"].sum() == 5
    assert np.nanmax(line.ttft_greatest_ms) == pytest.approx(analysis.summarise(m).metrics.ttft_ms.max, rel=0.5)


def test_a_measured_window_is_shaded_only_where_all_runs_share_it(tmp_path):
    rows = [row | {"run": number} for number in range(2) for row in chat(100)]
    for other, shaded in ((500, True), (1200, False)):
        runs = [run(0, open_loop=True, measured=(500, 2000)), run(1, open_loop=True, measured=(other, 2000))]
        charts = charts_in(page_of(directory(tmp_path, rows, load=OPEN["load"], runs=runs)))
        flight = next(chart for chart in charts if chart["title"] == "Requests in flight")
        assert (flight["measured"] == [0.5, 2.0]) == shaded


def test_every_axis_has_a_title_and_single_requests_are_seen(tmp_path):
    for name, path in reports(tmp_path):
        for chart in charts_in(page_of(path)):
            axes = [axis for key, axis in chart["layout"].items() if key.startswith(("xaxis", "yaxis"))]
            untitled = [axis for axis in axes if "title" not in axis and axis.get("showticklabels", True)]
            assert untitled == [], (name, chart["title"])
    lonely = [request(2000.0 * i, [2000.0 * i + 50, 2000.0 * i + 60], seq=i) for i in range(3)]
    charts = charts_in(page_of(directory(tmp_path / "lonely", lonely, runs=[run(0)])))
    ttft = next(chart for chart in charts if chart["title"] == "TTFT over time")
    assert [trace["mode"] for trace in ttft["traces"]] == ["lines", "lines+markers"]
    assert [value for value in ttft["traces"][1]["y"] if value is not None] == [50, 50, 50]


def test_a_rate_that_is_only_a_lower_bound_has_dots_and_no_band(tmp_path):
    """A server that counts no tokens: events stand in for them, and no interval is known."""
    rows = [request(i * 100.0, [i * 100.0 + 50, i * 100.0 + 60], run=r, seq=i) for r in range(3) for i in range(5)]
    page = page_of(directory(tmp_path / "run", rows, runs=[run(r) for r in range(3)]))
    (strip,) = (chart for chart in charts_in(page) if chart["title"].startswith("output tokens per second, run"))
    assert [trace["name"] for trace in strip["traces"]] == ["run"]
    assert strip["note"] == "One dot a run."

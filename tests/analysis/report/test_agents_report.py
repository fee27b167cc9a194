"""Agents and contention as people get them: text, markdown and charts from the summary alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from analysis import html_report, load, markdown_report, summarise, terminal_report
from analysis.agents.section import agents_section
from analysis.estimate import NoteCode
from analysis.report.agents import agents_sections
from analysis.report.agents_charts import charts_of_agents
from analysis.report.document import PAGE, Document
from analysis.report.html import as_page
from analysis.report.markdown import as_markdown
from analysis.report.text import as_text
from analysis.stats import planning
from tests.analysis.agent_runs import campaign, one_after_the_other

WOBBLE = (1.0, 1.01, 0.99, 1.005, 0.995)
CALLS = ((100.0, 10.0, 41), (200.0, 10.0, 21))


def calls(factor, slower=1.0):
    return one_after_the_other(0, *[(ttft * factor * slower, gap * factor * slower, n) for ttft, gap, n in CALLS])


def section_of(path):
    return agents_section(load(path))


def document_of(section):
    return Document("", agents_sections(section))


def agents_text(section):
    return as_text(document_of(section))


def agents_markdown(section):
    return as_markdown(document_of(section))


def agents_page(section):
    """The page without its charts, which need plotly's library of some megabytes."""
    return as_page(Document("", [part for part in agents_sections(section) if part.only != PAGE]))


@pytest.fixture
def shared(tmp_path):
    """Two agents on one GPU: everything takes half as long again."""
    blocks = [
        {
            "solo:collector": {"collector": calls(f)},
            "solo:insight": {"insight": calls(f)},
            "concurrent": {"collector": calls(f, 1.5), "insight": calls(f, 1.5)},
        }
        for f in WOBBLE
    ]
    return campaign(tmp_path / "shared", blocks)


@pytest.mark.parametrize(("until", "level"), [(None, "95 %"), (0.02, "97 %")])
def test_the_confidence_of_the_intervals_is_told(shared, until, level):
    manifest = json.loads((shared / "manifest.json").read_text())
    manifest["design"]["until"] = until
    (shared / "manifest.json").write_text(json.dumps(manifest))
    told = section_of(shared)
    assert f"| {level} interval |" in agents_markdown(told)
    assert level in [trace["name"] for chart in charts_of_agents(told) for trace in chart.traces]


def test_text_says_what_was_gained_and_what_it_cost(shared):
    text = agents_text(section_of(shared))
    assert all(len(line) <= 80 for line in text.splitlines())
    for told in (
        "collector, insight · chimera_homo · 5 blocks; 5 concurrent and 10 solo runs",
        "speedup             1.33",
        "overlap efficiency  1.00",
        "the guide's figure: excellent",
        "contention          CONTENTION",
        "TTFT service took 1.5 × solo, at least 1.5 ×",
        "speedup<1.5 0 of 5",
    ):
        assert told in text, told


def test_a_stretch_that_could_not_be_told_says_what_could_have_been(tmp_path):
    slower = (0.92, 1.20, 1.02, 1.15, 0.99)
    blocks = [
        {
            "solo:collector": {"collector": calls(f)},
            "solo:insight": {"insight": calls(f)},
            "concurrent": {"collector": calls(f, k), "insight": calls(f, k)},
        }
        for f, k in zip(WOBBLE, slower, strict=True)
    ]
    told = section_of(campaign(tmp_path / "noisy", blocks))
    found = told.contention
    assert found.verdict == "inconclusive"
    sd = float(np.log(slower).std(ddof=1))
    # One-sided at 5 %, and beyond the threshold; for log(1.05) more are needed than of a known SD, (2.49 sd)^2.
    least = 1.05 * math.exp(planning.minimum_detectable(5, size=0.10) * sd)
    for name in ("ttft", "tpot"):
        seen = getattr(found, f"{name}_stretch_detectable")
        assert seen.least == pytest.approx(least)
        assert (2.486 * sd / math.log(1.05)) ** 2 < seen.runs_needed < (2.486 * sd / math.log(1.05)) ** 2 + 3
    words = (
        f"so many runs find {least:.3g} × solo 80% of the time; for 1.1 ×, or to rule 1.05 × out where there is none"
    )
    for text in (agents_text(told), agents_markdown(told), agents_page(told)):
        assert f"TTFT service: {words}" in " ".join(text.replace("\\", "").split())


def test_a_stretch_that_was_told_says_nothing_of_what_could_have_been(shared):
    found = section_of(shared).contention
    assert found.verdict == "contention"
    assert (found.ttft_stretch_detectable, found.tpot_stretch_detectable) == (None, None)


def test_summary_and_every_report_have_the_section(shared):
    summary = summarise(shared)
    assert summary.agents.speedup.value == pytest.approx(4 / 3)
    assert summary.runs == 5  # of the concurrent arm
    assert "CONTENTION" in terminal_report(summary)
    for text in (terminal_report(summary), markdown_report(summary)):
        assert "2 agents" in text.partition("Agents")[0]  # the head line says what was asked
        assert text.index("speedup") < text.lower().index("concurrent runs, all agents") < text.rindex("TTFT service")
    page = html_report(shared, summary)
    assert page.index("<h2>Agents</h2>") < page.index("<h2>Concurrent runs, all agents</h2>")
    assert page.index("<h2>Concurrent runs, all agents</h2>") < page.index("<h2>Latency</h2>")
    assert "<h3>Contention</h3>" in page
    assert "<b>CONTENTION</b>" in page
    for title in (
        "What running together gained",
        "Call by call, alone and together",
        "Gaps between tokens, together against alone",
    ):
        assert title in page, title
    assert summary.to_json() == summarise(shared).to_json()


def test_markdown_is_a_section_with_its_tables(shared):
    text = agents_markdown(section_of(shared))
    assert text.startswith("## Agents\n")
    assert "| speedup | 1.33 |" in text
    assert "| collector | together |" in text
    assert "**CONTENTION**" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} <= {5, 8}


def test_charts_add_up(shared):
    lanes, gained, over_time = charts_of_agents(section_of(shared))
    bars = {trace["name"]: trace["x"][0] for trace in gained.traces if trace["type"] == "bar"}
    assert bars == {
        "speedup": pytest.approx(4 / 3),
        "lost to contention": pytest.approx(2 / 3),
        "lost to imbalance": pytest.approx(0),
    }
    streaming = next(trace for trace in lanes.traces if trace["name"] == "streaming")
    assert sorted(set(streaming["y"])) == [
        "collector, alone",
        "collector, together",
        "insight, alone",
        "insight, together",
    ]
    assert over_time.traces[1]["y"][0] == pytest.approx(1.5, rel=0.02)
    json.dumps([[chart.traces, chart.layout] for chart in (gained, lanes, over_time)], allow_nan=False)


def test_what_servers_and_profiles_say_is_no_markup(shared):
    told = section_of(shared)
    told = msgspec.structs.replace(told, scenario="<script>alert(1)</script>")
    assert "<script>" not in agents_page(told)
    assert "\\<script\\>" in agents_markdown(told)


def test_without_solo_runs_the_text_says_that_overlap_is_no_speedup(tmp_path):
    blocks = [{"concurrent": {"collector": calls(f), "insight": calls(f)}} for f in WOBBLE]
    told = section_of(campaign(tmp_path / "run", blocks))
    text = agents_text(told)
    assert "overlap is all that can be told, and overlap is no speedup" in " ".join(text.split())
    assert "contention          unknown" in text
    (gained,) = (chart for chart in charts_of_agents(told) if chart.title == "What running together gained")
    assert gained.traces[0]["name"] == "overlap, no speedup"


def test_a_campaign_without_a_finished_run_still_has_a_report(tmp_path):
    told = section_of(campaign(tmp_path / "run", []))
    assert told.speedup.value is None
    assert told.speedup.note_codes[0].code is NoteCode.NO_CONCURRENT_RUN
    assert agents_text(told)
    assert agents_markdown(told)
    assert agents_page(told)
    assert charts_of_agents(told) == []


FIXTURE = Path(__file__).parents[2] / "fixtures" / "b318a7d"
GOLDEN = Path(__file__).parents[2] / "golden"


def test_each_renderer_prints_the_agents_of_tests_golden(request):
    section = section_of(FIXTURE / "agents")
    for name, printed in (
        ("agents.txt", agents_text(section)),
        ("agents.md", agents_markdown(section)),
        ("agents.html", agents_page(section).partition("<main>")[2]),  # without the style
    ):
        if request.config.getoption("--refresh-golden"):
            (GOLDEN / name).write_text(printed)
        assert printed == (GOLDEN / name).read_text(), name


ROWS = ("collector  ", "insight    ", "| collector |", "| insight |", "|---|---|---:|---:|---:|---:")  # with a TTFT


def without_ttft(text):
    """The paragraphs of `text` that say nothing of TTFT, each in one line; what is escaped may differ."""
    lines = text.replace("\\", "").replace("\n    ", " ").splitlines()
    return [line for line in lines if "TTFT" not in line and not line.startswith(ROWS)]


@pytest.mark.parametrize("form", ["txt", "md"])
def test_an_old_report_of_agents_differs_only_where_it_says_ttft(form):
    old = (FIXTURE / f"agents.{form}").read_text()
    begin, end = ("Agents\n", "concurrent runs, all") if form == "txt" else ("## Agents\n", "## Concurrent runs")
    old = begin + old.partition(begin)[2].partition(end)[0].rstrip("\n") + "\n"
    section = section_of(FIXTURE / "agents")
    new = agents_text(section) if form == "txt" else agents_markdown(section)
    assert without_ttft(new) == without_ttft(old)
    assert len(without_ttft(new)) > 20

"""Agents and contention as people get them: text, markdown and charts from the summary alone."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import pytest

from analysis import html_report, load, markdown_report, summarise, terminal_report, to_json
from analysis.agents.section import agents_section
from analysis.report.agents import agents_charts, agents_html, agents_markdown, agents_text
from analysis.stats import planning
from tests.analysis.agent_runs import campaign, one_after_the_other

WOBBLE = (1.0, 1.01, 0.99, 1.005, 0.995)
CALLS = ((100.0, 10.0, 41), (200.0, 10.0, 21))


def calls(factor, slower=1.0):
    return one_after_the_other(0, *[(ttft * factor * slower, gap * factor * slower, n) for ttft, gap, n in CALLS])


def section_of(path):
    return msgspec.to_builtins(agents_section(load(path)))


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
    assert level in [trace["name"] for chart in agents_charts(told) for trace in chart["traces"]]


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
    found = told["contention"]
    assert found["verdict"] == "inconclusive"
    sd = float(np.log(slower).std(ddof=1))
    # One-sided at 5 %, and beyond the threshold; for log(1.05) more are needed than of a known SD, (2.49 sd)^2.
    least = 1.05 * math.exp(planning.minimum_detectable(5, size=0.10) * sd)
    for name in ("ttft", "tpot"):
        seen = found[f"{name}_stretch_detectable"]
        assert seen["least"] == pytest.approx(least)
        assert (2.486 * sd / math.log(1.05)) ** 2 < seen["runs_needed"] < (2.486 * sd / math.log(1.05)) ** 2 + 3
    words = (
        f"so many runs find {least:.3g} × solo 80% of the time; for 1.1 ×, or to rule 1.05 × out where there is none"
    )
    for text in (agents_text(told), agents_markdown(told), agents_html(told)):
        assert f"TTFT service: {words}" in " ".join(text.replace("\\", "").split())


def test_a_stretch_that_was_told_says_nothing_of_what_could_have_been(shared):
    found = section_of(shared)["contention"]
    assert found["verdict"] == "contention"
    assert (found["ttft_stretch_detectable"], found["tpot_stretch_detectable"]) == (None, None)


def test_summary_and_every_report_have_the_section(shared):
    summary = summarise(shared)
    assert summary["agents"]["speedup"]["value"] == pytest.approx(4 / 3)
    assert summary["runs"] == 5  # of the concurrent arm
    assert "CONTENTION" in terminal_report(summary)
    for text in (terminal_report(summary), markdown_report(summary)):
        assert "2 agents" in text.partition("Agents")[0]  # the head line says what was asked
        assert text.index("speedup") < text.lower().index("concurrent runs, all agents") < text.rindex("TTFT service")
    page = html_report(shared, summary)
    assert page.index("<h2>Agents</h2>") < page.index("<h2>Concurrent runs, all agents</h2>")
    assert page.index("<h2>Concurrent runs, all agents</h2>") < page.index("<h2>Latency</h2>")
    assert "<h3>Contention: found</h3>" in page
    for title in (
        "What running together gained",
        "Call by call, alone and together",
        "Gaps between tokens, together against alone",
    ):
        assert title in page, title
    assert to_json(summary) == to_json(summarise(shared))


def test_markdown_is_a_section_with_its_tables(shared):
    text = agents_markdown(section_of(shared))
    assert text.startswith("## Agents\n")
    assert "| speedup | 1.33 |" in text
    assert "| collector | together |" in text
    assert "**CONTENTION**" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} <= {5, 7}


def test_charts_add_up(shared):
    lanes, gained, over_time = agents_charts(section_of(shared))
    bars = {trace["name"]: trace["x"][0] for trace in gained["traces"] if trace["type"] == "bar"}
    assert bars == {
        "speedup": pytest.approx(4 / 3),
        "lost to contention": pytest.approx(2 / 3),
        "lost to imbalance": pytest.approx(0),
    }
    streaming = next(trace for trace in lanes["traces"] if trace["name"] == "streaming")
    assert sorted(set(streaming["y"])) == [
        "collector, alone",
        "collector, together",
        "insight, alone",
        "insight, together",
    ]
    assert over_time["traces"][1]["y"][0] == pytest.approx(1.5, rel=0.02)
    json.dumps([gained, lanes, over_time], allow_nan=False)


def test_what_servers_and_profiles_say_is_no_markup(shared):
    told = section_of(shared)
    told["scenario"] = "<script>alert(1)</script>"
    assert "<script>" not in agents_html(told)
    assert "\\<script\\>" in agents_markdown(told)


def test_without_solo_runs_the_text_says_that_overlap_is_no_speedup(tmp_path):
    blocks = [{"concurrent": {"collector": calls(f), "insight": calls(f)}} for f in WOBBLE]
    told = section_of(campaign(tmp_path / "run", blocks))
    text = agents_text(told)
    assert "overlap is all that can be told, and overlap is no speedup" in " ".join(text.split())
    assert "contention          unknown" in text
    (gained,) = (chart for chart in agents_charts(told) if chart["title"] == "What running together gained")
    assert gained["traces"][0]["name"] == "overlap, no speedup"


def test_a_campaign_without_a_finished_run_still_has_a_report(tmp_path):
    told = section_of(campaign(tmp_path / "run", []))
    assert told["speedup"]["value"] is None
    assert "no concurrent run finished" in told["speedup"]["notes"][0]
    assert agents_text(told)
    assert agents_markdown(told)
    assert agents_html(told)
    assert agents_charts(told) == []

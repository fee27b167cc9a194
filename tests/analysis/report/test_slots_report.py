"""The report of `loadgen slots`: the forms say the same, from JSON alone."""

from __future__ import annotations

import msgspec

from analysis.probes.slots import SlotsResult
from analysis.report.slots import slots_markdown, slots_page, slots_text
from tests.analysis.report.samples import SLOTS

RESULT = msgspec.convert(SLOTS, SlotsResult)


def test_text_has_facts_bursts_and_advice():
    assert slots_text(RESULT).splitlines() == [
        "http://127.0.0.1:1 · Ollama 0.33.0 · tiny",
        "",
        "slots         2 (97.0 % sure of 2 to 3; 12 of 12 bursts agree)",
        "it says       1 (/props total_slots), which DISAGREES with what was measured",
        "turned away   2 refused",
        "prefix cache  a repeated prompt is answered sooner",
        "              TTFT 20 ms fresh, 10 ms repeated; ratio 0.50 ± 0.10, of two fresh",
        "              ones 0.50 ± 0.10; 3 trios",
        "              it says: 50 % cached",
        "",
        "sent   began at once   undecided   first TTFT ms    last TTFT ms    tokens/s",
        "   2               2         1/3              20              21         400",
        "",
        "2 slots: run at most 2 requests at once",
    ]


def test_markdown_has_the_same_as_a_section():
    text = slots_markdown(RESULT)
    assert text.startswith("## Slots\n\nhttp://127.0.0.1:1 · Ollama 0.33.0 · tiny\n\n- **slots:** 2 (97.0 % sure")
    assert "|---:|---:|---:|---:|---:|---:|\n| 2 | 2 | 1/3 | 20 | 21 | 400 |\n\n- 2 slots: run" in text


def test_the_page_has_a_dot_per_burst_and_no_script():
    page = slots_page(RESULT)
    assert page.count("<circle") == 2
    assert "answers that began at once" in page
    assert "<script" not in page

"""Nothing that a server, a profile or a path says is markup in any form of any report.

Every text in a section gets HOSTILE behind it, except enumerations, and every key of a mapping (an endpoint, an agent,
a board). Each section is then printed by each renderer. To add a section: one line in SECTIONS.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from enum import Enum
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from msgspec import Struct, structs

import analysis
from analysis.catalogue import METRICS
from analysis.compare.compare import compare
from analysis.compare.sides import read_side
from analysis.estimate import Note
from analysis.figures.drawn import drawn_of
from analysis.probes.slots import SlotsResult
from analysis.report.agents import agents_sections
from analysis.report.charts import charts_of
from analysis.report.comparison import comparison_document
from analysis.report.document import Document
from analysis.report.html import as_page
from analysis.report.markdown import as_markdown
from analysis.report.matrix import matrix_document
from analysis.report.run import Extras, run_document
from analysis.report.runtimes import runtimes_document
from analysis.report.slots import slots_sections
from analysis.report.telemetry import energy_sections, telemetry_sections
from analysis.report.text import as_text
from analysis.suites.matrix import summarise_matrix
from analysis.suites.runtimes import summarise_runtimes
from analysis.telemetry.consumption import EnergySection
from tests.analysis.handmade import directory, request, run
from tests.analysis.report.samples import SLOTS
from tests.analysis.sampled import rows, write

FIXTURES = Path(__file__).parents[2] / "fixtures" / "b318a7d"
HOSTILE = (
    '<script>alert(1)</script>[x](http://evil)" onload="alert(2)"><a href=\'http://evil\'>y</a>![z](http://evil)|`c`|**b**_i_~~s~~$m$&lt;b&gt;'
    "\x1b[31m\x07\r\n# head\n\n- item\n1. one\n===\n\u202e\u2028\\"
)
VISIBLE = "<script>alert(1)</script>[x](http://evil)"
# Words that are no enumeration, and keys by which a value has its place.
OURS = {
    *("found", "at-least", "agrees", "disagrees", "polluted", "nvml", "host", "speedup<1.5", "source", "reason"),
    *METRICS,
}


def poisoned(value: Any) -> Any:
    """`value` with HOSTILE behind each text and each key of a mapping, except enumerations and OURS."""
    if isinstance(value, str):
        return value if isinstance(value, Enum) or value in OURS else value + HOSTILE
    if isinstance(value, Struct) and not isinstance(value, Note):
        fields = {name: poisoned(getattr(value, name)) for name in value.__struct_fields__}
        return structs.replace(value, **fields)
    if isinstance(value, dict):
        return {poisoned(key): poisoned(inner) for key, inner in value.items()}
    return type(value)(map(poisoned, value)) if isinstance(value, list | tuple) else value


# --- what is printed --------------------------------------------------------------------------------------------------


def run_report(tmp_path: Path) -> Document:
    rows_ = [request(0, outcome="http_error", status=500, error="no")] * 3
    rows_ += [request(i * 9, [i * 9 + 5, i * 9 + 9], endpoint="ab"[i % 2], run=i % 3, seq=i) for i in range(60)]
    design = {"arms": [{"name": "main"}], "primary": "main", "planned": [[block, "main"] for block in range(6)]}
    path = directory(
        tmp_path / "run",
        rows_,
        targets=[{"name": name, "url": f"http://{name}", "api": "openai", "model": "m"} for name in "ab"],
        objectives={"ttft_p99_ms": 500},
        runs=[run(number, block=number, arm="main") for number in range(3)],
        design=design,
        halted="stopped",
    )
    summary = analysis.summarise(path)
    m = analysis.measure(analysis.load(path))
    charts = charts_of(drawn_of(m), summary)
    return run_document(poisoned(summary), Extras(charts, "2026" + HOSTILE, [("host", HOSTILE)]))


def telemetry(tmp_path: Path) -> Document:
    sampled = rows("vllm:num_requests_waiting", {0: 1, 1: 3, 2: 1}, endpoint="a")
    sampled += rows("gpu_power_watts", dict.fromkeys(range(-1, 4), 200.0), source="nvml", gpu="0")
    absent = [{"source": "nvml", "reason": "no driver"}, {"source": "host", "reason": "no host"}]
    facts = {"interval_s": 0.5, "absent": absent, "notes": ["a note"]}
    path = directory(tmp_path / "run", [request(0, [40])], runs=[run(measured=(0, 2000))], telemetry=facts)
    write(path / "telemetry.parquet", sampled)
    return Document("", telemetry_sections(poisoned(analysis.summarise(path).telemetry)))


def energy(_: Path) -> Document:
    sections = [
        EnergySection(refused="why"),
        EnergySection(arm="a", method="counter", boards=("0",), arms={"b": EnergySection(refused="no board")}),
    ]
    return Document("", [part for section in sections for part in energy_sections(poisoned(section))])


def slots(_: Path) -> Document:
    return Document("slots", slots_sections(poisoned(msgspec.convert(SLOTS, SlotsResult))))


def agents(_: Path) -> Document:
    return Document("", agents_sections(poisoned(analysis.summarise(FIXTURES / "agents").agents)))


def comparison(_: Path) -> Document:
    return comparison_document(poisoned(compare(*(read_side(FIXTURES / name) for name in ("five", "five-b")))))


def runtimes(_: Path) -> Document:
    return runtimes_document(poisoned(summarise_runtimes(FIXTURES / "runtimes")))


def matrix(_: Path) -> Document:
    return matrix_document(poisoned(summarise_matrix(FIXTURES / "sweep")))


SECTIONS: dict[str, Callable[[Path], Document]] = {
    "run": run_report,
    "telemetry": telemetry,
    "energy": energy,
    "slots": slots,
    "agents": agents,
    "comparison": comparison,
    "runtimes": runtimes,
    "matrix": matrix,
}


# --- what may not be in it --------------------------------------------------------------------------------------------


def no_control_characters(printed: str) -> None:
    assert [char for char in set(printed) if not char.isprintable() and char != "\n"] == []
    assert VISIBLE in "".join(printed.split())
    assert not {"# head", "- item", "1. one", "==="} & {line.strip() for line in printed.splitlines()}


TEXT = {"text", "text_special", "softbreak", "strong_open", "strong_close"}
BLOCKS = {"paragraph", "heading", "bullet_list", "list_item", "table", "thead", "tbody", "tr", "th", "td"}


def no_markup_in_markdown(printed: str) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(printed)
    kinds = {token.type.removesuffix("_open").removesuffix("_close") for token in tokens}
    assert kinds <= BLOCKS | {"inline"}
    inline = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in inline} <= TEXT
    assert "b" not in _strong(inline)
    assert {token.content for token in tokens if token.type == "inline"}.isdisjoint({"head", "item", "one"})
    assert VISIBLE in "".join(child.content for child in inline)
    rows_ = [re.sub(r"\\.", "", line).count("|") for line in printed.splitlines() if line.startswith("|")]
    assert len(rows_) == sum(token.type == "tr_open" for token in tokens) + sum(
        token.type == "table_open" for token in tokens
    )  # each row is one line; and the line under the head
    for table in re.findall(r"(?:^\|.*\n)+", printed, re.MULTILINE):
        assert len({re.sub(r"\\.", "", line).count("|") for line in table.splitlines()}) == 1


def _strong(inline: Sequence[Token]) -> set[str]:
    pairs = itertools.pairwise(inline)
    return {after.content for before, after in pairs if before.type == "strong_open"}


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


OURS_ON_PAGE = {"type": "application/json", "id": "charts"}


def no_element_made_of_it(printed: str) -> None:
    page = Page(printed)
    assert not {tag for tag, _ in page.elements} & {"a", "img", "iframe", "object", "form", "link"}
    assert [attrs for tag, attrs in page.elements if tag == "script"] in ([], [OURS_ON_PAGE, {}, {}])
    assert not any(name.startswith("on") or name in ("href", "src") for _, attrs in page.elements for name in attrs)
    assert VISIBLE in page.text
    body = printed.split("<body>")[1].split("<script")[0]
    assert [char for char in set(body) if not char.isprintable() and char != "\n"] == []


RENDERERS: dict[str, tuple[Callable[[Document], str], Callable[[str], None]]] = {
    "text": (as_text, no_control_characters),
    "markdown": (as_markdown, no_markup_in_markdown),
    "page": (as_page, no_element_made_of_it),
}


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("section", SECTIONS)
def test_a_hostile_text_is_no_markup(section, renderer, tmp_path):
    print_, check = RENDERERS[renderer]
    check(print_(SECTIONS[section](tmp_path)))

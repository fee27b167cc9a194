"""A document in its three forms: the same words, laid out by each renderer, escaped by each."""

from __future__ import annotations

import re

from analysis.estimate import Figure, Note, NoteCode
from analysis.report.document import (
    MARKDOWN,
    PAGE,
    TEXT,
    Align,
    Bullets,
    Cell,
    Chart,
    Column,
    Document,
    Doubts,
    Facts,
    Mark,
    Paragraph,
    Place,
    Plot,
    PlotRow,
    Row,
    Scale,
    Section,
    Strong,
    Table,
    Tone,
)
from analysis.report.html import as_page
from analysis.report.markdown import as_markdown
from analysis.report.text import as_text

FEW = Figure(141.63, 129.1, 189.9, 0.95, 30, ("few tail samples",), (Note(NoteCode.FEW_TAIL_SAMPLES),))
MEAN = Figure(411.73, 398.9, 424.6, 0.95, 30)
TABLE = Table(
    (Column("ms", 6, Align.LEFT), Column("mean", 10), Column("p99", 12), Column("n", 5), Column("sd", only=PAGE)),
    [Row(("TTFT", MEAN, FEW, "30", "2.5"), under="why")],
    Doubts(Place.BELOW),
)


def test_a_table_has_intervals_below_in_text_and_in_brackets_in_markdown():
    document = Document("", [Section("Latency", [TABLE, Bullets(["a note"], indent=2)], text_title="")])
    assert as_text(document).splitlines() == [
        "ms          mean         p99    n",
        "TTFT         412        142*   30",
        "            ± 13    129..190",
        "  why",
        "  a note",
    ]
    assert as_markdown(document).splitlines() == [
        "## Latency",
        "",
        "| ms | mean | p99 | n |",
        "|---|---:|---:|---:|",
        "| TTFT | 412 ± 13 | 142† (129..190) | 30 |",
        "",
        "- a note",
    ]
    page = as_page(document)
    assert "<td>2.5</td>" in page
    assert '<span title="few tail samples">142<abbr title=' in page
    assert "<small>129..190</small>" in page
    assert "<script" not in page


def test_sections_stand_apart_and_empty_ones_nowhere():
    empty = Section("Nothing", [Bullets([]), Table([Column("a")], [])])
    document = Document("a title", [empty, Section("One", [Paragraph("x")]), Section("", [Paragraph("y")])])
    assert as_text(document) == "One\nx\n\ny\n"
    assert as_markdown(document) == "# a title\n\n## One\n\nx\n\ny\n"
    assert "Nothing" not in as_page(document)


def test_what_only_one_medium_shows_is_in_no_other():
    blocks = [Paragraph("in text", only=TEXT), Paragraph("in markdown", only=MARKDOWN), Paragraph("in page", only=PAGE)]
    document = Document("", [Section("S", blocks)])
    printed = (as_text(document), as_markdown(document), as_page(document))
    for at, words in enumerate(("in text", "in markdown", "in page")):
        assert [words in text for text in printed] == [place == at for place in range(3)]


def test_columns_without_a_width_are_as_wide_as_their_cells():
    columns = (Column("id", align=Align.LEFT), Column("phase", align=Align.LEFT), Column("tokens/s"))
    table = Table(columns, [Row(("one", "1", "37.85")), Row(("second", "2", Cell("0.985", "± 0.017")))])
    assert as_text(Document("", [Section("", [table])])).splitlines() == [
        "id      phase       tokens/s",
        "one     1              37.85",
        "second  2      0.985 ± 0.017",
    ]


def test_labels_are_cut_and_named_once_in_text_and_the_last_column_wraps():
    columns = (
        Column("agent", 7, Align.LEFT, cut=True, once=True),
        Column("", 4, Align.LEFT),
        Column("said", None, Align.LEFT, gap=1),
    )
    long = "word " * 20
    table = Table(columns, [Row(("collector", "a", "x")), Row(("collector", "b", long))])
    assert as_text(Document("", [Section("", [table])])).splitlines() == [
        "agent       said",
        "collec a    x",
        "       b    " + ("word " * 13).strip(),
        " " * 12 + ("word " * 7).strip(),
    ]
    assert as_markdown(Document("", [Section("", [table])])).count("| collector |") == 2


def test_facts_have_labels_in_a_column():
    facts = Facts([("slots", "4 " * 60), ("", "more")], 8)
    text = as_text(Document("", [Section("", [facts])])).splitlines()
    assert text[0].startswith("slots   4 4")
    assert text[1].startswith("        4")
    assert text[-1] == "        more"
    assert as_markdown(Document("", [Section("", [facts])])).startswith("- **slots:** 4 4")


def test_colour_only_adds_escape_sequences_and_marks_are_signs():
    table = Table(
        [Column("a", 8, Align.LEFT), Column("b", 6)],
        [Row((Cell("x", tone=Tone.GOOD), Cell("1", mark=Mark.STANDS_OUT)))],
    )
    document = Document("", [Section("S", [table, Paragraph((Strong("bold"), " words"), tone=Tone.DIM)])])
    coloured = as_text(document, colour=True)
    assert "\x1b[1;32mx       \x1b[0m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == as_text(document)
    assert "1!" in as_text(document)
    assert "| 1 ! |" in as_markdown(document)
    assert "**bold** words" in as_markdown(document)
    assert "<b>bold</b> words" in as_page(document)


def test_a_block_of_markdown_does_not_begin_a_list_or_a_rule():
    for words in ("1. one", "- two", "+ three", "---", "2) four", "===", "-"):
        (block,) = as_markdown(Document("", [Section("", [Paragraph(words)])])).splitlines()
        assert block in (f"\\{words}", words.replace(".", "\\.", 1), words.replace(")", "\\)", 1)), words
        assert block != words
    for words in ("-2.1 ± 9", "5 http errors", "+17 ± 6 µs"):
        assert as_markdown(Document("", [Section("", [Paragraph(words)])])) == f"{words}\n"


def test_charts_are_numbered_over_the_whole_page_and_have_their_data_in_it():
    charts = [Chart(f"chart {at}", "", [{"x": [1], "y": [2], "role": "ttft"}], {}) for at in range(3)]
    page = as_page(Document("t", [Section("", charts[:1]), Section("S", charts[1:])]))
    assert [page.index(f'id="chart-{at}"') for at in range(3)] == sorted(
        page.index(f'id="chart-{at}"') for at in range(3)
    )
    assert '"title":"chart 2"' in page
    assert "script-src" in page


def test_a_plot_has_a_dot_per_value_inside_the_picture():
    rows = [PlotRow("a", [0.2, 1.1], (0.1, 1.5), (0.05, 90.0), Tone.BAD), PlotRow("b", [1.0])]
    page = as_page(
        Document("t", [Section("S", [Plot(rows, "ratio", Scale.RATIO, band=(0.95, 1.05), summary="in words")])])
    )
    assert page.count("<circle") == 3
    places = [float(part.split('"')[0]) for part in page.split('cx="')[1:]]
    assert all(170 <= place <= 970 for place in places)
    assert 'aria-label="in words"' in page
    flat = as_page(Document("t", [Section("S", [Plot([PlotRow("a", [3.0, 3.0])], "answers", mark=3.0)])]))
    assert flat.count("<circle") == 2
    assert 'class="mark"' in flat

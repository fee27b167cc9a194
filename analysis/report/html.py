"""Documents as one page that opens from disk: no network, light or dark as the reader's system is.

All text is escaped, in markup.py, also inside the data of the charts. Beyond that the page forbids itself, by a content
security policy, to load anything at all; a page without charts has no script either.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analysis.report.document import (
    Align,
    Block,
    Bullets,
    Chart,
    Code,
    Content,
    Details,
    Document,
    Facts,
    Json,
    Medium,
    Paragraph,
    Plot,
    Preformatted,
    Row,
    Section,
    Strong,
    Table,
    Tile,
    Tiles,
    Tone,
    Words,
    cell,
    plain,
    spans,
)
from analysis.report.markup import Markup, element, escaped, joined, script_json
from analysis.report.plot import plot
from analysis.report.words import clean

__all__ = ["as_page"]

HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
SCRIPTED = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
MARKS = re.compile(r"<br>|<extra></extra>|<")  # of plotly's hover texts: the two that charts.py itself writes
SLIM = 6  # a table of fewer columns does not fill the page
VERDICTS = {Tone.GOOD: ("good", "✓"), Tone.BAD: ("bad", "✕"), Tone.WARN: ("open", "?")}


def as_page(document: Document) -> str:
    """The page. Its charts need plotly's library, which makes it some 4.7 MB; without a chart it is small."""
    printer = _Printer()
    head = element("header", element("h1", document.title), *printer.blocks(document.head))
    sections = [printer.section(section) for section in document.sections if Medium.PAGE in section.only]
    body = joined(head, *sections)
    style = element("style", Markup(f"\n{(HERE / 'page.css').read_text('utf-8')}"))
    policy = SCRIPTED if printer.charts else POLICY
    header = joined(
        element("meta", charset="utf-8"),
        element("title", f"loadgen: {document.title}"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        style,
    )
    main = joined(element("main", body), *_scripts(printer.charts))
    return f"<!doctype html>\n{element('html', element('head', header), element('body', main), lang='en')}\n"


def _scripts(charts: Sequence[Chart]) -> Iterator[Markup]:
    if charts:
        from plotly.offline import get_plotlyjs  # half a second to import, and needed by nothing else

        yield element("script", script_json([_data(chart) for chart in charts]), type="application/json", id="charts")
        yield element("script", Markup(get_plotlyjs()))
        yield element("script", Markup(f"\n{(HERE / 'page.js').read_text('utf-8')}"))


def _data(chart: Chart) -> dict[str, Json]:
    """The chart as page.js reads it."""
    return {
        "traces": _inert(chart.traces),
        "layout": _inert(chart.layout),
        "title": chart.title,
        "note": chart.note,
        "measured": chart.measured,
    }


def _inert(value: Json) -> Json:
    """`value` with the texts in it shown as they are: plotly reads some tags in them, links among them."""
    if isinstance(value, str):
        return MARKS.sub(lambda mark: mark[0] if mark[0] != "<" else "&lt;", clean(value))
    if isinstance(value, Mapping):
        return {key: _inert(inner) for key, inner in value.items()}
    return [_inert(inner) for inner in value] if isinstance(value, Sequence) else value


@dataclass(slots=True)
class _Printer:
    """Markup of blocks. charts: those printed so far; the number of each is its place in the page's data."""

    charts: list[Chart] = field(default_factory=list)

    def section(self, section: Section) -> Markup:
        """The section; empty without content. One that is all charts or tiles needs no frame: each of them has one."""
        content = joined(*self.blocks(section.blocks))
        bare = not section.title and all(isinstance(block, Chart | Tiles) for block in _of_page(section.blocks))
        if bare or not content:
            return content
        title = element(f"h{section.level}", *_inline(section.title)) if section.title else Markup()
        return element("section", joined(title, content))

    def blocks(self, blocks: Iterable[Block]) -> Iterator[Markup]:
        for are_charts, group in itertools.groupby(_of_page(blocks), lambda block: isinstance(block, Chart)):
            if are_charts:
                yield self._charts([block for block in group if isinstance(block, Chart)])
            else:
                yield from (self._block(block) for block in group)

    def _block(self, block: Block) -> Markup:
        match block:
            case Paragraph():
                return _paragraph(block)
            case Bullets():
                return _list(block.items)
            case Facts():
                rows = [
                    _cells(element("th", label, scope="row"), element("td", *_inline(w))) for label, w in block.facts
                ]
                return element("table", element("tbody", *rows), class_="facts")
            case Table():
                return _table(block)
            case Preformatted():
                return element("pre", block.text)
            case Details():
                title = element("summary", *_inline(block.title))
                return element("details", title, *self.blocks(block.blocks))
            case Tiles():
                return element("div", *map(_tile, block.tiles), class_="tiles")
            case Plot():
                return plot(block)
            case _:
                return Markup()

    def _charts(self, charts: Sequence[Chart]) -> Markup:
        """The places where the page draws `charts`."""
        whole_row = {at for at, chart in enumerate(charts) if chart.tall or chart.wide}
        edges = [-1, *sorted(whole_row), len(charts)]
        # The last of an odd number between them has no neighbour.
        whole_row |= {end - 1 for begin, end in itertools.pairwise(edges) if (end - begin) % 2 == 0}
        places = [self._chart(chart, at in whole_row) for at, chart in enumerate(charts)]
        return element("div", *places, class_="charts")

    def _chart(self, chart: Chart, whole: bool) -> Markup:
        place = element("div", id=f"chart-{len(self.charts)}", class_="plot")
        self.charts.append(chart)
        note = element("p", chart.note, class_="note") if chart.note else Markup()
        kinds = "chart" + " tall" * chart.tall + " whole" * whole
        return element("figure", element("figcaption", chart.title), note, place, class_=kinds)


def _of_page(blocks: Iterable[Block]) -> list[Block]:
    return [block for block in blocks if Medium.PAGE in block.only]


def _paragraph(block: Paragraph) -> Markup:
    words = _inline(block.words)
    if block.tone in VERDICTS:
        kind, sign = VERDICTS[block.tone]
        return element("p", element("span", sign, aria_hidden="true"), " ", *words, class_=f"verdict {kind}")
    if block.tone is Tone.HEAD:
        return element("p", element("b", *words))
    return element("p", *words, class_="note" if block.tone is Tone.DIM else None)


def _list(items: Iterable[Words]) -> Markup:
    lines = [element("li", *_inline(item)) for item in items]
    return element("ul", *lines) if lines else Markup()


def _inline(words: Words) -> list[Markup]:
    return [
        element("b", span.text)
        if isinstance(span, Strong)
        else element("code", span.text)
        if isinstance(span, Code)
        else escaped(span)
        for span in spans(words)
    ]


def _table(table: Table) -> Markup:
    columns = [column for column in table.columns if Medium.PAGE in column.only]
    rows = [_row(table, row) for row in table.rows if Medium.PAGE in row.only]
    if not rows:
        return Markup()
    sides = [_side(column.align) for column in columns]
    heads = [
        element("th", *_inline(column.label), scope="col", class_=side)
        for column, side in zip(columns, sides, strict=True)
    ]
    head = element("thead", _cells(*heads)) if Medium.PAGE in table.headed else Markup()
    body = element("tbody", *rows)
    return element("div", element("table", head, body, class_="slim" if len(columns) < SLIM else None), class_="wide")


def _row(table: Table, row: Row) -> Markup:
    pairs = zip(table.columns, row.cells, strict=True)
    texts = [(column.align, _cell(content)) for column, content in pairs if Medium.PAGE in column.only]
    first, *rest = texts
    return _cells(
        element("th", first[1], scope="row"),
        *(element("td", content, class_=_side(align)) for align, content in rest),
    )


def _side(align: Align) -> str | None:
    return "left" if align is Align.LEFT else None


def _cells(*cells: Markup) -> Markup:
    return element("tr", *cells)


def _cell(content: Content) -> Markup:
    content = cell(content)
    mark = element("abbr", content.mark.text, title=content.mark.meaning) if content.mark else Markup()
    doubt = content.doubt()
    small = element("small", doubt) if doubt else Markup()
    kind, sign = VERDICTS.get(content.tone, ("", ""))
    words = [*([Markup(f"{sign} ")] if sign else []), *_inline(content.words), mark]
    if kind:
        return joined(element("span", *words, class_=f"badge {kind}", title=content.hint or None), small, by="")
    dim = "quiet" if content.tone is Tone.DIM else None
    if not (content.hint or dim):
        return joined(*words, small, by="")
    return element("span", *words, small, title=content.hint or None, class_=dim)


def _tile(tile: Tile) -> Markup:
    value = cell(tile.value)
    beside = " ".join(filter(None, (value.doubt(), tile.unit)))
    return element(
        "div", element("span", tile.label), element("b", plain(value.words)), element("small", beside), class_="tile"
    )

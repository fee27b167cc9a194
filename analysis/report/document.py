"""A report as values: what it says, in which order, without a word on how it is printed.

A section is a function that takes its part of a summary and returns `Section`s; a `Document` is a title and sections.
Three renderers print documents: `text.as_text`, `markdown.as_markdown`, `html.as_page`. Each escapes what it prints, in
one place, so a section never does: a string is always shown as it is, whatever a server put into it. `Strong` and
`Code` are the only markup, and their text is escaped too. A section is written like this:

    def weather_sections(weather: Weather) -> list[Section]:
        columns = (
            Column("town", 13, Align.LEFT),                    # 13 characters wide in a text of 80
            Column("mean, °C", 15, text_label="mean"),         # right-aligned, as figures are
            Column("n", 7),
        )
        rows = [Row((name, town.mean_c, str(town.days))) for name, town in weather.towns.items()]
        return [
            Section(
                "Weather",                                     # `## Weather` in Markdown, <h2> on the page
                (
                    Paragraph(f"measured in {weather.country}"),
                    Table(columns, rows, Doubts(Place.BELOW)), # a Figure brings its interval: under it in text
                    Bullets(weather.notes, indent=2, tone=Tone.DIM),
                    Chart("Rain", "mm per day", traces, layout, only=PAGE),
                ),
            )
        ]

In text the blocks of a section stand under each other and sections are apart by an empty line; in Markdown all blocks
are apart. A block, row or column that only some media show says so in `only`; use it where their words differ today,
and prefer one block for all. A value that is a Figure is written with the digits that its interval leaves (numbers.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import Enum, StrEnum
from typing import TypeAlias

from analysis.estimate import Figure, NoteCode
from analysis.report import numbers

__all__ = [
    "EVERYWHERE",
    "MARKDOWN",
    "PAGE",
    "TEXT",
    "Align",
    "Block",
    "Bullets",
    "Cell",
    "Chart",
    "Code",
    "Column",
    "Content",
    "Details",
    "Document",
    "Doubts",
    "Facts",
    "Json",
    "Mark",
    "Media",
    "Medium",
    "Paragraph",
    "Place",
    "Plot",
    "PlotRow",
    "Preformatted",
    "Row",
    "Scale",
    "Section",
    "Span",
    "Strong",
    "Table",
    "Tile",
    "Tiles",
    "Tone",
    "Words",
    "cell",
    "plain",
    "spans",
]

# Data of plotly's charts: any JSON, by plotly's own schema.
Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


class Medium(StrEnum):
    """What a document is printed as."""

    TEXT = "text"
    MARKDOWN = "markdown"
    PAGE = "page"


Media: TypeAlias = frozenset[Medium]
EVERYWHERE: Media = frozenset(Medium)
TEXT: Media = frozenset({Medium.TEXT})
MARKDOWN: Media = frozenset({Medium.MARKDOWN})
PAGE: Media = frozenset({Medium.PAGE})


class Tone(StrEnum):
    """How words are stressed; they say the same without."""

    PLAIN = "plain"
    HEAD = "head"
    DIM = "dim"
    GOOD = "good"
    BAD = "bad"
    WARN = "warn"


# --- words -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Strong:
    """Words in bold. A terminal shows them as they are."""

    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """Words as a machine wrote them, in the type of code on the page; elsewhere as they are."""

    text: str


Span: TypeAlias = str | Strong | Code
Words: TypeAlias = Span | tuple[Span, ...]


def spans(words: Words) -> tuple[Span, ...]:
    """The parts of `words`."""
    return words if isinstance(words, tuple) else (words,)


def plain(words: Words) -> str:
    """`words` without markup."""
    return "".join(span if isinstance(span, str) else span.text for span in spans(words))


# --- tables ----------------------------------------------------------------------------------------------------------


class Mark(Enum):
    """A sign at a value: in text, in Markdown, and what the page says where it is pointed at."""

    FEW_TAIL_SAMPLES = ("*", "†", "few tail samples: fewer than ten are expected beyond it")
    STANDS_OUT = ("!", " !", "stands out from the other runs (robust z > 3.5); kept in every figure")

    def __init__(self, text: str, markdown: str, meaning: str) -> None:
        self.text = text
        self.markdown = markdown
        self.meaning = meaning


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its words and what stands beside them, such as an interval. hint: shown where the page is pointed at.

    Where `figure` is given, `beside` is its interval, with as many decimals as there is room for.
    """

    words: Words
    beside: str = ""
    figure: Figure | None = None
    mark: Mark | None = None
    hint: str = ""
    tone: Tone = Tone.PLAIN

    def doubt(self, width: int = 80) -> str:
        """What stands beside the words, in at most `width` characters where it is an interval."""
        return self.beside if self.figure is None else numbers.interval(self.figure, width)


Content: TypeAlias = Cell | Figure | Words


def cell(content: Content) -> Cell:
    """The cell of `content`. A figure brings its interval, its notes, and a mark where few samples lie beyond it."""
    if isinstance(content, Cell):
        return content
    if isinstance(content, Figure):
        few = content.value is not None and content.has(NoteCode.FEW_TAIL_SAMPLES)
        return Cell(
            numbers.value(content),
            figure=content,
            mark=Mark.FEW_TAIL_SAMPLES if few else None,
            hint="; ".join(content.notes),
        )
    return Cell(content)


class Align(StrEnum):
    """The side of a column that its cells keep to."""

    LEFT = "left"
    RIGHT = "right"


class Place(StrEnum):
    """Where what stands beside a value is printed."""

    BELOW = "below"  # on a second, dim line
    BESIDE = "beside"  # after the value and a space
    BRACKETS = "brackets"  # after it in brackets, but `±` without
    HIDDEN = "hidden"  # nowhere, and no mark either


@dataclass(frozen=True, slots=True)
class Doubts:
    """The places of intervals: text knows BELOW, BESIDE and HIDDEN, Markdown all but BELOW. The page has them below."""

    text: Place = Place.BESIDE
    markdown: Place = Place.BRACKETS


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its label, and how text lays it out. text_label: the label in text, if another.

    width: characters in text, with those that keep it from its neighbour; None: as wide as its cells, two spaces apart.
    gap: spaces before it. cut: longer cells lose their end, one space stays. once: a cell like the one above is left
    empty in text. doubt_width: the room for an interval in text; None: width - 1 below a value, any beside one.
    """

    label: Words = ""
    width: int | None = None
    align: Align = Align.RIGHT
    _: KW_ONLY
    text_label: str | None = None
    gap: int = 0
    cut: bool = False
    once: bool = False
    doubt_width: int | None = None
    only: Media = EVERYWHERE


@dataclass(frozen=True, slots=True)
class Row:
    """A row: a cell per column of the table, whichever media show the column. under: a line below it, in text alone."""

    cells: Sequence[Content]
    _: KW_ONLY
    under: str = ""
    tone: Tone = Tone.PLAIN
    only: Media = EVERYWHERE


# --- blocks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What a section consists of. only: the media that print it."""

    only: Media = EVERYWHERE


@dataclass(frozen=True, slots=True)
class Paragraph(Block):
    """A sentence or several. In text the first line is indented by `indent`, the next by `hang` more.

    With a tone GOOD, BAD or WARN it is a verdict, which the page shows as a badge.
    """

    words: Words
    indent: int = 0
    hang: int = 2
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Bullets(Block):
    """A list. In text each item is a paragraph, indented by `indent`, its further lines by `hang` more."""

    items: Sequence[Words]
    indent: int = 0
    hang: int = 2
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Facts(Block):
    """Labels with texts. In text the labels are `width` characters wide; an empty one continues the fact above."""

    facts: Sequence[tuple[str, Words]]
    width: int = 14


@dataclass(frozen=True, slots=True)
class Table(Block):
    """A table. headed: the media that print the labels. under_indent: of the lines under rows, in text."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    doubts: Doubts = Doubts()
    headed: Media = EVERYWHERE
    under_indent: int = 2


@dataclass(frozen=True, slots=True)
class Preformatted(Block):
    """Text whose lines and spaces matter."""

    text: str


@dataclass(frozen=True, slots=True)
class Details(Block):
    """Blocks that the page folds away under a title."""

    title: Words
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure large: its label, the value with its interval, the unit."""

    label: str
    value: Content
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Tiles(Block):
    """The few figures that are read first. Only the page shows them."""

    tiles: Sequence[Tile]


@dataclass(frozen=True, slots=True)
class Chart(Block):
    """A chart in plotly's terms; only the page shows it. See charts.py.

    tall, wide: it takes a whole row. measured: the seconds that are shaded. The colour of a trace is a role, by name.
    """

    title: str
    note: str
    traces: Sequence[Mapping[str, Json]]
    layout: Mapping[str, Json]
    _: KW_ONLY
    tall: bool = False
    wide: bool = False
    measured: Sequence[float] | None = None


class Scale(StrEnum):
    """The scale of a plot's axis. RATIO is logarithmic, with 1 in the middle."""

    LINEAR = "linear"
    RATIO = "ratio"


@dataclass(frozen=True, slots=True)
class PlotRow:
    """One row of a plot: dots, a thick line for an interval and a thin one for a wider. hint: of its dots.

    With a tone it is drawn in the colour of that verdict.
    """

    label: str
    dots: Sequence[float]
    interval: tuple[float, float] | None = None
    outer: tuple[float, float] | None = None
    tone: Tone = Tone.PLAIN
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Plot(Block):
    """Rows over one axis, as a picture without scripts. Only the page shows it.

    axis: what it measures, with the unit. mark: a value to draw a line at. band: values to shade. summary: in words.
    """

    rows: Sequence[PlotRow]
    axis: str = ""
    scale: Scale = Scale.LINEAR
    mark: float | None = None
    band: tuple[float, float] | None = None
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Section(Block):
    """Blocks under a title. text_title: the title in text, if another; "" for none. An untitled one stands apart."""

    title: Words
    blocks: Sequence[Block]
    _: KW_ONLY
    text_title: str | None = None
    level: int = 2


@dataclass(frozen=True, slots=True)
class Document:
    """A report. head: what stands right under the title. width: of its text, in characters.

    Text has no title. Without one, Markdown begins with the first section.
    """

    title: str
    sections: Sequence[Section]
    head: Sequence[Block] = ()
    width: int = 80

"""Documents as text for a terminal, in 80 columns.

Colour only stresses: with it or without, the words are the same. The control characters of others' texts are taken out
here (`_wrapped`, `_Line.add`), because a terminal obeys them: everything printed goes through one of the two.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from analysis.report.document import (
    Align,
    Block,
    Bullets,
    Cell,
    Column,
    Details,
    Document,
    Facts,
    Medium,
    Paragraph,
    Place,
    Preformatted,
    Row,
    Section,
    Table,
    Tone,
    Words,
    cell,
    plain,
)
from analysis.report.words import clean

__all__ = ["as_text"]

CODES = {Tone.HEAD: "1", Tone.DIM: "2", Tone.GOOD: "1;32", Tone.BAD: "1;31", Tone.WARN: "1;33"}  # ECMA-48 SGR
APART = 2  # spaces between columns without a width


def as_text(document: Document, *, colour: bool = False) -> str:
    """The document, no line wider than its width, ending in a newline. colour: with escape sequences for tones."""
    printer = _Printer(document.width, colour)
    parts = [printer.lines(document.head)]
    parts += [printer.section(section) for section in document.sections if Medium.TEXT in section.only]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


@dataclass(slots=True)
class _Line:
    """One line, in pieces that have a tone each."""

    pieces: list[tuple[str, Tone]] = field(default_factory=list)

    def add(self, words: str, tone: Tone = Tone.PLAIN) -> None:
        self.pieces.append((clean(words), tone))

    def __str__(self) -> str:
        return "".join(words for words, _ in self.pieces).rstrip()

    def ended(self) -> list[tuple[str, Tone]]:
        """The pieces without spaces at the line's end."""
        pieces = list(self.pieces)
        while pieces and not pieces[-1][0].strip():
            pieces.pop()
        return [*pieces[:-1], (pieces[-1][0].rstrip(), pieces[-1][1])] if pieces else []


@dataclass(frozen=True, slots=True)
class _Printer:
    width: int
    colour: bool

    def section(self, section: Section) -> list[str]:
        """The section's lines, nothing where it has no block for text."""
        lines = self.lines(section.blocks)
        title = plain(section.title) if section.text_title is None else section.text_title
        return [self._painted(clean(title), Tone.HEAD), *lines] if title and lines else lines

    def lines(self, blocks: Iterable[Block]) -> list[str]:
        return [line for block in blocks if Medium.TEXT in block.only for line in self._block(block)]

    def _block(self, block: Block) -> Iterable[str]:
        match block:
            case Paragraph():
                return self._paragraph(block.words, block)
            case Bullets():
                return [line for item in block.items for line in self._paragraph(item, block)]
            case Facts():
                return self._facts(block)
            case Table():
                return self._table(block)
            case Preformatted():
                return [clean(line) for line in block.text.splitlines()]
            case Details():
                return [self._painted(clean(plain(block.title)), Tone.HEAD), *self.lines(block.blocks)]
            case _:
                return []

    def _paragraph(self, words: Words, style: Paragraph | Bullets) -> list[str]:
        first, rest = " " * style.indent, " " * (style.indent + style.hang)
        return [self._painted(line, style.tone) for line in self._wrapped(plain(words), first, rest)]

    def _facts(self, block: Facts) -> Iterator[str]:
        for label, words in block.facts:
            first = f"{clean(label):<{block.width}}"
            lines = self._wrapped(plain(words), first, " " * block.width) or [first.rstrip()]
            head = lines[0].removeprefix(first)
            yield self._painted(first if head else first.rstrip(), Tone.HEAD) + head
            yield from lines[1:]

    # --- tables

    def _table(self, table: Table) -> Iterator[str]:
        columns = [column for column in table.columns if Medium.TEXT in column.only]
        rows = [row for row in table.rows if Medium.TEXT in row.only]
        texts = [_shown(table, row) for row in rows]
        labels = [plain(column.label) if column.text_label is None else column.text_label for column in columns]
        widths = [
            column.width or max([len(labels[at]), *(len(_text(cells[at], column, table)) for cells in texts)])
            for at, column in enumerate(columns)
        ]
        gaps = [column.gap or APART * (column.width is None and at > 0) for at, column in enumerate(columns)]
        layout = list(zip(columns, widths, gaps, strict=True))
        if rows and Medium.TEXT in table.headed and any(labels):
            yield self._painted(str(_line(labels, layout)), Tone.HEAD)
        above: list[str] = [""] * len(columns)
        for row, cells in zip(rows, texts, strict=True):
            values = [_text(content, column, table) for content, column in zip(cells, columns, strict=True)]
            printed = ["" if c.once and v == old else v for c, v, old in zip(columns, values, above, strict=True)]
            above = values
            yield from self._row(printed, cells, layout, row)
            if table.doubts.text is Place.BELOW:
                yield from self._below(cells, layout)
            indent = " " * table.under_indent
            yield from (self._painted(line, Tone.DIM) for line in self._wrapped(row.under, indent, indent))

    def _row(
        self, values: Sequence[str], cells: Sequence[Cell], layout: Sequence[tuple[Column, int, int]], row: Row
    ) -> Iterator[str]:
        line = _line(values, layout, [content.tone if row.tone is Tone.PLAIN else row.tone for content in cells])
        last = layout[-1][0]
        if len(str(line)) <= self.width or last.align is not Align.LEFT:
            yield self._coloured(line)
            return
        first = "".join(words for words, _ in line.pieces[:-1])
        yield from self._wrapped(values[-1], first, " " * len(first))

    def _below(self, cells: Sequence[Cell], layout: Sequence[tuple[Column, int, int]]) -> Iterator[str]:
        doubts = [
            content.doubt(column.doubt_width or width - 1)
            for content, (column, width, _) in zip(cells, layout, strict=True)
        ]
        if any(doubts):
            yield self._painted(str(_line(doubts, layout)), Tone.DIM)

    # --- lines

    def _wrapped(self, text: str, first: str, rest: str) -> list[str]:
        return textwrap.wrap(
            clean(text), self.width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
        )

    def _coloured(self, line: _Line) -> str:
        return "".join(self._painted(words, tone) for words, tone in line.ended())

    def _painted(self, text: str, tone: Tone) -> str:
        code = CODES.get(tone)
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code and text.strip() else text


def _shown(table: Table, row: Row) -> list[Cell]:
    pairs = zip(table.columns, row.cells, strict=True)
    return [cell(content) for column, content in pairs if Medium.TEXT in column.only]


def _text(content: Cell, column: Column, table: Table) -> str:
    """The cell's value, with its mark and what stands beside it, where they have a place in the line."""
    place, words = table.doubts.text, clean(plain(content.words))
    if place is not Place.HIDDEN and content.mark:
        words += content.mark.text
    doubt = clean(content.doubt(column.doubt_width or 80)) if place is Place.BESIDE else ""
    words = f"{words} {doubt}".rstrip()
    return words[: column.width - 1] if column.cut and column.width else words


def _line(values: Sequence[str], layout: Sequence[tuple[Column, int, int]], tones: Sequence[Tone] = ()) -> _Line:
    line = _Line()
    for at, (words, (column, width, gap)) in enumerate(zip(values, layout, strict=True)):
        line.add(" " * gap)
        line.add(
            words.ljust(width) if column.align is Align.LEFT else words.rjust(width), tones[at] if tones else Tone.PLAIN
        )
    return line

"""Documents as Markdown (CommonMark with GitHub's tables), for an issue, a pull request or a notebook.

Others' texts are escaped here, in `_escaped` and `_begun`: they must not become a link, a tag, a column or a list. An
address that stands alone may still be made a link by the site that shows it, to where it says that it leads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from analysis.report.document import (
    Align,
    Block,
    Bullets,
    Cell,
    Details,
    Document,
    Facts,
    Medium,
    Paragraph,
    Place,
    Preformatted,
    Section,
    Strong,
    Table,
    Words,
    cell,
    plain,
    spans,
)
from analysis.report.words import clean

__all__ = ["as_markdown"]

# An underscore within a word is none of it, nor is a "<" that begins no tag.
MARKUP = re.compile(r"[\\`*\[\]>|#~$]|<(?=[A-Za-z/!?])|(?<![^\W_])_|_(?![^\W_])")
ENTITY = re.compile(r"&(?=#?\w+;)")
BEGINS = re.compile(r"([-+](?=\s|$|-)|\d+(?=[.)](?:\s|$))|=(?==*\s*$))")  # a list, a rule, the line under a heading
SIGNED = "±"


def as_markdown(document: Document) -> str:
    """The document as Markdown, ending in a newline. Without a title it is a part of another one."""
    parts = [f"# {_escaped(document.title)}"] if document.title else []
    parts += _blocks(document.head)
    for section in document.sections:
        if Medium.MARKDOWN in section.only:
            parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    blocks = _blocks(section.blocks)
    return [f"{'#' * section.level} {_inline(section.title)}", *blocks] if blocks and section.title else blocks


def _blocks(blocks: Iterable[Block]) -> list[str]:
    texts = [text for block in blocks if Medium.MARKDOWN in block.only for text in _block(block)]
    return [text for text in texts if text]


def _block(block: Block) -> list[str]:
    match block:
        case Paragraph():
            return [_begun(block.words)]
        case Bullets():
            return ["\n".join(f"- {_begun(item)}" for item in block.items)]
        case Facts():
            return ["\n".join(f"- **{_escaped(label)}:** {_inline(words)}" for label, words in block.facts)]
        case Table():
            return [_table(block)]
        case Preformatted():
            return ["\n".join(f"    {clean(line)}" for line in block.text.splitlines())]
        case Details():
            return [f"**{_escaped(plain(block.title))}**", *_blocks(block.blocks)]
        case _:
            return []


def _table(table: Table) -> str:
    columns = [column for column in table.columns if Medium.MARKDOWN in column.only]
    labels = [_inline(column.label) for column in columns]
    rules = ["---" if column.align is Align.LEFT else "---:" for column in columns]
    head = _row(labels if Medium.MARKDOWN in table.headed else [""] * len(labels))
    if any(labels) and not labels[-1]:
        head = head.removesuffix("  |") + " |"  # one space for the label that is not there
    lines = [head, f"|{'|'.join(rules)}|"]
    for row in table.rows:
        if Medium.MARKDOWN in row.only:
            pairs = zip(table.columns, row.cells, strict=True)
            cells = [cell(content) for column, content in pairs if Medium.MARKDOWN in column.only]
            lines.append(_row([_cell(content, table.doubts.markdown) for content in cells]))
    return "\n".join(lines) if len(lines) > 2 else ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(content: Cell, place: Place) -> str:
    words, doubt = _inline(content.words), _escaped(content.doubt())
    if place is Place.HIDDEN:
        return words
    bare = place is Place.BESIDE or doubt.startswith(SIGNED)
    beside = "" if not doubt else f" {doubt}" if bare else f" ({doubt})"
    return f"{words}{_escaped(content.mark.markdown) if content.mark else ''}{beside}"


def _inline(words: Words) -> str:
    return "".join(
        f"**{_escaped(span.text)}**" if isinstance(span, Strong) else _escaped(plain(span)) for span in spans(words)
    )


def _begun(words: Words) -> str:
    """The words where a block begins: their first characters must not make it a list or a rule."""
    text = _inline(words).strip()
    mark = BEGINS.match(text)
    if mark is None:
        return text
    end = mark.end() if mark[0].isdecimal() else mark.start()
    return f"{text[:end]}\\{text[end:]}"


def _escaped(text: str) -> str:
    """The text so that Markdown shows it as it is, in one line."""
    return ENTITY.sub(r"\\&", MARKUP.sub(r"\\\g<0>", clean(text)))

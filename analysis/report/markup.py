"""HTML elements. Text becomes HTML in `element` and nowhere else, so that what is not `Markup` is escaped always."""

from __future__ import annotations

import json
from html import escape

from analysis.report.document import Json
from analysis.report.words import clean

__all__ = ["Markup", "element", "escaped", "joined", "script_json"]

EMPTY = frozenset({"meta", "br", "rect", "line"})
Attribute = str | float | bool | None


class Markup(str):
    """HTML that this package has made; never a text from elsewhere."""

    __slots__ = ()


def element(tag: str, *children: str | Markup, **attributes: Attribute) -> Markup:
    """`<tag attribute="...">children</tag>`; children that are not Markup are text.

    attributes: `class_` is written class, `text_anchor` text-anchor; None and False leave it out, True has no value.
    """
    written = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in EMPTY and not children:
        return Markup(f"<{tag}{written}>" if tag in ("meta", "br") else f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{''.join(escaped(child) for child in children)}</{tag}>")


def escaped(text: str | Markup) -> Markup:
    """The text as HTML: without control characters except line ends, and escaped. Markup stays as it is."""
    if isinstance(text, Markup):
        return text
    return Markup(escape("\n".join(map(clean, text.split("\n"))), quote=True))


def joined(*parts: Markup, by: str = "\n") -> Markup:
    """The parts that are not empty, one after the other."""
    return Markup(by.join(part for part in parts if part))


def script_json(value: Json) -> Markup:
    """JSON that may stand inside a script element, whatever texts are in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:.1f}" if isinstance(value, float) else clean(value)
    return f' {name}="{escape(text, quote=True)}"'

"""A fault of a profile as one line: the file or the command line, the path to the key, the value and the cure.

Only the first fault is reported, because the others often follow from it.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import JsonValue
from pydantic_core import ErrorDetails

from loadgen.profile.base import brief, did_you_mean
from loadgen.profile.loads import KINDS

__all__ = ["COMMAND_LINE", "one_line"]

COMMAND_LINE = "command line"
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "tuple_type": "a list",
}
_BOUND = {
    "greater_than": (">", "gt"),
    "greater_than_equal": (">=", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("<=", "le"),
}


def one_line(error: ErrorDetails, data: dict[str, JsonValue], place: str, given: dict[str, JsonValue]) -> str:
    """The line for `error` in `data`. place: the file; given: the overrides, which are blamed for what they hold."""
    loc = error["loc"]
    if loc[:1] == ("load",) and loc[1:2] and loc[1] in KINDS:  # the tag of the union is no step of the reader's
        loc = loc[:1] + loc[2:]
    where = _path(loc, data)
    context = error.get("ctx", {})
    kind = error["type"]
    got = "" if "headers" in loc else f", got {brief(error['input'])}"
    if kind == "profile":
        at = context["at"]
        where = ".".join(part for part in (where, at) if part)
        text = context["text"]
    elif kind == "missing":
        text = "is missing, add it"
    elif kind in _BOUND:
        sign, key = _BOUND[kind]
        text = f"must be {sign} {context[key]:g}{got}"
    elif kind == "literal_error":
        choices = context["expected"].replace("'", "").replace(" or ", ", ")
        text = f"must be one of {choices}{got}{did_you_mean(error['input'], choices.split(', '))}"
    else:
        text = f"must be {_EXPECTED[kind]}{got}" if kind in _EXPECTED else f"{error['msg']}{got}"
    from_options = place != COMMAND_LINE and _holds(given, where)
    return f"{COMMAND_LINE if from_options else place}: {where} {text}".replace("\n", " ")


def _path(loc: tuple[int | str, ...], data: Any) -> str:
    """`loc` as the reader wrote it: steps that normalisation put in (a list of one target) are left out."""
    path, node = "", data
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(part, int) and isinstance(node, list | tuple):
            path, node = f"{path}[{part}]", node[part]
        elif isinstance(part, str) and isinstance(node, dict) and (part in node or last):
            path, node = f"{path}.{part}" if path else part, node.get(part)
    return path


def _holds(given: dict[str, JsonValue], where: str) -> bool:
    """Whether the key at `where` came from `given`; a list in `given` came whole."""
    node: JsonValue = given
    for part in re.sub(r"\[\d+\]", "", where).split("."):
        if isinstance(node, list | tuple):
            return True
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True

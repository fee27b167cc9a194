"""The key reference of a profile as Markdown tables, made from the schema of its models.

`python -m loadgen.profile.reference` writes it between the two marks of docs/profiles.md; a test compares them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic.json_schema import JsonSchemaValue

from loadgen.profile.loads import KEYS
from loadgen.profile.profile import Profile

__all__ = ["BEGIN", "END", "PAGE", "reference_markdown", "with_reference"]

BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "profiles.md"
WORDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "object": "mapping",
    "array": "list",
    "null": "null",
}
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


def reference_markdown() -> str:
    """One table per section of a profile: key, type, default, meaning."""
    schema = Profile.model_json_schema()
    models: JsonSchemaValue = schema["$defs"]
    lines = ["### The top level", "", *_table(schema)]
    for name, paths in _sections(schema, models).items():
        model = models[name]
        kind = f": {name.lower()}" if name in _names(schema["properties"]["load"]) else ""
        about = " ".join(model.get("description", "").partition("\n\n")[0].split())
        lines += ["", f"### {', '.join(f'`{path}`' for path in paths)}{kind}", "", *([about, ""] if about else [])]
        lines += _table(model)
    return "\n".join(lines) + "\n"


def with_reference(page: str) -> str:
    """`page` with the reference of today between its marks. Raises ValueError if a mark is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there must be a line {BEGIN} and after it a line {END}")
    return f"{before}{BEGIN}\n{reference_markdown()}{END}{after}"


def _sections(top: JsonSchemaValue, models: JsonSchemaValue) -> dict[str, list[str]]:
    """The models below `top` in the order in which they are first named: name -> paths to them."""
    sections: dict[str, list[str]] = {}

    def walk(schema: JsonSchemaValue, path: str) -> None:
        below = []
        for key, value in schema["properties"].items():
            many = "[]" if any("items" in choice for choice in _choices(value)) else ""
            for name in _names(value):
                place = f"{path}{key}{many}"
                if name not in sections:
                    below.append((name, place))
                paths = sections.setdefault(name, [])
                if place not in paths:
                    paths.append(place)
        for name, place in below:
            walk(models[name], f"{place}.")

    walk(top, "")
    return sections


def _table(schema: JsonSchemaValue) -> Iterator[str]:
    required = schema.get("required", ())
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    keys = list(schema["properties"])
    if "arrivals" in keys:
        keys.sort(key=KEYS.index)
    for key in keys:
        value = schema["properties"][key]
        meaning = value.get("description", "")
        needed = key in required and "left out" not in meaning.lower()
        cells = (f"`{key}`", _type(value), "required" if needed else _default(value), meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _choices(value: JsonSchemaValue) -> list[JsonSchemaValue]:
    """The alternatives that a value has, null apart."""
    choices: list[JsonSchemaValue] = value.get("anyOf") or value.get("oneOf") or [value]
    return [choice for choice in choices if choice.get("type") != "null"]


def _names(value: JsonSchemaValue) -> list[str]:
    """The models that a value may be, or that a list of them may hold."""
    refs = [choice.get("$ref") or choice.get("items", {}).get("$ref") for choice in _choices(value)]
    return [ref.rpartition("/")[2] for ref in refs if ref]


def _type(value: JsonSchemaValue) -> str:
    return " or ".join(dict.fromkeys(_type_of(choice) for choice in _choices(value)))


def _type_of(choice: JsonSchemaValue) -> str:
    if "const" in choice:
        return f"`{choice['const']}`"
    if "enum" in choice:
        return ", ".join(f"`{word}`" for word in choice["enum"])
    if "$ref" in choice:
        return "mapping"
    words = WORDS[choice["type"]]
    if choice["type"] == "array":
        return f"{words} of {'mappings' if '$ref' in choice['items'] else 'text'}"
    bounds = [f"{sign} {choice[key]:,}" for key, sign in BOUNDS.items() if key in choice]
    return f"{words} {', '.join(bounds)}".rstrip()


def _default(value: JsonSchemaValue) -> str:
    default = value.get("default")
    return "–" if default in (None, "", []) else f"`{json.dumps(default)}`".replace('"', "")


def main() -> None:
    """Write the reference into docs/profiles.md."""
    PAGE.write_text(with_reference(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

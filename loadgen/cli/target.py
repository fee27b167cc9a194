"""What options on the command line say of a target, beyond what typer parses by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadgen.cli.exits import Exit, Stop

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["headers", "pairs"]


def pairs(name: str, given: list[str] | None) -> dict[str, JsonValue]:
    """Parse NAME=VALUE; the value as YAML would, so that 0.7 is a number and true a truth."""
    import yaml

    found = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise Stop(Exit.USAGE, f"{name} {text}: write it as NAME=VALUE")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise Stop(Exit.USAGE, f"{name} {key}: its value is not YAML, put quotes around text") from None
    return found


def headers(given: list[str] | None) -> dict[str, str]:
    """Parse 'Name: value'."""
    found = {}
    for text in given or ():
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            # It may be a secret without its name, so it is not repeated.
            raise Stop(Exit.USAGE, "--header has no colon: write it as 'Name: value'")
        found[name.strip()] = value.strip()
    return found

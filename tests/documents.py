"""The generated parts of the documents: `python -m tests.documents` rewrites them, tests compare.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->`, alone on their lines.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import typer

from loadgen.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
DESIGN = ROOT / "loadgen" / "DESIGN.md"
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), DESIGN)
LOADGEN = typer.main.get_command(app)
WITHOUT_TABLE = ("emulate",)  # argparse parses them, and its --help also lists the faults
SHARED = "run"  # the command whose options other commands refer to
LEAST_SHARED = 10  # options in common with `run`, from which on a command refers to it

PART = re.compile(r"(?<=^<!-- generated: )([a-z]+)( -->\n)(.*?)(?=^<!-- end: \1 -->$)", re.MULTILINE | re.DOTALL)

# The keys of a profile, written by another program.
OTHER_PART = re.compile(r"(^<!-- generated: begin -->\n).*?(^<!-- generated: end -->$)", re.MULTILINE | re.DOTALL)


def modules() -> list[Path]:
    """Every module of the two packages, each room's `__init__.py` first."""
    paths = [path for top in ("loadgen", "analysis") for path in sorted((ROOT / top).rglob("*.py"))]
    return sorted(paths, key=lambda path: (path.relative_to(ROOT).parts[0] != "loadgen", path.parent, path.name))


def first_line(path: Path) -> str:
    """The first line of the module's docstring. Raises AssertionError if it has none."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path.relative_to(ROOT)}: give it a docstring"
    return docstring.splitlines()[0]


def list_of_modules() -> str:
    """The block `modules`: a line per room, and below it one per module."""
    lines: list[str] = []
    for room, paths in groupby(modules(), key=lambda path: path.parent):
        within = list(paths)
        width = max(len(path.name) for path in within)
        for path in within:
            if path.name == "__init__.py":
                lines += ["", f"{room.relative_to(ROOT).as_posix()}/  {first_line(path)}"]
            else:
                lines.append(f"  {path.name:<{width}}  {first_line(path)}")
    return "```text" + "\n".join(lines) + "\n```\n"


def own_options(command: str) -> dict[str, typer.core.TyperOption]:
    """The options of a command by their names joined, `--help` not included."""
    options = [option for option in LOADGEN.commands[command].params if option.param_type_name == "option"]
    return {", ".join(f"`{name}`" for name in names_of(option)): option for option in options if not option.hidden}


def names_of(option: typer.core.TyperOption) -> list[str]:
    return [name for name in (*option.opts, *option.secondary_opts) if name.startswith("--")]


def tables_of_options() -> str:
    """The block `options`: a table per command. What a command shares with `run`, help included, is only named."""
    shared = own_options(SHARED)
    order = sorted(LOADGEN.commands, key=lambda name: (name != SHARED, name))
    return "\n" + "\n".join(_table(name, {} if name == SHARED else shared) for name in order)


def _table(command: str, shared: dict[str, typer.core.TyperOption]) -> str:
    if command in WITHOUT_TABLE:
        return f"## {command}\n\n`loadgen {command} --help` lists them.\n"
    options = own_options(command)
    same = [names for names, option in options.items() if names in shared and shared[names].help == option.help]
    same = same if len(same) >= LEAST_SHARED else []
    lines = [f"## {command}", "", "| option | meaning | default |", "|---|---|---|"]
    lines += [
        f"| {names} | {_cell(one.help)} | {_default(one)} |" for names, one in options.items() if names not in same
    ]
    if len(lines) == 4:
        lines = [*lines[:2], "None except `--help`."]
    return "\n".join(lines + (["", f"As in `loadgen {SHARED}`: {', '.join(same)}."] if same else [])) + "\n"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("<", "&lt;")


def _default(option: typer.core.TyperOption) -> str:
    if option.default is None or option.is_flag:
        return ""
    return f"`{getattr(option.default, 'value', option.default)}`"


GENERATORS: dict[str, Callable[[], str]] = {"modules": list_of_modules, "options": tables_of_options}


def generated(text: str) -> Iterator[tuple[str, str]]:
    """The generated parts of a document that this module knows: name, text as it stands."""
    return ((part[1], part[3]) for part in PART.finditer(text) if part[1] in GENERATORS)


def rewritten(text: str) -> str:
    """A document with its generated parts made anew."""
    return PART.sub(lambda part: part[1] + part[2] + GENERATORS[part[1]]() if part[1] in GENERATORS else part[0], text)


def handwritten(text: str) -> str:
    """A document without its generated parts, whichever program made them."""
    return OTHER_PART.sub(r"\1\2", PART.sub(r"\1\2", text))


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(rewritten(document.read_text(encoding="utf-8")), encoding="utf-8")

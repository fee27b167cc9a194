"""The README is tried out: its commands parse, its profiles load, its tables are complete, its paths exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from loadgen.cli.app import app, run_app
from loadgen.cli.exits import Exit
from loadgen.emulator.options import parse
from loadgen.manifest import JOURNAL
from loadgen.profile.profile import load, shipped

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ")
    for kind, block in BLOCKS
    if kind == "console"
    for line in block.replace("\\\n", " ").splitlines()
]
PROFILES = [block for kind, block in BLOCKS if kind == "yaml"]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
LOADGEN = typer.main.get_command(app)
SHORT = ["--requests", "16", "--output-tokens", "4", "--no-progress"]


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> set[str]:
    """What stands in backticks in the first column of the tables of `text`."""
    return {word for row in re.findall(r"^\|([^|]*)\|", text, re.MULTILINE) for word in re.findall("`([^`]+)`", row)}


def options_of_run() -> set[str]:
    long = {name for option in LOADGEN.commands["run"].params for name in option.opts if name.startswith("--")}
    return long - {"--help"}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_can_be_typed_as_it_stands(command):
    program, *words = shlex.split(command)
    program = program.removeprefix(".venv/bin/")
    if program == "make":
        assert [word for word in words if "=" not in word and word not in TARGETS] == []
    elif program == "loadgen" and words[0] == "emulate":
        parse(words[1:])
    elif program == "loadgen":
        subcommand = LOADGEN.commands[words[0]]
        given = subcommand.make_context(words[0], words[1:]).params  # raises on an option or value that is none
        if given.get("profile"):
            assert given["profile"] in shipped()
    else:
        assert program in ("python3", "pip"), "say in this test how to check it"


@pytest.mark.parametrize("text", PROFILES, ids=lambda text: text.splitlines()[0])
def test_profile_loads(text, tmp_path):
    path = tmp_path / "profile.yaml"
    path.write_text(text, encoding="utf-8")
    assert load(path).targets
    assert text.startswith("# "), "the first line says which question it answers"


def test_the_run_it_shows_has_the_lines_of_a_real_one(tmp_path, capsys):
    (shown,) = (block for kind, block in BLOCKS if kind == "output")
    (command,) = (one for one in COMMANDS if one.startswith("loadgen run quickstart"))
    words = shlex.split(command)[1:]
    words[words.index("--out") + 1] = str(tmp_path / "run")
    # On a machine that stalls for 20 ms, tokens share reads: that is told in other words, and not what is tested here.
    assert run_app([*words, *SHORT]) in (Exit.OK, Exit.VOID)
    printed = capsys.readouterr().out.replace("event gap", "ITL      ")

    def labels(text: str) -> list[str]:
        found = re.findall(r"^[a-zA-Z][a-zA-Z0-9 ]*?(?=:|  |\n)", text, re.MULTILINE)
        return [label for label in found if label != "http"]

    assert labels(shown) == labels(printed)
    assert "verdict" in labels(shown)
    assert {path.name for path in (tmp_path / "run").iterdir()} == first_cells(section("A run's directory")) - {
        f"{JOURNAL}/"
    }


def test_every_option_of_run_is_in_the_table_and_no_other():
    assert {word for word in first_cells(section("Commands")) if word.startswith("--")} == options_of_run()


def test_every_option_that_agents_has_and_run_has_not_is_in_its_table():
    params = LOADGEN.commands["agents"].params
    own = {name for option in params for name in (*option.opts, *option.secondary_opts) if name.startswith("--")}
    own -= options_of_run() | {"--help", "--solo"}
    assert own <= {word for word in first_cells(section("Agents")) if word.startswith("--")}


def test_every_command_is_in_the_table_and_no_other():
    named = {word.split()[1] for word in first_cells(section("Commands")) if word.startswith("loadgen ")}
    assert named == set(LOADGEN.commands)


def test_every_exit_code_is_in_the_table_and_no_other():
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)} == set(Exit)


def test_every_shipped_profile_is_named():
    assert set(shipped()) <= set(re.findall("`([^`]+)`", section("A profile")))


def test_every_file_it_sends_the_reader_to_exists():
    paths = set(re.findall(r"`((?:loadgen|analysis|profiles|tests)/[^`\s]*|LICENSE)`", README))
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_every_make_target_it_names_exists():
    named = set(re.findall(r"`make (?:\w+=\S+ )?([a-z-]+)`", README))
    assert named <= set(TARGETS)
    assert {"demo", "test"} <= named | {word for one in COMMANDS for word in shlex.split(one)}

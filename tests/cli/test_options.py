"""One table of options: what typer reads, what a profile gets, and what the documentation lists come from it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import typer

import loadgen.cli
from loadgen.cli.app import app
from loadgen.cli.options import COMMANDS, HELP, OPTIONS, Given, Measuring, takes
from loadgen.profile import Profile
from loadgen.profile.loads import KINDS
from tests.fakes.command import run_here

LOADGEN: Any = typer.main.get_command(app)
CLI = sorted(Path(loadgen.cli.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_takes_the_options_of_its_row_in_that_order(command: str) -> None:
    taken = [parameter.name for parameter in LOADGEN.commands[command].params]
    assert taken == list(COMMANDS[command])
    flags = [flag for parameter in LOADGEN.commands[command].params for flag in parameter.opts if flag[0] == "-"]
    assert len(flags) == len(set(flags))


def test_every_option_belongs_to_a_command_and_every_wording_to_an_option_of_one() -> None:
    assert set(OPTIONS) == {name for names in COMMANDS.values() for name in names}
    assert [(command, name) for command, name in HELP if name not in COMMANDS[command]] == []


def test_every_key_that_an_option_sets_is_one_of_a_profile() -> None:
    sections = {name: field.annotation for name, field in Profile.model_fields.items()}
    loads = {key for kind in KINDS.values() for key in kind.model_fields}
    for option in OPTIONS.values():
        section, _, key = option.key.partition(".")
        assert not section or section in sections, option
        if section == "load":
            assert key in loads, option
        elif key:
            assert f'"{key}"' in str(Profile.model_json_schema()["$defs"]).replace("'", '"'), option


def given_to(command: str, *words: str) -> Measuring:
    """What a command with these words on its line is given."""
    seen: list[Measuring] = []

    def keep(given: Measuring) -> int:
        seen.append(given)
        return 0

    one = typer.Typer(add_completion=False)
    one.command()(takes(command, Measuring)(keep))
    one(list(words), standalone_mode=False)
    return seen[0]


def test_only_what_was_given_reaches_the_profile() -> None:
    given = given_to(
        "run",
        *(
            "quickstart",
            "--rate",
            "3",
            "--objective",
            "error_rate=0.1",
            "--insecure",
            "--header",
            "A: b",
            "--until",
            "2%",
        ),
        *("--dataset", "d.jsonl", "--proxy", "http://p:1", "--out", "there", "--quiet"),
    )
    assert given.overrides == {
        "load": {"rate_per_s": 3.0},
        "work": {"dataset": "d.jsonl"},
        "campaign": {"until": "2%"},
        "objectives": {"error_rate": 0.1},
        "proxy": "http://p:1",
    }
    assert given.target == {"headers": {"A": "b"}, "verify_tls": False}
    assert (given.profile, given.out, given.quiet, given.progress) == ("quickstart", Path("there"), True, False)
    assert given_to("run").overrides == given_to("agents").overrides == Given().overrides == {}


def test_a_switch_with_two_sides_and_agents_options_reach_the_agents() -> None:
    given = given_to("agents", "--no-solo", "--agents", "3", "--chimera", "num_gpu=80", "--warmup-requests", "0")
    assert given.overrides == {"agents": {"solo": False, "count": 3, "chimera": {"num_gpu": 80}, "warmup_requests": 0}}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "no configurations: name a profile that has some, as agents-30"),
        (
            ("quickstart",),
            "quickstart: has no configurations; name a profile that has some, as agents-30, "
            "or use loadgen run quickstart",
        ),
        (
            ("two.yaml",),
            "two.yaml: has no configurations; name a profile that has some, as agents-30, "
            "or use loadgen agents two.yaml",
        ),
    ],
)
def test_matrix_refuses_a_profile_without_configurations_in_one_line(
    words: tuple[str, ...], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text("agents: {scenario: chimera_homo}\n", encoding="utf-8")
    result = run_here("matrix", *words, "--url", "http://localhost:1")
    assert (result.code, result.line, result.out) == (2, f"loadgen: {line}", "")


@pytest.mark.parametrize("path", CLI, ids=lambda path: path.name)
def test_no_function_of_the_command_line_is_longer_than_forty_lines(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > 40} == {}

"""The documents are tried out: commands parse, profiles load, tables are complete, paths and links exist.

README.md, docs/*.md and loadgen/DESIGN.md follow the same rules.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest

from loadgen.cli.app import run_app
from loadgen.cli.exits import Exit
from loadgen.emulator.options import parse
from loadgen.manifest import JOURNAL
from loadgen.profile import load, shipped
from tests.documents import DOCUMENTS, GENERATORS, LOADGEN, ROOT, generated, handwritten, names_of

TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in DOCUMENTS}
README = TEXTS["README.md"]
MOST_BYTES = 12_288  # of README
BLOCKS = [
    (name, *block)
    for name, text in TEXTS.items()
    for block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
]
COMMANDS = [
    (name, line.removeprefix("$ "))
    for name, kind, block in BLOCKS
    if kind == "console"
    for line in block.replace("\\\n", " ").splitlines()
]
PROFILES = [(name, block) for name, kind, block in BLOCKS if kind == "yaml"]
PROSE = {name: re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL) for name, text in TEXTS.items()}
INLINE = [(name, code) for name, text in PROSE.items() for code in re.findall(r"`([^`\n]+)`", text)]
LINKS = [(name, link) for name, text in PROSE.items() for link in re.findall(r"\]\(([^)\s]+)\)", text)]
SOURCES = [
    path
    for top in ("loadgen", "analysis", "grafana", "tests", "profiles")
    for path in sorted((ROOT / top).rglob("*"))
    if path.suffix in (".py", ".yaml", ".yml")
]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
SHORT = ["--requests", "16", "--output-tokens", "4", "--no-progress"]
FOREIGN = {"--enable-metrics", "--metrics"}  # options of the servers


def section(title: str, document: str = "README.md") -> str:
    """The text below a heading of the second level."""
    return TEXTS[document].partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> set[str]:
    """What stands in backticks in the first column of the tables of `text`."""
    return {word for row in re.findall(r"^\|([^|]*)\|", text, re.MULTILINE) for word in re.findall("`([^`]+)`", row)}


def options_of(command: str) -> set[str]:
    """The long options of a command, those that switch off included."""
    if command == "emulate":
        with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit):
            parse(["--help"])
        return set(re.findall(r"--[a-z0-9-]+", printed.getvalue()))
    return {name for option in LOADGEN.commands[command].params for name in names_of(option)}


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_command_can_be_typed_as_it_stands(document, command):
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
    elif program == "python":
        assert words[0] == "-m"
        assert (ROOT / (words[1].replace(".", "/") + ".py")).exists()
    else:
        assert program in ("python3", "pip"), f"{document}: say in this test how to check it"


@pytest.mark.parametrize(("document", "code"), [(name, code) for name, code in INLINE if code.startswith("loadgen ")])
def test_command_within_a_sentence_has_options_that_exist(document, code):
    words = code.removeprefix("loadgen ").split()
    if words[0].isupper():  # loadgen COMMAND --help
        return
    assert words[0] in LOADGEN.commands, document
    assert {word for word in words if word.startswith("--")} <= options_of(words[0]) | {"--help"}, document


@pytest.mark.parametrize("document", TEXTS)
def test_every_option_it_names_is_one_of_some_command(document):
    known = {option for command in LOADGEN.commands for option in options_of(command)} | {"--help"} | FOREIGN
    named = {word for name, code in INLINE if name == document for word in re.findall(r"^--[a-z0-9-]+", code)}
    assert named <= known


@pytest.mark.parametrize(("document", "text"), PROFILES, ids=lambda text: text.splitlines()[0])
def test_profile_loads(document, text, tmp_path):
    path = tmp_path / "profile.yaml"
    path.write_text(text, encoding="utf-8")
    assert load(path).targets
    assert text.startswith("# "), f"{document}: the first line says which question it answers"


def test_the_run_it_shows_has_the_lines_of_a_real_one(tmp_path, capsys):
    (shown,) = (block for _, kind, block in BLOCKS if kind == "output")
    command = next(line for _, line in COMMANDS if line.startswith("loadgen run quickstart"))
    words = shlex.split(command)[1:]
    words[words.index("--out") + 1] = str(tmp_path / "run")
    # On a machine that stalls for 20 ms, tokens share reads: the report then has other words, and is not tested here.
    assert run_app([*words, *SHORT]) in (Exit.OK, Exit.VOID)
    printed = capsys.readouterr().out.replace("event gap", "ITL      ")

    def labels(text: str) -> list[str]:
        words = re.findall(r"^[a-zA-Z][a-zA-Z0-9 ]*?(?=:|  |\n)", text, re.MULTILINE)
        return [word for word in words if word != "http"]

    assert labels(shown) == labels(printed)
    assert "verdict" in labels(shown)
    files = first_cells(section("A run's directory", "docs/campaigns.md")) - {f"{JOURNAL}/"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == files


def test_the_figures_of_agents_it_shows_are_those_of_a_real_report(tmp_path, capsys):
    (shown,) = (block for name, kind, block in BLOCKS if name == "docs/agents.md" and kind == "text")
    shutil.copytree(ROOT / "tests" / "fixtures" / "b318a7d" / "agents", tmp_path / "agents")
    assert run_app(["report", str(tmp_path / "agents")]) == Exit.OK
    printed = capsys.readouterr().out

    def figures(text: str) -> list[tuple[str, str]]:
        """Each figure's label and the words behind it, without the grade."""
        return re.findall(r"^ *([a-z][a-z /]+?)  +[\d.]+ (?:± )?[\d.]+ +([^:\n]+)", text, re.MULTILINE)

    assert len(figures(shown)) == 9
    assert set(figures(shown)) <= set(figures(printed))


def test_every_option_of_run_is_in_the_table_and_no_other():
    assert first_cells(section("run", "docs/options.md")) == options_of("run") - {"--help"}


def test_every_option_that_agents_has_and_run_has_not_is_in_its_table():
    own = options_of("agents") - options_of("run") - {"--help", "--solo"}
    assert own
    assert own <= {word for word in first_cells(section("Options", "docs/agents.md")) if word.startswith("--")}


def test_every_command_is_in_the_table_and_no_other():
    named = {word.split()[1] for word in first_cells(section("Commands")) if word.startswith("loadgen ")}
    assert named == set(LOADGEN.commands)
    assert named == set(re.findall(r"^## ([a-z]+)$", TEXTS["docs/options.md"], re.MULTILINE))


def test_every_exit_code_is_in_the_table_and_no_other():
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)} == set(Exit)


def test_every_shipped_profile_is_named():
    assert set(shipped()) == first_cells(TEXTS["docs/profiles.md"].partition("\n### ")[0])


def test_every_file_it_sends_the_reader_to_exists():
    paths = {
        code
        for _, code in INLINE
        if re.fullmatch(r"(?:(?:loadgen|analysis|profiles|tests|grafana|docs)/[^\s*<]*|LICENSE)", code)
    }
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", TEXTS)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(document):
    for link in [link for name, link in LINKS if name == document and not link.startswith(("http://", "https://"))]:
        file, _, anchor = link.partition("#")
        path = (ROOT / document).parent / file if file else ROOT / document
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


def test_every_document_can_be_reached_from_the_readme():
    reached, todo = set(), ["README.md"]
    while todo:
        name = todo.pop()
        reached.add(name)
        files = [link.partition("#")[0] for document, link in LINKS if document == name]
        linked = {((ROOT / name).parent / file).resolve() for file in files if file and "://" not in file}
        names = {path.relative_to(ROOT).as_posix() for path in linked}
        todo += sorted((names & set(TEXTS)) - reached)
    assert reached == set(TEXTS)


def test_every_citation_of_a_document_in_the_sources_leads_to_a_heading():
    cited = 0
    for path in SOURCES:
        for file, anchor in re.findall(r"\b(docs/[a-z-]+\.md|loadgen/DESIGN\.md)(?:#([a-z0-9-]+))?", path.read_text()):
            cited += 1
            assert (ROOT / file).exists(), f"{path}: {file}"
            assert not anchor or anchor in anchors(ROOT / file), f"{path}: {file}#{anchor}"
    assert cited


def test_no_source_cites_a_document_that_is_not_here():
    absent = r"METHODOLOGY|SYSTEMS \d|\bWIRE \d|DESIGN section"
    ours = [path for path in SOURCES if path != Path(__file__)]
    assert [path for path in ours if re.search(absent, path.read_text(encoding="utf-8"))] == []


def test_every_metric_of_a_server_in_the_table_is_read():
    table = section("Server metrics", "docs/servers.md")
    named = set(re.findall(r"`((?:vllm|sglang|llamacpp):[a-z_]+)`", table))
    assert len(named) > 10
    sources = "".join(path.read_text(encoding="utf-8") for path in SOURCES if path.parts[-2] == "telemetry")
    assert [name for name in sorted(named) if f'"{name}"' not in sources] == []


def test_every_known_answer_has_a_test():
    named = known_answers(section("Known answers", "docs/methodology.md"))
    assert len(named) > 20
    tested = set()
    for path in [path for path in SOURCES if "tests" in path.parts]:
        text = path.read_text(encoding="utf-8")
        tested |= set(re.findall(r"\bK\d+\b", text))
        tested |= {f"K{n}" for a, b in re.findall(r"\bK(\d+) to K(\d+)", text) for n in range(int(a), int(b) + 1)}
    assert named - tested == set()


def known_answers(text: str) -> set[str]:
    """The names of known answers in the first column of a table."""
    return set(re.findall(r"^\| (K\d+) \|", text, re.MULTILINE))


def test_the_generated_parts_are_what_the_generators_give():
    parts = {name: text for document in TEXTS.values() for name, text in generated(document)}
    assert set(parts) == set(GENERATORS)
    for name, text in parts.items():
        assert text == GENERATORS[name](), f"{name}: run .venv/bin/python -m tests.documents"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= MOST_BYTES


@pytest.mark.parametrize("document", TEXTS)
def test_lines_are_no_longer_than_those_of_the_sources(document):
    text = re.sub(r"^```.*?^```$", "", handwritten(TEXTS[document]), flags=re.MULTILINE | re.DOTALL)
    prose = [line for line in text.splitlines() if not line.startswith("|")]
    assert [line for line in prose if len(line) > 120] == []


def test_every_make_target_it_names_exists():
    named = set(re.findall(r"`make (?:\w+=\S+ )?([a-z-]+)`", "".join(TEXTS.values())))
    assert named <= set(TARGETS)
    assert {"demo", "test"} <= named | {word for _, line in COMMANDS for word in shlex.split(line)}

"""Who may import whom, and who may read the clock. The source is read, nothing is run.

The rules of the rooms are the rows of RULES.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "loadgen").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")])
CLOCKS = {
    *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"),
    *("process_time", "process_time_ns", "thread_time", "thread_time_ns", "clock_gettime", "clock_gettime_ns"),
    *("localtime", "gmtime", "ctime", "strftime", "sleep"),
}
WALL = {"now", "utcnow", "today"}


@dataclass(frozen=True)
class Rule:
    """The imports allowed in `room`: of the project nothing but `only`, if that is given, and nothing in `never`."""

    room: str
    only: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()

    def broken_by(self, importer: str, imported: str) -> bool:
        """Whether the arrow from `importer` to `imported` is one that this rule forbids."""
        if not is_in(importer, self.room):
            return False
        allowed = self.only is None or any(is_in(imported, name) for name in self.only)
        return not allowed or any(is_in(imported, name) for name in self.never)


WAIST = (
    "loadgen.record",
    "loadgen.manifest",
    "loadgen.suite_manifest",
    "loadgen.latency",
)  # what analysis may know of loadgen
RULES = (
    Rule("analysis", only=("analysis", *WAIST)),
    Rule("analysis.stats", only=("analysis.stats", "analysis.estimate")),
    Rule("analysis.records", only=(*WAIST, "analysis.records", "analysis.stats", "analysis.estimate")),
    Rule(
        "analysis.formats",
        only=(*WAIST, "analysis.formats", "analysis.records", "analysis.stats", "analysis.estimate"),
    ),
    Rule("analysis.report", never=("analysis.records",)),
    Rule("loadgen.wire", never=("loadgen.servers",)),
    Rule("loadgen.profile", never=("loadgen.servers",)),
    Rule("loadgen.workload", never=("loadgen.servers",)),
    Rule("loadgen.transport", never=("loadgen.servers",)),
    Rule("loadgen.emulator", only=("loadgen.emulator",)),
)
# The only rooms of loadgen that may import analysis.
CALLERS = ("loadgen.campaign", "loadgen.probes", "loadgen.suites", "loadgen.cli")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path, *, for_types_too: bool = False) -> Iterator[str]:
    """Every dotted name `path` imports, at any depth; relative imports are made absolute."""
    tree = parsed(path)
    skipped = set() if for_types_too else set(map(id, _type_checking_only(tree)))
    package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{whole}.{alias.name}" for alias in node.names)


def _type_checking_only(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for inside in node.body:
                yield from ast.walk(inside)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@cache
def arrows() -> dict[str, frozenset[str]]:
    """For each module of the project the others that it imports, at any depth and for types too."""
    paths = {module_of(path): path for path in SOURCES}

    def nearest(name: str) -> str:
        """The module that `name` is or is defined in, "" if that is not the project's."""
        return name if name in paths or not name else nearest(name.rpartition(".")[0])

    return {
        module: frozenset(map(nearest, imported(path, for_types_too=True))) - {"", module}
        for module, path in paths.items()
    }


def circles(graph: dict[str, frozenset[str]]) -> list[frozenset[str]]:
    """The strongly connected components of two nodes or more (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[frozenset[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for neighbour in graph[node]:
            if neighbour not in index:
                visit(neighbour)
                low[node] = min(low[node], low[neighbour])
            elif neighbour in stack:
                low[node] = min(low[node], index[neighbour])
        if low[node] == index[node]:
            at = stack.index(node)
            component = frozenset(stack[at:])
            del stack[at:]
            if len(component) > 1:
                components.append(component)

    for node in graph:
        if node not in index:
            visit(node)
    return components


def clock_reads(path: Path) -> list[str]:
    """Calls and mentions of the clocks of `time` and `datetime`, under whatever name they were imported."""
    tree = parsed(path)
    aliases, found = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name for alias in node.names if alias.name == "time"}
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            found += [f"from time import {alias.name}" for alias in node.names if alias.name in CLOCKS]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = node.value.id
            if (owner in aliases and node.attr in CLOCKS) or (owner in ("datetime", "date") and node.attr in WALL):
                found.append(f"{owner}.{node.attr}, line {node.lineno}")
    return found


def test_the_walk_sees_the_whole_house():
    seen = {name_of(path) for path in SOURCES}
    assert {"loadgen/record.py", "loadgen/wire/openai.py", "loadgen/cli/app.py", "analysis/summary.py"} <= seen
    assert arrows()["analysis.records.measured"] >= {"loadgen.record", "analysis.records.windows"}
    assert arrows()["loadgen.emulator.server"] >= {"loadgen.emulator.routes", "loadgen.emulator.stream"}
    assert clock_reads(ROOT / "loadgen" / "clock.py")


def offenders() -> set[tuple[str, str]]:
    return {
        (importer, imported)
        for importer, targets in arrows().items()
        for imported in targets
        if any(rule.broken_by(importer, imported) for rule in RULES)
    }


def test_no_room_imports_what_its_rule_forbids():
    assert offenders() == set()


def test_no_modules_import_each_other_in_a_circle():
    assert set(circles(arrows())) == set()


def test_a_circle_is_found_and_a_diamond_is_none():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e", "f"}, "e": {"g"}, "f": {"g"}, "g": set(), "h": {"a"}}
    assert circles({node: frozenset(targets) for node, targets in graph.items()}) == [frozenset("abc")]


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("analysis.stats.ranks", "analysis.records.frame"),
        ("analysis.records.frame", "analysis.figures.metrics"),
        ("analysis.records.frame", "loadgen.clock"),
        ("analysis.report.html", "analysis.records.measured"),
        ("analysis.formats.perfetto", "analysis.summary"),
        ("loadgen.wire.http", "loadgen.servers.endpoint"),
        ("loadgen.transport.sockets", "loadgen.servers.endpoint"),
        ("loadgen.emulator.server", "loadgen.clock"),
    ],
)
def test_an_arrow_upwards_breaks_a_rule(importer, imported):
    assert any(rule.broken_by(importer, imported) for rule in RULES)


@pytest.mark.parametrize("path", [p for p in SOURCES if is_in(module_of(p), "analysis")], ids=name_of)
def test_analysis_knows_of_loadgen_only_the_waist(path):
    ours = {name for name in imported(path, for_types_too=True) if is_in(name, "loadgen")} - {"loadgen"}
    assert all(any(is_in(name, waist) for waist in WAIST) for name in ours), ours


@pytest.mark.parametrize("path", [p for p in SOURCES if is_in(module_of(p), "analysis")], ids=name_of)
def test_analysis_touches_neither_network_nor_clock_nor_event_loop(path):
    outside = ("asyncio", "socket", "ssl", "http", "urllib.request", "aiohttp", "uvloop", "selectors", "subprocess")
    assert not [name for name in imported(path) if any(is_in(name, one) for one in outside)]
    assert clock_reads(path) == []


@pytest.mark.parametrize("path", [p for p in SOURCES if is_in(module_of(p), "loadgen")], ids=name_of)
def test_only_the_command_line_and_the_campaign_import_analysis(path):
    if not any(is_in(module_of(path), room) for room in CALLERS):
        assert not [name for name in imported(path, for_types_too=True) if is_in(name, "analysis")]


PURE = ("loadgen.wire", "loadgen.record", "loadgen.engine.schedule", "loadgen.profile", "loadgen.workload")


@pytest.mark.parametrize("path", [p for p in SOURCES if any(is_in(module_of(p), pure) for pure in PURE)], ids=name_of)
def test_the_pure_modules_import_neither_event_loop_nor_socket_nor_time(path):
    outside = ("asyncio", "socket", "time", "uvloop", "aiohttp", "ssl", "select", "loadgen.clock", "loadgen.transport")
    assert not [name for name in imported(path) if any(is_in(name, one) for one in outside)]


def test_the_record_imports_nothing_of_ours():
    assert not [
        name for name in imported(ROOT / "loadgen" / "record.py") if name.split(".")[0] in ("loadgen", "analysis")
    ]


# The emulator is a server with a loop of its own, and must not share our clock module to be a witness against it.
CLOCKLESS = [p for p in SOURCES if module_of(p) != "loadgen.clock" and not is_in(module_of(p), "loadgen.emulator")]


@pytest.mark.parametrize("path", CLOCKLESS, ids=name_of)
def test_only_the_clock_module_reads_a_clock(path):
    assert clock_reads(path) == []


def test_the_emulator_imports_nothing_of_the_instrument_it_calibrates():
    for path in (ROOT / "loadgen" / "emulator").rglob("*.py"):
        ours = {name for name in imported(path) if is_in(name, "loadgen") and not is_in(name, "loadgen.emulator")}
        assert not ours, name_of(path)

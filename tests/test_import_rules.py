"""Who may import whom, and who may look at the clock. The source is read, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
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
            yield whole
            yield from (f"{whole}.{alias.name}" for alias in node.names)


def _type_checking_only(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for inside in node.body:
                yield from ast.walk(inside)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


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
    assert set(imported(ROOT / "analysis" / "records" / "measured.py")) >= {"loadgen.record", "analysis.records.frame"}
    assert clock_reads(ROOT / "loadgen" / "clock.py")


WAIST = ("loadgen.record", "loadgen.manifest", "loadgen.latency")


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
    if not (is_in(module_of(path), "loadgen.cli") or module_of(path) == "loadgen.campaign.campaign"):
        assert not [name for name in imported(path, for_types_too=True) if is_in(name, "analysis")]


PURE = ("loadgen.wire", "loadgen.record", "loadgen.engine.schedule", "loadgen.profile.profile", "loadgen.workload")


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
        assert ours <= {"loadgen"}, name_of(path)

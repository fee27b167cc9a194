"""loadgen/DESIGN.md names every module, and those it calls pure are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DESIGN = (ROOT / "loadgen" / "DESIGN.md").read_text(encoding="utf-8")
LISTED = dict(re.findall(r"^((?:loadgen|analysis)/\S+\.py)\s+(pure|files|world)\s+\S", DESIGN, re.MULTILINE))
# fmt: off
WORLDLY = {
    "aiohttp", "asyncio", "concurrent", "ctypes", "datetime", "multiprocessing", "os", "psutil", "resource", "secrets",
    "select", "signal", "socket", "ssl", "subprocess", "threading", "time", "uvloop",
}
# fmt: on
OURS = (
    "loadgen.clock",
    "loadgen.transport",
    "loadgen.engine.engine",
    "loadgen.engine.client",
    "loadgen.fleet",
    "loadgen.campaign.measure",
    "loadgen.campaign.prepare",
)


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_every_module_is_named_and_no_other():
    there = {str(path.relative_to(ROOT)) for top in ("loadgen", "analysis") for path in (ROOT / top).rglob("*.py")}
    assert {"not in DESIGN.md": there - set(LISTED), "not there": set(LISTED) - there} == {
        "not in DESIGN.md": set(),
        "not there": set(),
    }


@pytest.mark.parametrize("name", sorted(name for name, kind in LISTED.items() if kind != "world"))
def test_module_that_is_not_of_the_world_imports_none_of_it(name):
    allowed = {"os"} if LISTED[name] == "files" else set()
    found = imports(ROOT / name) if (ROOT / name).exists() else set()
    worldly = {one for one in found if one.split(".")[0] in WORLDLY - allowed or one.startswith(OURS)}
    assert worldly == set()

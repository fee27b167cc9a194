"""loadgen/DESIGN.md names every module, by its own first line, and the rooms that are pure are."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from loadgen.manifest import Manifest
from tests.documents import DESIGN, ROOT, first_line, generated, list_of_modules, modules

TEXT = DESIGN.read_text(encoding="utf-8")
NAMES = {path.relative_to(ROOT).as_posix(): path for path in modules()}
# Pure: no clock, socket, event loop or process. Rooms end in a slash.
PURE = (
    "loadgen/__init__.py",
    "loadgen/errors.py",
    "loadgen/latency.py",
    "loadgen/manifest.py",
    "loadgen/suite_manifest.py",
    "loadgen/record.py",
    "loadgen/profile/",
    "loadgen/wire/",
    "loadgen/workload/",
    "loadgen/campaign/design.py",
    "loadgen/campaign/resume.py",
    "loadgen/cli/exits.py",
    "loadgen/cli/options.py",
    "loadgen/cli/target.py",
    "loadgen/engine/schedule.py",
    "loadgen/engine/tally.py",
    "loadgen/servers/identify.py",
    "loadgen/servers/told_slots.py",
    "loadgen/servers/urls.py",
    "loadgen/telemetry/prometheus.py",
    "loadgen/emulator/faults.py",
    "loadgen/emulator/http.py",
    "loadgen/emulator/lmstudio.py",
    "loadgen/emulator/openai.py",
    "loadgen/emulator/options.py",
    "loadgen/emulator/physics.py",
    "loadgen/emulator/routes.py",
    "loadgen/emulator/text.py",
    "analysis/",
)
# Like those, but they read or write files and may import os for it.
FILES = (
    "loadgen/cli/compare.py",
    "loadgen/cli/report.py",
    "loadgen/cli/suites.py",
    "loadgen/cli/verify.py",
    "loadgen/campaign/rundir.py",
    "loadgen/store/",
    "loadgen/telemetry/log.py",
    "loadgen/emulator/truth.py",
)
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


def within(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or (room.endswith("/") and name.startswith(room)) for room in rooms)


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_every_module_is_named_and_no_other():
    (listed,) = (text for name, text in generated(TEXT) if name == "modules")
    assert listed == list_of_modules(), "run .venv/bin/python -m tests.documents"


def test_the_list_has_a_line_for_every_module():
    room, seen = "", set()
    for line in list_of_modules().splitlines():
        if entry := re.match(r"((?:loadgen|analysis)/\S*/|(?:loadgen|analysis)/)  ", line):
            room = entry[1]
            seen.add(f"{room}__init__.py")
        elif entry := re.match(r"  (\S+\.py) +\S", line):
            seen.add(room + entry[1])
    assert seen == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_module_begins_with_a_line_that_can_be_read_alone(name):
    assert re.search(r"[.?]$", first_line(NAMES[name])), "the first line of a docstring is a sentence"


@pytest.mark.parametrize("name", [name for name in NAMES if within(name, PURE + FILES)])
def test_module_that_is_not_of_the_world_imports_none_of_it(name):
    allowed = {"os"} if within(name, FILES) else set()
    names = imports(NAMES[name])
    assert {module for module in names if module.split(".")[0] in WORLDLY - allowed or module.startswith(OURS)} == set()


def test_every_room_of_the_tables_exists():
    assert [room for room in PURE + FILES if not (ROOT / room).exists()] == []


def test_every_room_has_a_row_in_the_table_of_rooms():
    table = TEXT.partition("\n## The rooms\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`((?:loadgen|analysis)/[a-z_]*/)`", table))
    rooms = {f"{path.parent.relative_to(ROOT).as_posix()}/" for path in NAMES.values() if path.name == "__init__.py"}
    assert {room for room in rooms if room.startswith("loadgen/") and room != "loadgen/"} <= named
    assert named <= rooms


def keys_of_table(title: str) -> set[str]:
    """The keys in the first column of the table below a heading of the third level."""
    text = TEXT.partition(f"\n### {title}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    return {key for cell in re.findall(r"^\|([^|]*)\|", text, re.MULTILINE) for key in re.findall("`([^`]+)`", cell)}


def test_every_key_of_a_manifest_is_in_its_table_and_no_other():
    assert keys_of_table("The manifest") == set(Manifest.__struct_fields__)


def test_every_key_of_the_summaries_of_campaigns_is_in_its_table():
    summaries = [path for path in (ROOT / "tests" / "fixtures").rglob("summary.json") if within_a_campaign(path)]
    assert len(summaries) > 3
    keys = {key for path in summaries for key in json.loads(path.read_text(encoding="utf-8"))}
    assert keys - keys_of_table("The summary") == set()


def within_a_campaign(summary: Path) -> bool:
    return (summary.parent / "manifest.json").exists()

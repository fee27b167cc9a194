"""The live table: what it draws, and on a real terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from loadgen.cli.live import BARS, LiveView, sparkline
from loadgen.engine.tally import Tally
from loadgen.record import Kind, Outcome, Record

MS = 1_000_000


def record(seq: int, agent: str, ttft_ms: int, outcome: Outcome = Outcome.OK) -> Record:
    made = Record(0, seq, "here", 0, outcome, agent=agent, sent_ns=0, output_tokens=50)
    made.event_ns, made.event_kind = np.array([ttft_ms * MS], np.int64), np.array([Kind.CONTENT], np.uint8)
    made.event_read = np.zeros(1, np.int32)
    return made


def drawn(view: LiveView, tally: Tally, seconds: float = 1.0) -> str:
    console = Console(file=io.StringIO(), width=110)
    console.print(view.drawing(tally, seconds))
    text = console.file
    assert isinstance(text, io.StringIO)
    return text.getvalue()


def test_a_row_an_agent_with_what_came_since_the_last_look() -> None:
    view = LiveView(Console(file=io.StringIO()))
    tally = Tally(in_flight={("here", "one"): 3, ("here", "two"): 1}, due=9, begun=7)
    for seq in range(4):
        tally.add(record(seq, "one", 100))
    first = drawn(view, tally)
    for seq in range(4, 8):
        tally.add(record(seq, "one", 400))
    tally.add(record(8, "two", 0, Outcome.STALLED))
    second = drawn(view, tally, seconds=2.0)
    view.close()
    one = next(line for line in first.splitlines() if "here one" in line).split()
    assert one[2:6] == ["3", "4", "0", "200"]
    later = next(line for line in second.splitlines() if "here one" in line).split()
    assert later[2:6] == ["3", "8", "0", "100"]
    assert 390 <= float(later[7]) <= 410  # the median of the four that came since, not of all eight
    two = next(line for line in second.splitlines() if "here two" in line).split()
    assert two[2:5] == ["1", "0", "1"]
    assert "7 sent · 2 waiting" in second


@pytest.mark.parametrize(
    ("values", "bars"),
    [([], ""), ([0.0, 0.0], "▁▁"), ([0, 7], "▁█"), ([1, 1, 1], "███"), (list(range(8)), BARS)],
)
def test_sparklines_reach_from_zero_to_the_greatest(values: list[float], bars: str) -> None:
    assert sparkline(deque(values)) == bars


def test_a_long_series_is_as_many_bars_as_fit() -> None:
    assert len(sparkline(deque([1.0] * 120), points=24)) == 24


def run(*words: str, out: Path, terminal: bool) -> str:
    """The text that `loadgen run --live` writes to stderr, a terminal or not."""
    command = [sys.executable, "-m", "loadgen", "run", "--emulator", "--live", "--out", str(out), *words]
    if not terminal:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "110", "LINES": "30"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end was closed
                break
            if not part:
                break
            seen += part
        os.close(ours)
        assert process.wait(60) == 0
    return seen.decode()


def test_on_a_terminal_a_table_is_drawn_and_taken_away(tmp_path: Path) -> None:
    words = ("--concurrency", "4", "--duration", "2.5", "--output-tokens", "10")
    seen = run(*words, out=tmp_path / "run", terminal=True)
    assert "TTFT ms" in seen
    assert any(bar in seen for bar in BARS)
    assert seen.rindex("\x1b[2K") > seen.rindex("TTFT ms")  # the last table was erased


def test_elsewhere_the_line_is_written_instead(tmp_path: Path) -> None:
    words = ("--concurrency", "4", "--requests", "10", "--output-tokens", "5")
    seen = run(*words, out=tmp_path / "run", terminal=False)
    assert "TTFT ms" not in seen

"""`loadgen` as a user runs it: in this process, which is quick, or in one of its own, which has signals and limits."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from loadgen.cli.app import run_app

__all__ = ["Result", "command", "rows", "run_here", "run_there"]

LONGEST_S = 60  # a hang is a failure of the test, not of the whole suite


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on stderr that the contract promises."""
        assert self.err.endswith("\n"), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("loadgen: "), self.err
        return self.err.rstrip("\n")

    def json(self) -> Any:
        return json.loads(self.out)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "loadgen", *map(str, arguments)]


def run_here(*arguments: object) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_app([str(argument) for argument in arguments])
    return Result(code, out.getvalue(), err.getvalue())


def run_there(*arguments: object, **more: Any) -> Result:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=LONGEST_S, **more)
    return Result(done.returncode, done.stdout, done.stderr)


def rows(directory: Path) -> list[dict[str, Any]]:
    """The records of a run's directory, in the order of the schedule."""
    found: list[dict[str, Any]] = pq.read_table(directory / "records.parquet").to_pylist()
    return sorted(found, key=lambda row: (row["run"], row["seq"]))

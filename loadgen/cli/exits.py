"""Exit codes, which scripts rely on, and the exception that carries one with its line."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit", "Stop"]


class Exit(IntEnum):
    OK = 0  # measured, and every stated objective held
    OBJECTIVE = 1
    USAGE = 2
    INCONCLUSIVE = 3  # an objective was stated and the data cannot decide
    VOID = 4  # generator-limited, or something of loadgen failed
    UNREACHABLE = 5  # or every request failed
    INTERRUPTED = 130


class Stop(Exception):
    """Ends the command with one line on stderr."""

    def __init__(self, code: Exit, line: str) -> None:
        super().__init__(line)
        self.code = code

"""The command line: arguments, progress and exit codes. One small module a command.

`loadgen --help` must answer at once, so everything heavy is imported inside the command that needs it.
"""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the `loadgen` command and exit with its code."""
    # numpy's thread pool would spin beside the measurement; nothing here multiplies matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Until a run takes its signals, and in all other commands, SIGTERM ends things as Ctrl-C does: with clean-up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from loadgen.cli.app import run_app

        code = run_app(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)

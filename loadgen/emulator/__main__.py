"""`python -m loadgen.emulator`: the emulator without the rest of the command line, which takes longer to import."""

from __future__ import annotations

import sys

from .options import OptionsError, parse
from .server import run_emulator


def main(arguments: list[str]) -> int:
    """Parse, serve, return the exit code."""
    try:
        options = parse(arguments)
    except (OptionsError, ValueError) as problem:
        print(f"loadgen emulate: {problem}", file=sys.stderr)
        return 2
    return run_emulator(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

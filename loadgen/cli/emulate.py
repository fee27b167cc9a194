"""`loadgen emulate`: the calibration standard as a tool of its own."""

from __future__ import annotations

import typer

__all__ = ["emulate"]


def emulate(context: typer.Context) -> int:
    """Serve the OpenAI, Ollama or LM Studio dialect with a known timing (loadgen emulate --help)."""
    from loadgen.emulator.__main__ import main

    return main(context.args)

"""`loadgen verify`: is a run's directory what the manifest says, and does its summary follow from its records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli.exits import Exit, Stop

__all__ = ["verify"]


def verify(directory: Annotated[Path, typer.Argument(help="A run's directory.", metavar="DIR")]) -> int:
    """Recompute the checksums and the summary of DIR. Exit code 1 if anything differs."""
    import analysis
    from loadgen.campaign import file_sha256

    try:
        told = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))["sha256"]
    except FileNotFoundError:
        raise Stop(Exit.USAGE, f"{directory}: no manifest.json in it; name a run's directory") from None
    except (json.JSONDecodeError, KeyError, TypeError):
        raise Stop(Exit.USAGE, f"{directory}/manifest.json: holds no checksums; the run did not finish") from None
    wrong = []
    for name, sha256 in told.items():
        path = directory / name
        if not path.is_file():
            wrong.append(f"{name}: missing")
        elif file_sha256(path) != sha256:
            wrong.append(f"{name}: changed since the run")
    if (directory / "records.parquet").is_file() and (directory / "summary.json").is_file():
        again = analysis.to_json(analysis.summarise(directory))
        if again != (directory / "summary.json").read_text(encoding="utf-8"):
            wrong.append("summary.json: does not follow from records.parquet and manifest.json")
    for line in wrong:
        typer.echo(line)
    if not wrong:
        typer.echo(f"{directory}: {len(told)} files as recorded; the summary follows from the records")
    return Exit.OBJECTIVE if wrong else Exit.OK

"""`loadgen verify`: is a run's directory what the manifest says, and does its summary follow from its records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from loadgen.cli.exits import Exit, Stop

__all__ = ["verify"]


def verify(directory: Annotated[Path, typer.Argument(help="A run's directory.", metavar="DIR")]) -> int:
    """Recompute the checksums and the summary of DIR. Exit code 1 if anything differs."""
    from loadgen.rundir import file_sha256, manifest_sha256

    manifest = _manifest(directory)
    told: dict[str, str] = manifest.get("sha256") or {}
    wrong = []
    for name, sha256 in told.items():
        path = directory / name
        if not path.is_file():
            wrong.append(f"{name}: missing")
        elif file_sha256(path) != sha256:
            wrong.append(f"{name}: changed since the run")
    if manifest_sha256(directory / "manifest.json") != manifest.get("manifest_sha256"):
        wrong.append("manifest.json: changed since the run")
    if not wrong and not _follows(directory):
        wrong.append("summary.json: does not follow from records.parquet and manifest.json")
    for line in wrong:
        typer.echo(line)
    if not wrong:
        typer.echo(f"{directory}: {len(told) + 1} files as recorded; the summary follows from the records")
    return Exit.OBJECTIVE if wrong else Exit.OK


def _manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a run that finished, or stop."""
    path = directory / "manifest.json"
    try:
        manifest: Any = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise Stop(Exit.USAGE, f"{directory}: no manifest.json in it; name a run's directory") from None
    except OSError as error:
        raise Stop(Exit.USAGE, f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        manifest = None
    finished = (directory / "summary.json").exists()
    if isinstance(manifest, dict) and (finished or "sha256" in manifest):
        return manifest
    if not finished:
        raise Stop(
            Exit.USAGE, f"{path}: holds no checksums, for the run did not finish; see loadgen report {directory}"
        )
    raise Stop(Exit.OBJECTIVE, f"{path}: changed since the run, it is not a manifest any more")


def _follows(directory: Path) -> bool:
    import analysis

    again = analysis.to_json(analysis.summarise(directory))
    return again == (directory / "summary.json").read_text(encoding="utf-8")

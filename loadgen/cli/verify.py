"""`loadgen verify`: is a run's directory what the manifest says, and does its summary follow from its records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from loadgen.cli.exits import Exit, Stop
from loadgen.cli.suites import Suite, suite_in

__all__ = ["verify"]

MANIFEST = "manifest.json"


def verify(
    directory: Annotated[Path, typer.Argument(help="The directory of a run, a sweep or runtimes.", metavar="DIR")],
) -> int:
    """Recompute the checksums and the summary of DIR. Exit code 1 if anything differs."""
    suite = suite_in(directory)
    wrong, files = _of_campaign(directory) if suite is None else _of_suite(suite)
    for line in wrong:
        typer.echo(line)
    if not wrong:
        follows = "summary follows" if suite is None else "summaries follow"
        typer.echo(f"{directory}: {files} files as recorded; the {follows} from the records")
    return Exit.OBJECTIVE if wrong else Exit.OK


def _of_campaign(directory: Path) -> tuple[list[str], int]:
    """What is wrong with one campaign, a line each, and how many files were checked."""
    import analysis

    manifest = _manifest(directory, MANIFEST)
    wrong = _changed(directory, MANIFEST, manifest)
    if not wrong and not _is_summary(directory, analysis.summarise(directory)):
        wrong.append("summary.json: does not follow from records.parquet and manifest.json")
    return wrong, len(_checksums(manifest)) + 1


def _of_suite(suite: Suite) -> tuple[list[str], int]:
    """What is wrong with a suite, its campaigns included, a line each, and how many files were checked."""
    directory, wrong, files = suite.directory, [], 0
    manifest = _manifest(directory, suite.name)
    try:
        parts = suite.parts(manifest)
    except (KeyError, TypeError, ValueError):  # whatever else it says, it does not say what it did
        return [f"{suite.name}: changed since the run"], 1
    for place, was_measured in parts.items():
        if (directory / place / MANIFEST).is_file():
            try:
                lines, checked = _of_campaign(directory / place)
            except Stop as stop:
                lines, checked = [str(stop)], 1
            wrong += [f"{place}/{line.removeprefix(f'{directory / place}/')}" for line in lines]
            files += checked
        elif was_measured:
            wrong.append(f"{place}/{MANIFEST}: missing")
    wrong += _changed(directory, suite.name, manifest)
    if not wrong and not _is_summary(directory, suite.summarised().to_json()):
        wrong.append(f"summary.json: does not follow from the directories below and {suite.name}")
    return wrong, files + len(_checksums(manifest)) + 1


def _changed(directory: Path, name: str, manifest: dict[str, Any]) -> list[str]:
    """The files that are not as the manifest `name` has them, that one included, a line each."""
    from loadgen.campaign.rundir import file_sha256, manifest_sha256

    wrong = []
    for file, sha256 in _checksums(manifest).items():
        path = directory / file
        if not path.is_file():
            wrong.append(f"{file}: missing")
        elif file_sha256(path) != sha256:
            wrong.append(f"{file}: changed since the run")
    if manifest_sha256(directory / name) != manifest.get("manifest_sha256"):
        wrong.append(f"{name}: changed since the run")
    return wrong


def _checksums(manifest: dict[str, Any]) -> dict[str, str]:
    return manifest.get("sha256") or {}


def _manifest(directory: Path, name: str) -> dict[str, Any]:
    """Read the manifest of a run that finished, or stop."""
    path = directory / name
    try:
        manifest: Any = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise Stop(Exit.USAGE, f"{directory}: no {name} in it; name a run's directory") from None
    except OSError as error:
        raise Stop(Exit.USAGE, f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        manifest = None
    finished = (directory / "summary.json").exists()
    if isinstance(manifest, dict):
        finished = "sha256" in manifest or "manifest_sha256" in manifest
        if finished:
            return manifest
    if not finished:
        raise Stop(
            Exit.USAGE, f"{path}: holds no checksums, for the run did not finish; see loadgen report {directory}"
        )
    raise Stop(Exit.OBJECTIVE, f"{path}: changed since the run, it is not a manifest any more")


def _is_summary(directory: Path, again: dict[str, Any]) -> bool:
    import analysis

    return analysis.to_json(again) == (directory / "summary.json").read_text(encoding="utf-8")

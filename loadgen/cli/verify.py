"""`loadgen verify`: is a run's directory what the manifest says, and does its summary follow from its records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from loadgen.cli.exits import Exit, Stop
from loadgen.cli.suites import Suite, suite_in

__all__ = ["verify"]

MANIFEST = "manifest.json"


class _Checksums(msgspec.Struct, frozen=True):
    """The checksums in a sealed manifest: those of the other files and its own; UNSET where it is not sealed."""

    sha256: dict[str, str] | msgspec.UnsetType | None = msgspec.UNSET
    manifest_sha256: str | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def sealed(self) -> bool:
        """Whether the run that it is about finished."""
        return self != _Checksums()

    @property
    def of_files(self) -> dict[str, str]:
        """The checksum of each other file, by its path relative to the manifest's directory."""
        return self.sha256 or {}


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
    return wrong, len(manifest.of_files) + 1


def _of_suite(suite: Suite) -> tuple[list[str], int]:
    """What is wrong with a suite, its campaigns included, a line each, and how many files were checked."""
    directory, wrong, files = suite.directory, [], 0
    manifest = _manifest(directory, suite.name)
    try:
        parts = suite.parts()
    except ValueError:  # whatever else it says, it does not say what it did
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
    return wrong, files + len(manifest.of_files) + 1


def _changed(directory: Path, name: str, manifest: _Checksums) -> list[str]:
    """The files that are not as the manifest `name` has them, that one included, a line each."""
    from loadgen.campaign.rundir import file_sha256, manifest_sha256

    wrong = []
    for file, sha256 in manifest.of_files.items():
        path = directory / file
        if not path.is_file():
            wrong.append(f"{file}: missing")
        elif file_sha256(path) != sha256:
            wrong.append(f"{file}: changed since the run")
    if manifest_sha256(directory / name) != manifest.manifest_sha256:
        wrong.append(f"{name}: changed since the run")
    return wrong


def _manifest(directory: Path, name: str) -> _Checksums:
    """The checksums in the manifest of a run that finished. Raises Stop where there are none."""
    path = directory / name
    try:
        manifest = msgspec.convert(json.loads(path.read_bytes()), _Checksums)
    except (FileNotFoundError, NotADirectoryError):
        raise Stop(Exit.USAGE, f"{directory}: no {name} in it; name a run's directory") from None
    except OSError as error:
        raise Stop(Exit.USAGE, f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        manifest = None
    if manifest is not None and manifest.sealed:
        return manifest
    if manifest is not None or not (directory / "summary.json").exists():
        raise Stop(
            Exit.USAGE, f"{path}: holds no checksums, for the run did not finish; see loadgen report {directory}"
        )
    raise Stop(Exit.OBJECTIVE, f"{path}: changed since the run, it is not a manifest any more")


def _is_summary(directory: Path, again: dict[str, Any]) -> bool:
    import analysis

    return analysis.to_json(again) == (directory / "summary.json").read_text(encoding="utf-8")

"""`loadgen verify`: is a run's directory what the manifest says, and does its summary follow from its records."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

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
    checked = _of_campaign(directory) if suite is None else _of_suite(suite)
    for line in checked.wrong:
        typer.echo(line)
    if checked.older:
        typer.echo(f"{directory}: summaries of an older schema; not compared: {', '.join(checked.older)}")
    if not checked.wrong:
        follows = "summary follows" if suite is None else "summaries follow"
        typer.echo(f"{directory}: {checked.files} files as recorded; the {follows} from the records")
    return Exit.OBJECTIVE if checked.wrong else Exit.OK


@dataclass(slots=True)
class _Checked:
    """What was checked, what is wrong with it, a line each, and which keys mean something else today."""

    wrong: list[str]
    files: int = 1
    older: dict[str, None] = field(default_factory=dict)


def _of_campaign(directory: Path) -> _Checked:
    """What is wrong with one campaign."""
    import analysis

    manifest = _manifest(directory, MANIFEST)
    checked = _Checked(_changed(directory, MANIFEST, manifest), len(manifest.of_files) + 1)
    if not checked.wrong and not _follows(directory, analysis.summarise(directory).to_json(), checked):
        checked.wrong.append("summary.json: does not follow from records.parquet and manifest.json")
    return checked


def _of_suite(suite: Suite) -> _Checked:
    """The same of a directory of many, those below included."""
    import analysis

    directory, checked = suite.directory, _Checked([], 0)
    manifest = _manifest(directory, suite.name)
    try:
        parts = suite.parts()
    except ValueError:  # whatever else it says, it does not say what it did
        return _Checked([f"{suite.name}: changed since the run"])
    for place, was_measured in parts.items():
        if (directory / place / MANIFEST).is_file():
            try:
                below = _of_campaign(directory / place)
            except Stop as stop:
                below = _Checked([str(stop)])
            checked.wrong += [f"{place}/{line.removeprefix(f'{directory / place}/')}" for line in below.wrong]
            checked.files += below.files
            checked.older |= below.older
        elif was_measured:
            checked.wrong.append(f"{place}/{MANIFEST}: missing")
    checked.wrong += _changed(directory, suite.name, manifest)
    if not checked.wrong and not _follows(directory, analysis.to_json(suite.summarised().to_json()), checked):
        checked.wrong.append(f"summary.json: does not follow from the directories below and {suite.name}")
    checked.files += len(manifest.of_files) + 1
    return checked


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


def _follows(directory: Path, again: str, checked: _Checked) -> bool:
    """Whether the summary in `directory` is what its records give today; notes in `checked` what was not compared."""
    from analysis import summary

    stored = (directory / "summary.json").read_text(encoding="utf-8")
    checked.older |= dict.fromkeys(changed.key for changed in summary.not_compared(stored))
    return summary.follows(stored, again)

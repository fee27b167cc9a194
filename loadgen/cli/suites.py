"""Directories of many campaigns: their top, made again of what is below and sealed, and what their commands share.

Which kinds there are is a table of `analysis.suites.registry`.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from loadgen.cli.exits import Exit, Stop

if TYPE_CHECKING:
    from analysis.suites.matrix import MatrixSummary
    from analysis.suites.registry import Suite as Kind
    from analysis.suites.registry import Summarised
    from analysis.suites.runtimes import RuntimesSummary
    from loadgen.campaign.suite import Tested
    from loadgen.cli.progress import Progress
    from loadgen.profile import Configuration, Profile
    from loadgen.suite_manifest import MatrixManifest, RuntimesManifest

__all__ = [
    "Suite",
    "check_tested",
    "choose",
    "kept_whole",
    "make_directory",
    "progress_of",
    "publish",
    "show",
    "suite_in",
]

ALL = "all"


@dataclass(frozen=True, slots=True)
class Suite:
    """A directory of many campaigns. name: of its manifest."""

    directory: Path
    name: str
    kind: Kind[MatrixSummary] | Kind[RuntimesSummary]

    @property
    def is_matrix(self) -> bool:
        return self.kind.kind == "matrix"

    @property
    def needed(self) -> tuple[str, ...]:
        """The keys that its manifest must hold for it to be resumed."""
        return ("profile", "withheld", "seed", "planned", self.kind.parts)

    def manifest_of(self, plain: Any) -> MatrixManifest | RuntimesManifest:
        """The manifest that `plain`, the JSON of the file, holds. Raises msgspec.ValidationError."""
        return self.kind.manifest.from_json(plain)

    def manifest(self) -> MatrixManifest | RuntimesManifest:
        """Its manifest. Raises OSError, or ValueError for a file that holds none."""
        return self.manifest_of(json.loads((self.directory / self.name).read_text(encoding="utf-8")))

    def parts(self) -> dict[str, bool]:
        """The folders of its campaigns, each with whether anything was measured there. Raises as `manifest` does."""
        manifest = self.manifest()
        ended = [test.missing_runs is not None for test in manifest.tests or ()]
        return dict(zip(manifest.directories, ended, strict=True))

    def summarised(self) -> Summarised:
        """What its campaigns show together. Raises OSError, or ValueError for files of other kinds."""
        return self.kind.summarised(self.directory)


def suite_in(directory: Path) -> Suite | None:
    """The suite in `directory`; None if it is one campaign, or something else."""
    from analysis.suites.registry import kind_of

    kind = kind_of(directory)
    path = None if kind is None else kind.manifest_in(directory)
    return None if kind is None or path is None else Suite(directory, path.name, kind)


def publish(suite: Suite) -> Summarised:
    """Write what stands at the top and seal it; what it shows is returned. Raises OSError."""
    from analysis.report.html import as_page
    from analysis.report.markdown import as_markdown
    from loadgen.campaign.rundir import seal
    from loadgen.manifest import SUMMARY
    from loadgen.store.whole import write_text

    directory = suite.directory
    manifest = suite.manifest()
    summarised = suite.summarised()
    write_text(directory / SUMMARY, summarised.to_json())
    if suite.kind.keeps_report:
        write_text(directory / "report.md", as_markdown(summarised.document))
        write_text(directory / "report.html", as_page(replace(summarised.document, title=suite.kind.kind)))
    agents = manifest.profile.agents if manifest.profile is not None else None
    if suite.is_matrix and agents is not None and agents.artifacts:
        from analysis.formats.guide_matrix import write_suite

        write_suite(directory)
    seal(directory, manifest, suite.name)
    return summarised


def show(directory: Path, *, json_: bool, quiet: bool) -> None:
    """Write and seal the top of a directory of many campaigns, and print it."""
    from analysis.report.text import as_text

    suite = suite_in(directory)
    assert suite is not None
    try:
        summarised = publish(suite)
    except OSError as error:
        raise Stop(Exit.VOID, f"{directory}: {error.strerror}") from None
    except ValueError as error:
        raise Stop(Exit.VOID, f"{directory}: a file in it was changed: {error}") from None
    if json_:
        typer.echo(summarised.to_json(), nl=False)
    elif not quiet:
        typer.echo(as_text(summarised.document), nl=False)
        typer.echo(f"\n{directory}/{'report.html' if suite.kind.keeps_report else 'summary.json'}")
    sys.stdout.flush()


@contextlib.contextmanager
def kept_whole(directory: Path) -> Iterator[None]:
    """Where a suite cannot be continued, leave its top as it is made from the directories below."""
    try:
        yield
    except Stop:
        with contextlib.suppress(Stop):  # the first reason is the one to report
            show(directory, json_=False, quiet=True)
        raise


@contextlib.contextmanager
def progress_of(*, shown: bool, quiet: bool) -> Iterator[tuple[Progress, Callable[[str], None]]]:
    """The line on stderr while inside, and a function that prints one of its own, unless `quiet`."""
    from loadgen.cli.progress import Progress

    draw = Progress(shown=shown)

    def say(line: str) -> None:
        if not quiet:
            draw.say(line)

    try:
        yield draw, say
    finally:
        draw.close()


def make_directory(directory: Path) -> None:
    """Make a new directory. Raises Stop if there is one already, or none can be made."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Stop(Exit.USAGE, f"--out {directory}: exists already; name a new directory, or remove it")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Stop(Exit.USAGE, f"--out {directory}: {error.strerror}; name a directory that can be made") from None


def choose(profile: Profile, phases: str | None) -> list[Configuration]:
    """The configurations of the phases asked for; None asks for all."""
    assert profile.agents is not None
    listed = profile.agents.configurations
    if phases is None or phases.strip() == ALL:
        return list(listed)
    there = {configuration.phase for configuration in listed}
    try:
        wanted = {int(word) for word in phases.split(",")}
    except ValueError:
        raise Stop(Exit.USAGE, f"--phases {phases}: write all, or numbers such as 1,3") from None
    if not wanted <= there:
        lacking = ", ".join(map(str, sorted(wanted - there)))
        raise Stop(Exit.USAGE, f"--phases {phases}: no phase {lacking}; there are {', '.join(map(str, sorted(there)))}")
    return [configuration for configuration in listed if configuration.phase in wanted]


def check_tested(tested: Sequence[Tested], directory: Path, what: str) -> None:
    """Raise Stop where campaigns were interrupted or failed. what: they are called in the plural."""
    kept = f"what was measured is in {directory}"
    if any(test.interrupted for test in tested):
        raise Stop(Exit.INTERRUPTED, f"interrupted; {kept}; loadgen resume {directory} makes the rest")
    failed = [test for test in tested if not test.ok]
    if failed:
        code = Exit.UNREACHABLE if all(test.unreachable for test in failed) else Exit.VOID
        raise Stop(code, f"{len(failed)} of {len(tested)} {what} failed: {failed[0].reason}; {kept}")

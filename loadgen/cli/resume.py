"""`loadgen resume`: make the runs that a campaign, or each of many, lacks, in its own directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from loadgen.cli.exits import Exit, Stop
from loadgen.cli.matrix import resume_matrix
from loadgen.cli.measuring import conclude, in_loop, prepare_and_measure
from loadgen.cli.options import Given, takes
from loadgen.cli.report import Format, report
from loadgen.cli.runtimes import resume_runtimes
from loadgen.cli.suites import Suite, suite_in

if TYPE_CHECKING:
    from loadgen.manifest import ProfileFacts
    from loadgen.profile import Profile

__all__ = ["resume"]


@dataclass(frozen=True, kw_only=True)
class Resuming(Given):
    """What the options of `resume` say."""

    directory: Path
    no_progress: bool = False

    @property
    def progress(self) -> bool:
        """Whether to draw how far the runs are."""
        return not (self.quiet or self.no_progress)


@takes("resume", Resuming)
def resume(given: Resuming) -> int:
    """Make the runs that are missing in DIR, with the same seeds and options. What a run left half done is dropped."""
    from loadgen.errors import UsageError

    suite = suite_in(given.directory)
    try:
        return _resume_campaign(given) if suite is None else _resume_suite(suite, given)
    except UsageError as error:
        raise Stop(Exit.USAGE, str(error)) from None


def _resume_campaign(given: Resuming) -> int:
    from loadgen.campaign.prepare import resume as resumed
    from loadgen.campaign.resume import is_finished, read_manifest

    directory = given.directory
    manifest = read_manifest(directory)
    if is_finished(manifest):
        return _say_finished(given)
    assert manifest.profile is not None
    profile = _profile(manifest.profile, manifest.withheld, given)
    finished = in_loop(
        profile.loop,
        lambda stop: prepare_and_measure(
            resumed(profile, directory, manifest), stop, progress=given.progress, quiet=given.quiet
        ),
    )
    return conclude(finished, directory, json_=given.json, quiet=given.quiet)


def _resume_suite(suite: Suite, given: Resuming) -> int:
    from msgspec import UNSET

    from loadgen.campaign.resume import read_suite_manifest
    from loadgen.suite_manifest import MatrixManifest

    directory, showing = given.directory, {"json_": given.json, "progress": given.progress, "quiet": given.quiet}
    manifest = read_suite_manifest(directory, suite.name, suite.needed, suite.manifest_of)
    if manifest.finished is True and manifest.sha256 is not UNSET:
        return _say_finished(given)
    assert manifest.profile is not None
    profile = _profile(manifest.profile, manifest.withheld, given)
    if isinstance(manifest, MatrixManifest):
        return resume_matrix(profile, manifest, directory, **showing)
    return resume_runtimes(profile, manifest, directory, **showing)


def _profile(facts: ProfileFacts, withheld: Sequence[str], given: Resuming) -> Profile:
    """The profile of a manifest, with what it withheld given again."""
    from loadgen.campaign.resume import profile_of

    headers, options = given.target.get("headers"), given.target.get("options")
    path, proxy = given.target.get("path"), given.overrides.get("proxy")
    return profile_of(
        facts.text,
        withheld,
        headers=headers if isinstance(headers, dict) else {},
        options=options if isinstance(options, dict) else {},
        urls=given.url or (),
        path=path if isinstance(path, str) else None,
        proxy=proxy if isinstance(proxy, str) else None,
    )


def _say_finished(given: Resuming) -> int:
    """Say that there is nothing to make, which needs neither a server nor what was withheld."""
    if given.json:
        return report(given.directory, Format.JSON)
    if not given.quiet:
        shows = f"loadgen report {given.directory} shows them"
        typer.echo(f"{given.directory}: nothing is left to do, every run is made; {shows}")
    return Exit.OK

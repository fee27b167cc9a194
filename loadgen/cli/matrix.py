"""The configurations of a profile of agents: which, in turns, and what they show together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loadgen.cli.exits import Exit, Stop
from loadgen.cli.measuring import in_loop, judge
from loadgen.cli.suites import check_tested, choose, kept_whole, make_directory, progress_of, show

if TYPE_CHECKING:
    import asyncio

    from loadgen.campaign.matrix import Matrix
    from loadgen.cli.options import Measuring
    from loadgen.profile import Configuration, Profile
    from loadgen.suite_manifest import MatrixManifest

__all__ = ["measure_configurations", "resume_matrix"]


def measure_configurations(profile: Profile, directory: Path, given: Measuring) -> int:
    """Measure the configurations of the phases asked for; print the summary and return the exit code."""
    chosen = choose(profile, given.phases)
    if profile.campaign.until is not None:
        raise Stop(Exit.USAGE, "--until cannot go with configurations, which make the same runs each: use --runs")
    make_directory(directory)
    measured = in_loop(
        profile.loop, lambda stop: _measure(profile, chosen, directory, stop, given.progress, given.quiet)
    )
    show(directory, json_=given.json, quiet=given.quiet)
    return _conclude(measured, directory)


def resume_matrix(
    profile: Profile, before: MatrixManifest, directory: Path, *, json_: bool, progress: bool, quiet: bool
) -> int:
    """Make what the matrix in `directory` lacks; print the summary and return the exit code."""
    assert profile.agents is not None
    named = {configuration.id: configuration for configuration in profile.agents.configurations}
    chosen = [named[configuration.id] for configuration in before.configurations]
    with kept_whole(directory):
        measured = in_loop(
            profile.loop, lambda stop: _measure(profile, chosen, directory, stop, progress, quiet, before)
        )
    show(directory, json_=json_, quiet=quiet)
    return _conclude(measured, directory)


async def _measure(
    profile: Profile,
    chosen: list[Configuration],
    directory: Path,
    stop: asyncio.Event,
    progress: bool,
    quiet: bool,
    before: MatrixManifest | None = None,
) -> Matrix:
    from loadgen.campaign.matrix import measure_matrix
    from loadgen.campaign.suite import seed_of

    with progress_of(shown=progress, quiet=quiet) as (draw, say):
        return await measure_matrix(profile, chosen, directory, seed_of(profile, before), draw, say, stop, before)


def _conclude(measured: Matrix, directory: Path) -> int:
    """0, or a Stop with what matters most: an interruption, then servers, our own limits, objectives."""
    tested = measured.tested
    check_tested(tested, directory, "configurations")
    summaries = [test.finished.summary for test in tested if test.finished and test.finished.summary]
    limited = [summary.verdict.value for summary in summaries].count("generator-limited")
    if limited:
        kept = f"what was measured is in {directory}"
        raise Stop(Exit.VOID, f"generator-limited in {limited} of {len(tested)} configurations; {kept}")
    judge(*summaries)
    return Exit.OK

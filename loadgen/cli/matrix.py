"""The configurations of a profile of agents: which, in turns, and what they show together."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from loadgen.cli.exits import Exit, Stop
from loadgen.cli.measuring import in_loop, judge

if TYPE_CHECKING:
    import asyncio

    from loadgen.campaign.matrix import Matrix
    from loadgen.profile import Configuration, Profile

__all__ = ["choose", "kept_whole", "make_directory", "matrix", "resume_matrix", "seed_of", "show"]

ALL = "all"


def matrix(profile: Profile, phases: str | None, directory: Path, *, json_: bool, progress: bool, quiet: bool) -> int:
    """Measure the configurations of the phases asked for; print the summary and return the exit code."""
    chosen = choose(profile, phases)
    if profile.campaign.until is not None:
        raise Stop(Exit.USAGE, "--until cannot go with configurations, which make the same runs each: use --runs")
    make_directory(directory)
    measured = in_loop(profile.loop, lambda stop: _measure(profile, chosen, directory, stop, progress, quiet))
    show(directory, json_=json_, quiet=quiet)
    return _conclude(measured, directory)


def resume_matrix(
    profile: Profile, before: dict[str, Any], directory: Path, *, json_: bool, progress: bool, quiet: bool
) -> int:
    """Make what the matrix in `directory` lacks; print the summary and return the exit code."""
    assert profile.agents is not None
    named = {one.id: one for one in profile.agents.configurations}
    chosen = [named[one["id"]] for one in before["configurations"]]
    with kept_whole(directory):
        measured = in_loop(
            profile.loop, lambda stop: _measure(profile, chosen, directory, stop, progress, quiet, before)
        )
    show(directory, json_=json_, quiet=quiet)
    return _conclude(measured, directory)


@contextlib.contextmanager
def kept_whole(directory: Path) -> Iterator[None]:
    """Where a directory of many campaigns cannot be gone on with, leave its top as it is made from those below."""
    try:
        yield
    except Stop:
        with contextlib.suppress(Stop):  # the first reason is the one to be told
            show(directory, json_=False, quiet=True)
        raise


def show(directory: Path, name: str = "summary.json", *, json_: bool, quiet: bool) -> None:
    """Write and seal the top of a directory of many campaigns, and print it. name: the file to point to."""
    import analysis
    from analysis.report.text import as_text
    from loadgen.cli.suites import publish, suite_in

    suite = suite_in(directory)
    assert suite is not None
    try:
        summarised = publish(suite)
    except OSError as error:
        raise Stop(Exit.VOID, f"{directory}: {error.strerror}") from None
    except ValueError as error:
        raise Stop(Exit.VOID, f"{directory}: a file in it was changed: {error}") from None
    if json_:
        typer.echo(analysis.to_json(summarised.to_json()), nl=False)
    elif not quiet:
        typer.echo(as_text(summarised.document), nl=False)
        typer.echo(f"\n{directory}/{name}")
    sys.stdout.flush()


def choose(profile: Profile, phases: str | None) -> list[Configuration]:
    """Return the configurations of the phases asked for; None asks for all."""
    assert profile.agents is not None
    listed = profile.agents.configurations
    if phases is None or phases.strip() == ALL:
        return list(listed)
    known = {one.phase for one in listed}
    try:
        wanted = {int(word) for word in phases.split(",")}
    except ValueError:
        raise Stop(Exit.USAGE, f"--phases {phases}: write all, or numbers such as 1,3") from None
    if not wanted <= known:
        lacking = ", ".join(map(str, sorted(wanted - known)))
        raise Stop(Exit.USAGE, f"--phases {phases}: no phase {lacking}; there are {', '.join(map(str, sorted(known)))}")
    return [one for one in listed if one.phase in wanted]


def make_directory(directory: Path) -> None:
    """Make a new directory. Raises Stop if there is one already, or none can be made."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Stop(Exit.USAGE, f"--out {directory}: exists already; name a new directory, or remove it")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Stop(Exit.USAGE, f"--out {directory}: {error.strerror}; name a directory that can be made") from None


async def _measure(
    profile: Profile,
    chosen: list[Configuration],
    directory: Path,
    stop: asyncio.Event,
    progress: bool,
    quiet: bool,
    before: dict[str, Any] | None = None,
) -> Matrix:
    from loadgen.campaign.matrix import measure_matrix
    from loadgen.cli.progress import Progress

    draw = Progress(shown=progress)

    def say(line: str) -> None:
        if not quiet:
            draw.close()
            print(line, file=sys.stderr)

    seed = seed_of(profile, before)
    try:
        return await measure_matrix(profile, chosen, directory, seed, draw, say, stop, before)
    finally:
        draw.close()


def seed_of(profile: Profile, before: dict[str, Any] | None) -> int:
    """Return the seed of what is gone on with, or else the profile's, or a new one."""
    if before is not None:
        return int(before["seed"])
    from loadgen.campaign.design import SEED_BITS

    return profile.seed if profile.seed is not None else secrets.randbits(SEED_BITS)


def _conclude(measured: Matrix, directory: Path) -> int:
    """Return 0, or raise what most deserves to be told: an interruption, then servers, our own limits, objectives."""
    kept = f"what was measured is in {directory}"
    tested = measured.tested
    if any(one.interrupted for one in tested):
        raise Stop(Exit.INTERRUPTED, f"interrupted; {kept}; loadgen resume {directory} makes the rest")
    failed = [one for one in tested if not one.ok]
    if failed:
        code = Exit.UNREACHABLE if all(one.unreachable for one in failed) else Exit.VOID
        raise Stop(code, f"{len(failed)} of {len(tested)} configurations failed: {failed[0].reason}; {kept}")
    summaries = [one.finished.summary for one in tested if one.finished and one.finished.summary]
    limited = [summary["verdict"] for summary in summaries].count("generator-limited")
    if limited:
        raise Stop(Exit.VOID, f"generator-limited in {limited} of {len(tested)} configurations; {kept}")
    judge(*summaries)
    return Exit.OK

"""`loadgen resume`: make the runs that a campaign, or each of many, lacks, in its own directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli import options
from loadgen.cli.exits import Exit, Stop
from loadgen.cli.matrix import resume_matrix
from loadgen.cli.measuring import conclude, in_loop, prepare_and_measure
from loadgen.cli.report import Format, report
from loadgen.cli.runtimes import resume_runtimes
from loadgen.cli.suites import suite_in
from loadgen.cli.target import headers, pairs

__all__ = ["resume"]


def resume(
    directory: Annotated[Path, typer.Argument(help="The directory of a campaign, a sweep or runtimes.", metavar="DIR")],
    header: Annotated[
        list[str] | None, typer.Option("--header", help="A header again, as 'Name: value', for none is kept.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="An option again, as NAME=VALUE, if it may be secret.")
    ] = None,
    url: Annotated[
        list[str] | None, typer.Option("--url", help="A server's URL again, if its query holds a secret.")
    ] = None,
    path: Annotated[str | None, typer.Option("--path", help="The request path again, if it holds a secret.")] = None,
    proxy: Annotated[str | None, typer.Option("--proxy", help="The proxy again, if it has a password.")] = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    no_progress: options.NoProgress = False,
) -> int:
    """Make the runs that are missing in DIR, with the same seeds and options. What a run left half done is dropped."""
    from loadgen.campaign.prepare import resume as resumed
    from loadgen.campaign.resume import is_finished, profile_of, read_manifest, read_suite_manifest
    from loadgen.errors import UsageError

    given = headers(header), pairs("--option", option)
    suite = suite_in(directory)
    progress = not (quiet or no_progress)
    try:
        if suite is not None:
            many = read_suite_manifest(directory, suite.name, suite.needed)
            if many.get("finished") and "sha256" in many:
                return _tell_finished(directory, json_=json_, quiet=quiet)
            resolved, withheld = many["profile"], many["withheld"]
        else:
            manifest = read_manifest(directory)
            if is_finished(manifest):
                return _tell_finished(directory, json_=json_, quiet=quiet)
            assert manifest.profile is not None
            resolved, withheld = json.loads(manifest.profile.text), manifest.withheld
        profile = profile_of(
            resolved, withheld, headers=given[0], options=given[1], urls=url or (), path=path, proxy=proxy
        )
    except UsageError as error:
        raise Stop(Exit.USAGE, str(error)) from None
    if suite is not None:
        go_on = resume_matrix if suite.is_matrix else resume_runtimes
        return go_on(profile, many, directory, json_=json_, progress=progress, quiet=quiet)
    finished = in_loop(
        profile.loop,
        lambda stop: prepare_and_measure(resumed(profile, directory, manifest), stop, progress=progress, quiet=quiet),
    )
    return conclude(finished, directory, json_=json_, quiet=quiet)


def _tell_finished(directory: Path, *, json_: bool, quiet: bool) -> int:
    """Say that there is nothing to make, which needs neither a server nor what was withheld."""
    if json_:
        return report(directory, Format.JSON)
    if not quiet:
        typer.echo(f"{directory}: nothing is left to do, every run is made; loadgen report {directory} shows them")
    return Exit.OK

"""`loadgen report`: the report of a run's directory, again, or of what a killed run left."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.cli.exits import Exit, Stop
from loadgen.cli.suites import Suite, suite_in

if TYPE_CHECKING:
    from analysis.summary import Summary

__all__ = ["report"]


class Format(enum.StrEnum):
    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"
    HTML = "html"


def report(
    directory: Annotated[Path, typer.Argument(help="The directory of a run, a sweep or runtimes.", metavar="DIR")],
    form: Annotated[Format, typer.Option("--format", help="What to print.")] = Format.TEXT,
    json_: Annotated[bool, typer.Option("--json", help="The same as --format json: summary.json.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Where to write the HTML report.", metavar="FILE")] = None,
    perfetto: Annotated[
        Path | None, typer.Option("--perfetto", help="Where to write a trace for ui.perfetto.dev.", metavar="FILE")
    ] = None,
) -> int:
    """Print the summary of DIR and write its HTML report (DIR/report.html). Reads what is there, killed runs too."""
    import analysis

    form = Format.JSON if json_ else form
    suite = suite_in(directory)
    if suite is not None:
        pages = form is Format.HTML or html is not None or perfetto is not None
        return _report_suite(suite, form, pages=pages)
    try:
        summary = analysis.summarise(directory)
    except analysis.NoRecordsError as error:
        raise Stop(Exit.USAGE, str(error)) from None
    except (OSError, ValueError) as error:  # what pyarrow raises for a file that was changed
        reason = " ".join(str(error).split())
        raise Stop(Exit.USAGE, f"{directory}: cannot be read: {reason}; see loadgen verify {directory}") from None
    _show(directory, summary, form)
    # The directory of a finished run is covered by checksums: only a report of its own place is added there.
    finished = (directory / "summary.json").exists()
    destination = html or (None if finished else directory / "report.html")
    if destination is not None:
        with _writable(destination, "--html"):
            destination.write_text(analysis.html_report(directory, summary), encoding="utf-8")
    if perfetto is not None:
        with _writable(perfetto, "--perfetto"), perfetto.open("w", encoding="utf-8") as file:
            analysis.write_trace(directory, file)
    return Exit.OK


def _show(directory: Path, summary: Summary, form: Format) -> None:
    import analysis

    if form is Format.TEXT:
        typer.echo(analysis.terminal_report(summary))
    elif form is Format.JSON:
        typer.echo(summary.to_json(), nl=False)
    elif form is Format.MARKDOWN:
        typer.echo(analysis.markdown_report(summary), nl=False)
    else:
        typer.echo(analysis.html_report(directory, summary), nl=False)


def _report_suite(suite: Suite, form: Format, *, pages: bool) -> int:
    """Print what many campaigns show together, of what there is. Writes nothing."""
    from analysis.report.markdown import as_markdown
    from analysis.report.text import as_text

    directory = suite.directory
    if pages:
        raise Stop(Exit.USAGE, f"{directory}: holds many campaigns, each with its own page; name one of its folders")
    try:
        summarised = suite.summarised()
    except (OSError, LookupError, TypeError, ValueError) as error:  # files that were changed
        reason = " ".join(str(error).split())
        raise Stop(Exit.USAGE, f"{directory}: cannot be read: {reason}; see loadgen verify {directory}") from None
    if form is Format.JSON:
        typer.echo(summarised.to_json(), nl=False)
    else:
        typer.echo((as_markdown if form is Format.MARKDOWN else as_text)(summarised.document), nl=False)
    return Exit.OK


@contextlib.contextmanager
def _writable(path: Path, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Stop(
            Exit.USAGE, f"{path}: cannot be written: {error.strerror}; name another place with {option}"
        ) from None

"""`loadgen compare`: two run directories, metric by metric, as ratios with intervals and verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.cli.exits import Exit, Stop

if TYPE_CHECKING:
    from analysis.compare.comparison import Comparison
    from analysis.compare.sides import Side

__all__ = ["compare"]

FORMATS = ("text", "markdown", "json")
GATE = {"held": Exit.OK, "worse": Exit.OBJECTIVE, "undecided": Exit.INCONCLUSIVE}


def compare(
    a: Annotated[str, typer.Argument(help="A run's directory, or DIR:ARM for one arm of it.", metavar="A")],
    b: Annotated[str, typer.Argument(help="The one to compare with it.", metavar="B")],
    margin: Annotated[str, typer.Option(help="The difference that nobody would mind, of every metric.")] = "5%",
    metric: Annotated[
        list[str] | None, typer.Option(help="Compare only this, such as ttft_p50_ms; repeatable. Fewer find more.")
    ] = None,
    paired: Annotated[bool, typer.Option("--paired", help="Run i of A and run i of B belong together.")] = False,
    format_: Annotated[str, typer.Option("--format", help="text, markdown or json.")] = "text",
    json_: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write an HTML page as well.", metavar="FILE.html")] = None,
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit code 1 if B is worse beyond the margin, 3 if that is open.")
    ] = False,
) -> int:
    """Compare two run directories: the ratio B/A of each metric with its interval and a verdict under a margin."""
    from analysis.compare.compare import compare as compare_sides
    from analysis.compare.sides import NotComparableError

    if format_ not in FORMATS:
        raise Stop(Exit.USAGE, f"--format {format_}: choose one of {', '.join(FORMATS)}")
    if a == b:
        raise Stop(Exit.USAGE, f"{a}: is compared with itself; name two directories, or two arms of one as DIR:ARM")
    share = _share(margin)
    try:
        comparison = compare_sides(_side(a), _side(b), margin=share, metrics=metric, paired=paired)
    except NotComparableError as error:
        raise Stop(Exit.VOID, str(error)) from None
    except ValueError as error:
        raise Stop(Exit.USAGE, str(error)) from None
    _show(comparison, "json" if json_ else format_, out)
    return GATE[comparison.gate.verdict] if gate else Exit.OK


def _show(comparison: Comparison, form: str, page: Path | None) -> None:
    """Print a comparison, and write it as a page as well if one is named."""
    from analysis.report.comparison import comparison_document
    from analysis.report.html import as_page
    from analysis.report.markdown import as_markdown
    from analysis.report.text import as_text

    document = comparison_document(comparison)
    if form == "json":
        typer.echo(json.dumps(comparison.to_json(), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        typer.echo((as_markdown if form == "markdown" else as_text)(document), nl=False)
    if page is not None:
        try:
            page.write_text(as_page(document), encoding="utf-8")
        except OSError as error:
            raise Stop(Exit.USAGE, f"--out {page}: cannot be written: {error.strerror}") from None


def _share(text: str) -> float:
    """The share that is written as "5%" or "0.05"."""
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / 100 if number != text.strip() else float(number)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise Stop(Exit.USAGE, f"--margin {text}: must be between 0 and 100 %, such as 5%")
    return share


def _side(named: str) -> Side:
    import analysis
    from analysis.compare.sides import read_side

    directory, arm = _split(named)
    try:
        return read_side(directory, arm)
    except analysis.NoRecordsError as error:
        raise Stop(Exit.USAGE, str(error)) from None
    except OSError as error:
        reason = " ".join(str(error).split())
        raise Stop(Exit.USAGE, f"{directory}: cannot be read: {reason}; see loadgen verify {directory}") from None


def _split(named: str) -> tuple[Path, str | None]:
    """The directory and the arm of DIR:ARM; the name of either may have colons in it."""
    if Path(named).exists():
        return Path(named), None
    parts = named.split(":")
    for place in range(len(parts) - 1, 0, -1):
        directory = Path(":".join(parts[:place]))
        if directory.is_dir():
            return directory, ":".join(parts[place:])
    return Path(named), None

"""The commands put together, and every error a user can cause in one line."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from loadgen import __version__
from loadgen.cli.agents import agents, matrix
from loadgen.cli.calibrate import calibrate
from loadgen.cli.compare import compare
from loadgen.cli.discover import discover
from loadgen.cli.emulate import emulate
from loadgen.cli.exits import Exit, Stop
from loadgen.cli.report import report
from loadgen.cli.resume import resume
from loadgen.cli.run import run
from loadgen.cli.runtimes import runtimes
from loadgen.cli.slots import slots
from loadgen.cli.verify import verify

__all__ = ["run_app"]

app = typer.Typer(
    name="loadgen",
    help="Load generator and profiler for LLM inference servers: kernel-stamped tokens, every figure with its doubt.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help in boxes doubles the time of `loadgen --help`
    context_settings={"help_option_names": ["--help", "-h"]},
)
for _command in (run, agents, matrix, resume, discover, report, compare, verify, calibrate, slots, runtimes):
    app.command(short_help=_command.__doc__)(_command)  # in full, where typer would cut it short
# The emulator parses its own command line, so that it can start without anything imported here.
app.command(
    short_help=emulate.__doc__,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)(emulate)

# typer does not export the base class of what a wrong command line raises.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"loadgen {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def run_app(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code. Errors are one line on stderr."""
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, where a failure can still be reported
    except OSError as error:
        if not _is_stdout(error):
            raise
        _drop_stdout()
        if not isinstance(error, BrokenPipeError):  # else the reader has had enough
            print(f"loadgen: the results cannot be printed: {error.strerror}", file=sys.stderr)
        return int(Exit.VOID)
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        code = app(list(arguments), prog_name="loadgen", standalone_mode=False)
    except Stop as stop:
        print(f"loadgen: {stop}", file=sys.stderr)
        return int(stop.code)
    except typer.Exit as exit_:
        return exit_.exit_code
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
            print(error, file=sys.stderr)
            return int(Exit.USAGE)
        print(f"loadgen: {_message(error, arguments)} (loadgen --help lists what there is)", file=sys.stderr)
        return int(Exit.USAGE)
    except (typer.Abort, KeyboardInterrupt):
        code = Exit.INTERRUPTED
    if code == Exit.INTERRUPTED:  # typer turns Ctrl-C into this code, without a word; commands raise Stop
        print("loadgen: interrupted", file=sys.stderr)
    return int(code or 0)


def _message(error: Exception, arguments: Sequence[str]) -> str:
    formatted = getattr(error, "format_message", None)
    text = formatted() if formatted is not None else str(error)
    text = " ".join(str(text).split()).rstrip(".")
    if isinstance(error, typer.BadParameter):
        # The parser names the option and the cure, but not the value.
        for option in getattr(getattr(error, "param", None), "opts", ()):
            given = [b for a, b in itertools.pairwise(arguments) if a == option]
            given += [a.partition("=")[2] for a in arguments if a.startswith(f"{option}=")]
            if given:
                return f"{text}, got {given[-1]!r}"
    return text


def _is_stdout(error: OSError) -> bool:
    """Whether a write to stdout can have failed like this: its reader left, or the file it goes to is full."""
    return isinstance(error, BrokenPipeError) or (error.errno in (errno.ENOSPC, errno.EIO) and error.filename is None)


def _drop_stdout() -> None:
    """Python would try to flush what is left at exit, and fail once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

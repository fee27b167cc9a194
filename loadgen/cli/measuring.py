"""What commands that measure have in common: from options to a profile, from a profile to an exit code."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from loadgen.cli.exits import Exit, Stop
from loadgen.cli.exporting import Outlets, export, exporting

if TYPE_CHECKING:
    import asyncio

    from pydantic import JsonValue

    from analysis.summary import Summary
    from loadgen.campaign.campaign import Campaign, Finished
    from loadgen.cli.live import LiveView
    from loadgen.cli.options import Measuring
    from loadgen.cli.progress import Progress
    from loadgen.engine.tally import Tally
    from loadgen.exporter import Exporter
    from loadgen.profile import Profile

__all__ = [
    "NO_SERVER",
    "conclude",
    "faults_as_exits",
    "in_loop",
    "judge",
    "load_profile",
    "maybe_emulator",
    "measure_one",
    "new_directory",
    "prepare_and_measure",
    "prepared",
]

NO_SERVER = (
    "no server found at the usual local addresses (Ollama 11434, LM Studio 1234, vLLM 8000, llama.cpp 8080); "
    "name one with --url, or start a pretended one: loadgen emulate --port 8000"
)
_T = TypeVar("_T")


@contextlib.contextmanager
def maybe_emulator(wanted: bool, urls: list[str] | None, instances: int = 1) -> Iterator[list[str] | None]:
    """The URLs to measure: those of an emulator of `instances` servers while inside, if wanted, or those given."""
    if not wanted:
        yield urls
        return
    if urls:
        raise Stop(Exit.USAGE, "--emulator starts a server of its own to measure: leave --url out, or --emulator")
    from loadgen.emulator import Law, spawn

    with spawn(Law(jitter=0.1, batch_slope_s=0.0002, instances=instances)) as running:
        yield running.urls


def load_profile(
    source: str | None,
    urls: list[str] | None,
    target: dict[str, JsonValue],
    overrides: dict[str, JsonValue],
    *,
    quiet: bool,
) -> Profile:
    """The profile read, if there is one, with the options laid over it. Without a target one on this machine is found.

    target: what the options say of every target. overrides: what they say of the rest, nested like a profile. Both
    hold only what was given.
    """
    import asyncio

    from loadgen.errors import UsageError
    from loadgen.profile import load
    from loadgen.servers.discover import find_local

    if urls:
        overrides = {**overrides, "target": [{"url": url, **target} for url in urls]}
    elif target:
        overrides = {**overrides, "target": target}
    try:
        profile = load(source, overrides)
        if profile.targets:
            return profile
        found = asyncio.run(find_local())
        if not found:
            raise Stop(Exit.UNREACHABLE, NO_SERVER)
        at, identity = next(iter(found.items()))
        if not quiet:
            print(f"no --url given: taking {identity.label} at {at}", file=sys.stderr)
        return load(source, {**overrides, "target": [{"url": at, **target}]})
    except UsageError as error:
        raise Stop(Exit.USAGE, str(error)) from None


@contextlib.contextmanager
def faults_as_exits() -> Iterator[None]:
    """Whatever a user can act on leaves as a Stop with its exit code."""
    from loadgen.errors import Unreachable, UsageError

    try:
        yield
    except UsageError as error:
        raise Stop(Exit.USAGE, str(error)) from None
    except ModuleNotFoundError as error:
        if error.name != "uvloop":
            raise
        raise Stop(Exit.USAGE, "--loop uvloop: uvloop is not installed; use --loop auto") from None
    except Unreachable as error:
        raise Stop(Exit.UNREACHABLE, str(error)) from None
    except OSError as error:
        raise Stop(Exit.VOID, str(error)) from None


def in_loop(loop: str, work: Callable[[asyncio.Event], Awaitable[_T]]) -> _T:
    """Run `work` in an event loop of that kind; Ctrl-C and SIGTERM set the event it gets. Faults become exit codes."""
    import asyncio

    from loadgen.engine.eventloop import loop_factory

    async def main() -> _T:
        stop = asyncio.Event()
        with _signals(stop):
            return await work(stop)

    with faults_as_exits(), asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        return runner.run(main())


def measure_one(profile: Profile, source: str | None, given: Measuring) -> int:
    """Measure one campaign as the options ask, print its report and return the exit code. source: of the profile."""
    from loadgen.campaign.prepare import prepare

    directory = given.out or new_directory()
    with exporting(Outlets.of(given, directory), source or "command line", quiet=given.quiet) as exporter:
        finished = in_loop(
            profile.loop,
            lambda stop: prepare_and_measure(
                prepare(profile, directory),
                stop,
                progress=given.progress,
                quiet=given.quiet,
                live=given.live,
                exporter=exporter,
            ),
        )
        return conclude(finished, directory, json_=given.json, quiet=given.quiet)


async def prepare_and_measure(
    prepare: Awaitable[Campaign],
    stop: asyncio.Event,
    *,
    progress: bool,
    quiet: bool,
    live: bool = False,
    exporter: Exporter | None = None,
) -> Finished:
    """Await the campaign and measure it. Raises Stop if `stop` is set before there is anything to measure.

    live: draw the table instead of the line, where there is a terminal to draw it on.
    """
    from loadgen.campaign.measure import measure

    campaign = await prepared(prepare, stop, quiet=quiet)
    draw = _live_view(campaign) if live and progress and sys.stderr.isatty() else _progress(progress)
    show = export(campaign, exporter) if exporter is not None else None

    def tell(tally: Tally) -> None:
        draw(tally)
        if show is not None:
            show(tally)

    if not quiet:
        campaign.say = draw.say
    try:
        finished = await measure(campaign, tell, stop)
    finally:
        draw.close()
    if exporter is not None:
        exporter.conclude(finished.summary.verdict if finished.summary is not None else "failed")
    return finished


def _progress(shown: bool) -> Progress:
    from loadgen.cli.progress import Progress

    return Progress(shown=shown)


def _live_view(campaign: Campaign) -> LiveView:
    from loadgen.cli.live import LiveView

    view = LiveView()
    campaign.call_after_runs(lambda: view.count_runs(len(campaign.manifest.runs), len(campaign.design.planned)))
    return view


async def prepared(prepare: Awaitable[Campaign], stop: asyncio.Event, *, quiet: bool) -> Campaign:
    """Await the campaign and say if it has a lower tier. Raises Stop if `stop` is set before."""
    import asyncio

    preparing, stopped = asyncio.ensure_future(prepare), asyncio.ensure_future(stop.wait())
    await asyncio.wait({preparing, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not preparing.done():
        preparing.cancel()
        await asyncio.wait({preparing})
        raise Stop(Exit.INTERRUPTED, "interrupted before anything was measured")
    campaign = preparing.result()
    if campaign.tier_reason is not None and not quiet:
        print(f"stamps by the {campaign.tier} tier: {campaign.tier_reason}", file=sys.stderr)
    return campaign


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run; what was measured is kept."""
    import asyncio

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def conclude(finished: Finished, directory: Path, *, json_: bool, quiet: bool) -> int:
    """Print the report; return the exit code, or raise Stop with the line that says why it is not 0."""
    import analysis

    summary = finished.summary
    if summary is None:
        raise Stop(Exit.VOID, f"{finished.error}; loadgen report {directory} shows what was measured until then")
    if json_:
        typer.echo(summary.to_json(), nl=False)
    elif not quiet:
        typer.echo(analysis.terminal_report(summary, colour=sys.stdout.isatty()), nl=False)
        typer.echo(f"\n{directory}/report.html")
    sys.stdout.flush()  # before the line that says how it ended
    kept = f"what was measured until then is in {directory}"
    if finished.missing and finished.planned > 1:
        kept += f"; missing runs: {finished.missing}, loadgen resume {directory} makes them"
    if finished.interrupted:
        raise Stop(Exit.INTERRUPTED, f"interrupted; {kept}")
    if finished.error is not None:
        raise Stop(Exit.VOID, f"{finished.error}; {kept}")
    if finished.halted is not None:
        code = Exit.UNREACHABLE if finished.unreachable or summary.verdict == "failed" else Exit.VOID
        raise Stop(code, f"{finished.halted}; {kept}")
    if summary.verdict == "failed":
        raise Stop(Exit.UNREACHABLE, _all_failed(summary))
    if summary.verdict == "generator-limited":
        raise Stop(Exit.VOID, f"generator-limited: {'; '.join(summary.verdict_reasons)}")
    judge(summary)
    return Exit.OK


def judge(*summaries: Summary) -> None:
    """Raise Stop for the objectives that failed in any of the summaries, else for those that are inconclusive."""
    for verdict, code in (("failed", Exit.OBJECTIVE), ("inconclusive", Exit.INCONCLUSIVE)):
        stated = [objective for summary in summaries for objective in summary.objectives]
        names = dict.fromkeys(objective.name for objective in stated if objective.verdict == verdict)
        if names:
            raise Stop(code, f"objective {verdict}: {', '.join(names)}")


def _all_failed(summary: Summary) -> str:
    failed = summary.requests.failed
    counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(failed.items(), key=lambda item: -item[1]))
    return f"every request failed: {counts}" + (f" ({summary.errors[0].error})" if summary.errors else "")


def new_directory() -> Path:
    """A free directory below ./loadgen-runs, named after the time."""
    from loadgen.clock import wall_iso

    base = Path("loadgen-runs") / wall_iso()[:19].replace(":", "").replace("-", "").replace("T", "-")
    path, n = base, 1
    while path.exists():
        n += 1
        path = base.with_name(f"{base.name}-{n}")
    return path

"""`loadgen run`: offer a load to one or more servers and report."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loadgen.cli.discover import NOBODY
from loadgen.cli.exits import Exit, Stop
from loadgen.cli.target import headers, pairs

if TYPE_CHECKING:
    import asyncio

    from loadgen.campaign import Finished
    from loadgen.profile import Profile

__all__ = ["run"]

DEFAULT_PROFILE = "quickstart"


def run(
    profile: Annotated[str | None, typer.Argument(help="A profile: a YAML file, or the name of a shipped one.")] = None,
    url: Annotated[list[str] | None, typer.Option("--url", help="The server; repeat for several.")] = None,
    api: Annotated[str | None, typer.Option("--api", help="auto, openai, ollama or lmstudio.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="The model; auto takes the first one listed.")] = None,
    path: Annotated[str | None, typer.Option("--path", help="The request path, such as /v1/completions.")] = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", help="Closed loop: requests in flight.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Open loop: requests a second.")] = None,
    arrivals: Annotated[
        str | None, typer.Option("--arrivals", help="poisson, constant, gamma, burst or closed.")
    ] = None,
    burstiness: Annotated[float | None, typer.Option("--burstiness", help="Shape of gamma gaps; 1 is Poisson.")] = None,
    max_in_flight: Annotated[
        int | None, typer.Option("--max-in-flight", help="Cap of an open loop; the wait counts.")
    ] = None,
    requests: Annotated[int | None, typer.Option("--requests", help="Stop after this many.")] = None,
    duration: Annotated[float | None, typer.Option("--duration", help="Stop after this many seconds.")] = None,
    input_tokens: Annotated[int | None, typer.Option("--input-tokens", help="Length of the prompts.")] = None,
    output_tokens: Annotated[int | None, typer.Option("--output-tokens", help="Length of the answers.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Prompts from this JSONL or ShareGPT file.")] = None,
    cache: Annotated[
        str | None, typer.Option("--cache", help="unique, shared or none: prefixes of the prompts.")
    ] = None,
    warmup_requests: Annotated[int | None, typer.Option("--warmup-requests", help="Sent first, not measured.")] = None,
    warmup: Annotated[
        float | None, typer.Option("--warmup", help="Seconds at the start that are not measured.")
    ] = None,
    runs: Annotated[int | None, typer.Option("--runs", help="How often to repeat it all.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Makes schedule and prompts repeatable.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes that share the load.")] = None,
    objective: Annotated[
        list[str] | None, typer.Option("--objective", help="Such as ttft_p99_ms=500; repeat for several.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="Sent to the server, such as temperature=0.7.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", help="Sent with each request, as 'Name: value'.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", help="The environment variable that holds the key.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="A folder with tokenizer.json, for exact lengths.")
    ] = None,
    ca_file: Annotated[str | None, typer.Option("--ca-file", help="Trust these certificates (PEM).")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Do not verify the server's certificate.")] = False,
    proxy: Annotated[str | None, typer.Option("--proxy", help="An HTTP proxy (lowers the tier to aiohttp).")] = None,
    tier: Annotated[str | None, typer.Option("--tier", help="auto, kernel, callback or aiohttp.")] = None,
    loop: Annotated[str | None, typer.Option("--loop", help="auto, uvloop or asyncio.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run's directory; a new one.", metavar="DIR")] = None,
    emulator: Annotated[bool, typer.Option("--emulator", help="Measure an emulator started for the occasion.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print summary.json instead of the text.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No progress line.")] = False,
) -> int:
    """Offer a load and report what the server did, and how sure that is."""
    target = {
        "api": api,
        "model": model,
        "path": path,
        "api_key_env": api_key_env,
        "tokenizer": tokenizer,
        "ca_file": ca_file,
        "verify_tls": False if insecure else None,
        "options": pairs("--option", option) or None,
        "headers": headers(header) or None,
    }
    overrides: dict[str, Any] = {
        "load": {
            "arrivals": arrivals,
            "concurrency": concurrency,
            "rate_per_s": rate,
            "burstiness": burstiness,
            "max_in_flight": max_in_flight,
            "requests": requests,
            "duration_s": duration,
            "warmup_requests": warmup_requests,
            "warmup_s": warmup,
        },
        "work": {
            "prompt_tokens": input_tokens,
            "output_tokens": output_tokens,
            "dataset": str(Path(dataset).expanduser()) if dataset else None,
            "cache": cache,
        },
        "objectives": pairs("--objective", objective) or None,
        "runs": runs,
        "seed": seed,
        "workers": workers,
        "proxy": proxy,
        "tier": tier,
        "loop": loop,
    }
    with _maybe_emulator(emulator) as emulated:
        urls = [emulated] if emulated else url
        resolved = _load_profile(profile, urls, target, overrides, quiet=quiet)
        finished, directory = _measure(
            resolved, out or _new_directory(), progress=not (quiet or no_progress), quiet=quiet
        )
    return _conclude(finished, directory, json_=json_, quiet=quiet)


@contextlib.contextmanager
def _maybe_emulator(wanted: bool) -> Iterator[str | None]:
    if not wanted:
        yield None
        return
    from loadgen.emulator import Law, spawn

    with spawn(Law(jitter=0.1, batch_slope_s=0.0002)) as running:
        yield running.url


def _load_profile(
    name: str | None, urls: list[str] | None, target: dict[str, Any], overrides: dict[str, Any], *, quiet: bool
) -> Profile:
    """Read the profile; where nobody named a target, look for one on this machine."""
    import asyncio

    from loadgen.discover import find_local
    from loadgen.profile import ProfileError, load

    given = {key: value for key, value in target.items() if value is not None}
    if urls:
        overrides["target"] = [{"url": one, **given} for one in urls]
    elif given:
        overrides["target"] = given
    # A load given in full needs no profile; given nothing, the quickstart answers "what can it do".
    source = name or (None if any(value is not None for value in overrides["load"].values()) else DEFAULT_PROFILE)
    try:
        profile = load(source, overrides)
        if profile.targets:
            return profile
        found = asyncio.run(find_local())
        if not found:
            raise Stop(Exit.UNREACHABLE, NOBODY)
        at, identity = next(iter(found.items()))
        if not quiet:
            print(f"no --url given: taking {identity.label} at {at}", file=sys.stderr)
        return load(source, {**overrides, "target": [{"url": at, **given}]})
    except ProfileError as error:
        raise Stop(Exit.USAGE, str(error)) from None


def _measure(profile: Profile, directory: Path, *, progress: bool, quiet: bool) -> tuple[Finished, Path]:
    import asyncio

    from loadgen.discover import Unreachable
    from loadgen.loops import loop_factory
    from loadgen.profile import ProfileError

    try:
        with asyncio.Runner(loop_factory=loop_factory(profile.loop)) as runner:
            return runner.run(_prepare_and_measure(profile, directory, progress, quiet)), directory
    except ProfileError as error:
        raise Stop(Exit.USAGE, str(error)) from None
    except ModuleNotFoundError as error:
        if error.name != "uvloop":
            raise
        raise Stop(Exit.USAGE, "--loop uvloop: uvloop is not installed; use --loop auto") from None
    except Unreachable as error:
        raise Stop(Exit.UNREACHABLE, str(error)) from None
    except OSError as error:
        raise Stop(Exit.VOID, str(error)) from None


async def _prepare_and_measure(profile: Profile, directory: Path, progress: bool, quiet: bool) -> Finished:
    import asyncio

    from loadgen.campaign import measure, prepare
    from loadgen.cli.progress import Progress

    stop = asyncio.Event()
    draw = Progress(shown=progress)
    with _signals(stop):
        preparing, stopped = asyncio.ensure_future(prepare(profile, directory)), asyncio.ensure_future(stop.wait())
        await asyncio.wait({preparing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not preparing.done():
            preparing.cancel()
            await asyncio.wait({preparing})
            raise Stop(Exit.INTERRUPTED, "interrupted before anything was measured")
        campaign = preparing.result()
        if campaign.tier_reason is not None and not quiet:
            print(f"stamps by the {campaign.tier} tier: {campaign.tier_reason}", file=sys.stderr)
        try:
            return await measure(campaign, draw, stop)
        finally:
            draw.close()


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


def _conclude(finished: Finished, directory: Path, *, json_: bool, quiet: bool) -> int:
    import analysis

    summary = finished.summary
    if summary is None:
        raise Stop(Exit.VOID, f"{finished.error}; loadgen report {directory} shows what was measured until then")
    if json_:
        typer.echo(analysis.to_json(summary), nl=False)
    elif not quiet:
        typer.echo(analysis.terminal_report(summary, colour=sys.stdout.isatty()))
        typer.echo(f"\n{directory}/report.html")
    sys.stdout.flush()  # before the line that says how it ended
    if finished.interrupted:
        raise Stop(Exit.INTERRUPTED, f"interrupted; what was measured until then is in {directory}")
    if finished.error is not None:
        raise Stop(Exit.VOID, f"{finished.error}; what was measured until then is in {directory}")
    if finished.halted is not None:
        code = Exit.UNREACHABLE if summary["verdict"] == "failed" else Exit.VOID
        raise Stop(code, f"{finished.halted}; what was measured until then is in {directory}")
    if summary["verdict"] == "failed":
        raise Stop(Exit.UNREACHABLE, _all_failed(summary))
    if summary["verdict"] == "generator-limited":
        raise Stop(Exit.VOID, f"generator-limited: {'; '.join(summary['verdict_reasons'])}")
    for verdict, code in (("failed", Exit.OBJECTIVE), ("inconclusive", Exit.INCONCLUSIVE)):
        names = [one["name"] for one in summary.get("objectives") or () if one["verdict"] == verdict]
        if names:
            raise Stop(code, f"objective {verdict}: {', '.join(names)}")
    return Exit.OK


def _all_failed(summary: dict[str, Any]) -> str:
    failed = summary["requests"]["failed"]
    counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(failed.items(), key=lambda item: -item[1]))
    errors = summary.get("errors") or []
    return f"every request failed: {counts}" + (f" ({errors[0]['error']})" if errors and "error" in errors[0] else "")


def _new_directory() -> Path:
    """Return a free directory below ./loadgen-runs, named after the time."""
    from loadgen.clock import wall_iso

    base = Path("loadgen-runs") / wall_iso()[:19].replace(":", "").replace("-", "").replace("T", "-")
    path, n = base, 1
    while path.exists():
        n += 1
        path = base.with_name(f"{base.name}-{n}")
    return path

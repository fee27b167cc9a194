"""`loadgen runtimes`: the client's own event loops, tiers and sizes of a read compared, on the work of agents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loadgen.cli import options
from loadgen.cli.exits import Exit, Stop
from loadgen.cli.matrix import choose, kept_whole, make_directory, seed_of, show
from loadgen.cli.measuring import in_loop, load_profile, maybe_emulator, new_directory

if TYPE_CHECKING:
    import asyncio

    from loadgen.campaign.runtimes import Variant
    from loadgen.campaign.suite import Tested
    from loadgen.profile import Configuration, Profile

__all__ = ["resume_runtimes", "runtimes"]

EMULATED = 2
SCENARIO = "chimera_homo"
RUNS = 5


def runtimes(
    profile: options.ProfileName = None,
    variants: Annotated[
        str | None,
        typer.Option(
            "--variants", help="All, or some of kernel,uvloop,asyncio,callback,aiohttp,read-1k,read-64k,one-permit."
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Also compare the others with this variant.", metavar="VARIANT")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option("--scenario", help="baseline_vs_chimera, chimera_hetero or chimera_homo.")
    ] = None,
    url: options.Url = None,
    api: options.Api = None,
    model: options.Model = None,
    path: options.RequestPath = None,
    workload: Annotated[
        str | None, typer.Option("--workload", help="two-stage, micro, single (not streamed) or synthetic.")
    ] = None,
    agents_: Annotated[int | None, typer.Option("--agents", help="How many agents; 2, if left out.")] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", help="How often each does its work in a run.")] = None,
    solo: Annotated[
        bool | None, typer.Option("--solo/--no-solo", help="Measure each agent alone as well; efficiency needs it.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="The folder the agents are asked about; else a made-up one.")
    ] = None,
    phases: Annotated[
        str | None, typer.Option("--phases", help="Of a profile's configurations: all, or such as 1,3.")
    ] = None,
    input_tokens: options.InputTokens = None,
    output_tokens: options.OutputTokens = None,
    warmup_requests: options.WarmupRequests = None,
    runs: options.Runs = None,
    order: Annotated[
        str | None, typer.Option("--order", help="Of variants, configurations and arms: randomised or fixed.")
    ] = None,
    cooldown: options.Cooldown = None,
    seed: options.Seed = None,
    option: options.Option = None,
    header: options.Header = None,
    api_key_env: options.ApiKeyEnv = None,
    tokenizer: options.Tokenizer = None,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    proxy: options.Proxy = None,
    out: options.Out = None,
    emulator: options.Emulator = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    no_progress: options.NoProgress = False,
) -> int:
    """Compare the client's own runtimes: event loops, tiers and reads, by what agents gain, with a control."""
    target = options.target_of(
        api=api,
        model=model,
        path=path,
        api_key_env=api_key_env,
        tokenizer=tokenizer,
        ca_file=ca_file,
        insecure=insecure,
        option=option,
        header=header,
    )
    overrides: dict[str, Any] = {
        "agents": {
            "scenario": scenario if scenario is not None or profile is not None else SCENARIO,
            "workload": workload,
            "count": agents_,
            "rounds": rounds,
            "solo": solo,
            "data": str(data.expanduser()) if data else None,
            "warmup_requests": warmup_requests,
        },
        "work": {"prompt_tokens": input_tokens, "output_tokens": output_tokens},
        "runs": runs if runs is not None or profile is not None else RUNS,
        "campaign": {"cooldown_s": cooldown, "order": order},
        "seed": seed,
        "proxy": proxy,
    }
    wanted = _wanted(variants)
    if against is not None and against not in wanted:
        raise Stop(Exit.USAGE, f"--against {against}: is not measured; name one of {', '.join(wanted)}")
    with maybe_emulator(emulator, url, EMULATED) as urls:
        resolved = load_profile(profile, urls, target, overrides, quiet=quiet)
        _check(resolved, profile)
        return _compare(
            resolved,
            wanted,
            against,
            choose(resolved, phases) if phases is not None or _configurations(resolved) else [],
            out or new_directory(),
            json_=json_,
            quiet=quiet,
            progress=not (quiet or no_progress),
        )


def _wanted(named: str | None) -> dict[str, Variant]:
    from loadgen.campaign.runtimes import VARIANTS

    if named is None:
        return VARIANTS
    words = [word.strip() for word in named.split(",")]
    unknown = [word for word in words if word not in VARIANTS]
    if unknown:
        known = ", ".join(VARIANTS)
        raise Stop(Exit.USAGE, f"--variants {named}: there is no {unknown[0] or 'empty one'}; there are {known}")
    return {word: VARIANTS[word] for word in words}


def _configurations(profile: Profile) -> bool:
    return profile.agents is not None and bool(profile.agents.configurations)


def _check(profile: Profile, name: str | None) -> None:
    if profile.agents is None:
        raise Stop(Exit.USAGE, f"{name}: describes no agents; add --scenario {SCENARIO}, or name a profile that does")
    if profile.campaign.until is not None:
        raise Stop(Exit.USAGE, "campaign.until cannot go with runtimes, which make the same runs each: use --runs")
    if profile.campaign.isolation == "unload":
        raise Stop(Exit.USAGE, "campaign.isolation unload cannot go with runtimes, whose runs are a process each")


def _compare(
    profile: Profile,
    wanted: dict[str, Variant],
    against: str | None,
    chosen: list[Configuration],
    directory: Path,
    *,
    json_: bool,
    quiet: bool,
    progress: bool,
) -> int:
    """Measure, print the summary and return the exit code."""
    from loadgen.campaign.runtimes import unavailable

    reasons = {name: unavailable(variant, profile.proxy) for name, variant in wanted.items()}
    left_out = {name: reason for name, reason in reasons.items() if reason is not None}
    variants = [variant for name, variant in wanted.items() if name not in left_out]
    if not variants:
        told = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise Stop(Exit.USAGE, f"none of the variants can be measured here ({told}); name others with --variants")
    if not quiet:
        for name, reason in left_out.items():
            print(f"{name} left out: {reason}", file=sys.stderr)
    make_directory(directory)
    tested = in_loop(
        "auto", lambda stop: _measure(profile, variants, left_out, chosen, directory, stop, progress, quiet, against)
    )
    show(directory, "report.html", json_=json_, quiet=quiet)
    return _conclude(tested, directory)


def resume_runtimes(
    profile: Profile, before: dict[str, Any], directory: Path, *, json_: bool, progress: bool, quiet: bool
) -> int:
    """Make what the comparison in `directory` lacks; print the summary and return the exit code."""
    from loadgen.campaign.runtimes import VARIANTS, unavailable

    assert profile.agents is not None
    variants = [VARIANTS[one["name"]] for one in before["variants"]]
    for variant in variants:
        reason = unavailable(variant, profile.proxy)
        if reason is not None:
            raise Stop(Exit.USAGE, f"{variant.name} cannot be measured any more: {reason}; start a new comparison")
    named = {str(one.id): one for one in profile.agents.configurations}
    cells = dict.fromkeys(cell["configuration"] for cell in before["cells"])
    chosen = [named[one] for one in cells if one is not None]
    left_out, against = before["left_out"], before["against"]
    with kept_whole(directory):
        tested = in_loop(
            "auto",
            lambda stop: _measure(
                profile, variants, left_out, chosen, directory, stop, progress, quiet, against, before
            ),
        )
    show(directory, "report.html", json_=json_, quiet=quiet)
    return _conclude(tested, directory)


async def _measure(
    profile: Profile,
    variants: list[Variant],
    left_out: dict[str, str],
    chosen: list[Configuration],
    directory: Path,
    stop: asyncio.Event,
    progress: bool,
    quiet: bool,
    against: str | None,
    before: dict[str, Any] | None = None,
) -> list[Tested]:
    from loadgen.campaign.runtimes import measure_runtimes
    from loadgen.cli.progress import Progress

    draw = Progress(shown=progress)

    def say(line: str) -> None:
        if not quiet:
            draw.say(line)

    seed = seed_of(profile, before)
    try:
        return await measure_runtimes(
            profile, variants, left_out, chosen, directory, seed, draw, say, stop, against, before
        )
    finally:
        draw.close()


def _conclude(tested: list[Tested], directory: Path) -> int:
    """Return 0, also where a runtime was the bottleneck, for that is what was asked; or raise what went wrong."""
    kept = f"what was measured is in {directory}"
    if any(one.interrupted for one in tested):
        raise Stop(Exit.INTERRUPTED, f"interrupted; {kept}; loadgen resume {directory} makes the rest")
    failed = [one for one in tested if not one.ok]
    if failed:
        code = Exit.UNREACHABLE if all(one.unreachable for one in failed) else Exit.VOID
        raise Stop(code, f"{len(failed)} of {len(tested)} measurements failed: {failed[0].reason}; {kept}")
    return Exit.OK

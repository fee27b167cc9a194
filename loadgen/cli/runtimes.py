"""`loadgen runtimes`: the client's own event loops, tiers and sizes of a read compared, on the work of agents."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loadgen.cli.exits import Exit, Stop
from loadgen.cli.measuring import in_loop, load_profile, maybe_emulator, new_directory
from loadgen.cli.options import Measuring, takes
from loadgen.cli.suites import check_tested, choose, kept_whole, make_directory, progress_of, show

if TYPE_CHECKING:
    import asyncio

    from loadgen.campaign.runtimes import Variant
    from loadgen.campaign.suite import Tested
    from loadgen.profile import Configuration, Profile
    from loadgen.suite_manifest import RuntimesManifest

__all__ = ["resume_runtimes", "runtimes"]

EMULATED = 2
SCENARIO = "chimera_homo"
RUNS = 5


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What is compared. left_out: variants that cannot be measured here, each with the reason."""

    variants: list[Variant]
    left_out: dict[str, str]
    chosen: list[Configuration]
    against: str | None


@takes("runtimes", Measuring)
def runtimes(given: Measuring) -> int:
    """Compare the client's own runtimes: event loops, tiers and reads, by what agents gain, with a control."""
    wanted = _wanted(given.variants)
    if given.against is not None and given.against not in wanted:
        raise Stop(Exit.USAGE, f"--against {given.against}: is not measured; name one of {', '.join(wanted)}")
    overrides = given.overrides
    if given.profile is None:
        overrides = {"runs": RUNS, **overrides, "agents": {"scenario": SCENARIO, **given.section("agents")}}
    with maybe_emulator(given.emulator, given.url, EMULATED) as urls:
        profile = load_profile(given.profile, urls, given.target, overrides, quiet=given.quiet)
        _check(profile, given.profile)
        listed = profile.agents is not None and bool(profile.agents.configurations)
        chosen = choose(profile, given.phases) if given.phases is not None or listed else []
        comparison = _available(profile, wanted, chosen, given)
        directory = given.out or new_directory()
        make_directory(directory)
        tested = in_loop(
            "auto", lambda stop: _measure(profile, comparison, directory, stop, given.progress, given.quiet)
        )
        show(directory, json_=given.json, quiet=given.quiet)
        return _conclude(tested, directory)


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


def _check(profile: Profile, name: str | None) -> None:
    if profile.agents is None:
        raise Stop(Exit.USAGE, f"{name}: describes no agents; add --scenario {SCENARIO}, or name a profile that does")
    if profile.campaign.until is not None:
        raise Stop(Exit.USAGE, "campaign.until cannot go with runtimes, which make the same runs each: use --runs")
    if profile.campaign.isolation == "unload":
        raise Stop(Exit.USAGE, "campaign.isolation unload cannot go with runtimes, whose runs are a process each")


def _available(
    profile: Profile, wanted: dict[str, Variant], chosen: list[Configuration], given: Measuring
) -> _Comparison:
    """The comparison of the variants that can be measured here; the others are named on stderr."""
    from loadgen.campaign.runtimes import unavailable

    reasons = {name: unavailable(variant, profile.proxy) for name, variant in wanted.items()}
    left_out = {name: reason for name, reason in reasons.items() if reason is not None}
    variants = [variant for name, variant in wanted.items() if name not in left_out]
    if not variants:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise Stop(Exit.USAGE, f"none of the variants can be measured here ({why}); name others with --variants")
    if not given.quiet:
        for name, reason in left_out.items():
            print(f"{name} left out: {reason}", file=sys.stderr)
    return _Comparison(variants, left_out, chosen, given.against)


def resume_runtimes(
    profile: Profile, before: RuntimesManifest, directory: Path, *, json_: bool, progress: bool, quiet: bool
) -> int:
    """Make what the comparison in `directory` lacks; print the summary and return the exit code."""
    from loadgen.campaign.runtimes import VARIANTS, unavailable

    assert profile.agents is not None
    variants = [VARIANTS[variant.name] for variant in before.variants]
    for variant in variants:
        reason = unavailable(variant, profile.proxy)
        if reason is not None:
            raise Stop(Exit.USAGE, f"{variant.name} cannot be measured any more: {reason}; start a new comparison")
    named = {str(configuration.id): configuration for configuration in profile.agents.configurations}
    cells = dict.fromkeys(cell.configuration for cell in before.cells)
    chosen = [named[name] for name in cells if name is not None]
    comparison = _Comparison(variants, before.left_out, chosen, before.against)
    with kept_whole(directory):
        tested = in_loop("auto", lambda stop: _measure(profile, comparison, directory, stop, progress, quiet, before))
    show(directory, json_=json_, quiet=quiet)
    return _conclude(tested, directory)


async def _measure(
    profile: Profile,
    comparison: _Comparison,
    directory: Path,
    stop: asyncio.Event,
    progress: bool,
    quiet: bool,
    before: RuntimesManifest | None = None,
) -> list[Tested]:
    from loadgen.campaign.runtimes import measure_runtimes
    from loadgen.campaign.suite import seed_of

    with progress_of(shown=progress, quiet=quiet) as (draw, say):
        return await measure_runtimes(
            profile,
            comparison.variants,
            comparison.left_out,
            comparison.chosen,
            directory,
            seed_of(profile, before),
            draw,
            say,
            stop,
            comparison.against,
            before,
        )


def _conclude(tested: list[Tested], directory: Path) -> int:
    """0, also where a runtime was the bottleneck, because that was the question; or a Stop with what went wrong."""
    check_tested(tested, directory, "measurements")
    return Exit.OK

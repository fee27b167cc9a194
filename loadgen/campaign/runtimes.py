"""A comparison of loadgen's own runtimes: the same agents measured with each, run by run in turns.

A variant is a profile with loop, tier, size of a read or permits set. Every run has a process of its own, so that its
loop is the variant's and nothing is left over from another one. Variants and configurations take turns block by block,
in an order drawn from a recorded seed.

`kernel` and `uvloop` are the same settings under two names: their difference is noise. One permit lets the agents work
one after the other, whatever the runtime, and so must give an efficiency of 1/N.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from loadgen.campaign.rundir import write_manifest
from loadgen.campaign.suite import Tested, begin, begin_again, directory_of, end, measure_in_turns, order_of, outcome
from loadgen.clock import now_ns
from loadgen.engine.tally import Tally
from loadgen.errors import UsageError
from loadgen.profile import Configuration, Profile
from loadgen.suite_manifest import RUNTIMES, CellFacts, RuntimesManifest, VariantFacts
from loadgen.transport.tier import choose_tier

__all__ = ["CONTROL", "VARIANTS", "Variant", "measure_runtimes", "unavailable"]

CONTROL = "one-permit"


@dataclass(frozen=True, slots=True)
class Variant:
    """One runtime: the settings that replace those of the profile.

    read_bytes: None is the tier's own. permits: None is the profile's.
    """

    name: str
    tier: str = "kernel"
    loop: str = "auto"  # uvloop where there is one
    read_bytes: int | None = None
    permits: int | None = None


_Cell = tuple[Variant, Configuration | None]

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("kernel"),
        Variant("uvloop", loop="uvloop"),
        Variant("asyncio", loop="asyncio"),
        Variant("callback", tier="callback"),
        Variant("aiohttp", tier="aiohttp"),
        Variant("read-1k", read_bytes=1024),
        Variant("read-64k", read_bytes=65_536),
        Variant(CONTROL, permits=1),
    )
}


def unavailable(variant: Variant, proxy: str | None) -> str | None:
    """The reason, in one line, why a variant cannot be measured here; None if it can."""
    if variant.loop == "uvloop" and not _has_uvloop():
        return "uvloop is not installed"
    try:
        tier, reason = choose_tier(variant.tier, proxy)
    except UsageError as error:
        return str(error).removeprefix(f"--tier {variant.tier}: ").partition(";")[0]
    return None if tier == variant.tier else reason


async def measure_runtimes(
    profile: Profile,
    variants: Sequence[Variant],
    left_out: dict[str, str],
    chosen: Sequence[Configuration],
    directory: Path,
    seed: int,
    tell: Callable[[Tally], None],
    say: Callable[[str], None],
    stop: asyncio.Event,
    against: str | None = None,
    before: RuntimesManifest | None = None,
) -> list[Tested]:
    """The campaigns after every configuration was measured with every variant, or `stop` was set.

    left_out: the variants that cannot be measured, each with the reason. chosen: empty for the profile as it is.
    against: the variant that the others are compared with as well. before: the manifest of the same comparison, to make
    only the runs missing in `directory`.
    `directory` must exist. Raises UsageError, after the rest was given up, for a campaign that cannot be measured.
    """
    configurations: list[Configuration | None] = [*chosen] or [None]
    cells = [(variant, configuration) for configuration in configurations for variant in variants]
    order, began_ns = order_of(profile, len(cells), seed), now_ns()
    if before is not None:
        manifest = begin_again(before, directory)
    else:
        manifest = _manifest(profile, seed, variants, left_out, cells, order).with_(against=against)
    write_manifest(directory, manifest, RUNTIMES)
    tested = [Tested(_configuration(*cell), directory / _place(*cell)) for cell in cells]
    try:
        await measure_in_turns([_with(profile, cell[0]) for cell in cells], tested, order, seed, tell, say, stop)
    finally:
        tests = [
            msgspec.structs.replace(outcome(test), id=cell.directory)
            for test, cell in zip(tested, manifest.cells, strict=True)
        ]
        write_manifest(directory, end(manifest, tested, tests, began_ns), RUNTIMES)
    return tested


def _manifest(
    profile: Profile,
    seed: int,
    variants: Sequence[Variant],
    left_out: Mapping[str, str],
    cells: Sequence[_Cell],
    order: Sequence[tuple[int, int]],
) -> RuntimesManifest:
    assert profile.agents is not None
    return begin(
        RuntimesManifest,
        profile,
        seed,
        variants=tuple(VariantFacts(**{**asdict(variant), "loop": _loop_of(variant)}) for variant in variants),
        control=CONTROL,
        left_out=dict(left_out),
        planned=tuple((block, cells[place][0].name, _name(cells[place][1])) for block, place in order),
        cells=tuple(
            CellFacts(
                variant=variant.name,
                configuration=_name(configuration),
                directory=_place(variant, configuration),
                scenario=(configuration and configuration.scenario) or profile.agents.scenario,
            )
            for variant, configuration in cells
        ),
    )


def _with(profile: Profile, variant: Variant) -> Profile:
    return profile.model_copy(
        update={
            "tier": variant.tier,
            "loop": _loop_of(variant),
            "read_bytes": variant.read_bytes,
            "campaign": profile.campaign.model_copy(update={"isolation": "process"}),
            # Nothing is sampled: a sampler per variant would itself slow down the runs that are compared.
            "telemetry": profile.telemetry.model_copy(update={"interval_s": 0.0}),
        }
    )


def _configuration(variant: Variant, configuration: Configuration | None) -> Configuration:
    """The configuration to measure; without one, the profile as it is under the name of the variant."""
    base = Configuration(id=variant.name) if configuration is None else configuration
    return base if variant.permits is None else base.model_copy(update={"permits": variant.permits})


def _name(configuration: Configuration | None) -> str | None:
    return None if configuration is None else str(configuration.id)


def _place(variant: Variant, configuration: Configuration | None) -> str:
    """The name of the directory of a variant with a configuration."""
    return variant.name if configuration is None else f"{variant.name}/{directory_of(configuration)}"


def _loop_of(variant: Variant) -> str:
    return variant.loop if variant.loop != "auto" else "uvloop" if _has_uvloop() else "asyncio"


def _has_uvloop() -> bool:
    return importlib.util.find_spec("uvloop") is not None

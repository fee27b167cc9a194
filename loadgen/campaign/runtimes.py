"""The client's own runtimes compared: the same agents measured by each, run by run in turns.

A variant is a profile with loop, tier, size of a read or permits set. Every run has a process of its own, so that its
loop is the variant's and nothing is left over from another one. Variants and configurations take turns block by block,
in an order drawn from a recorded seed.

`kernel` and `uvloop` are the same settings under two names: what lies between them is noise. One permit lets the agents
work one after the other, whatever the runtime, and so must give an efficiency of 1/N.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadgen.campaign.design import planned
from loadgen.campaign.matrix import Tested, begin_again, closing, directory_of, measure_in_turns, opening, outcome
from loadgen.campaign.rundir import write_manifest
from loadgen.clock import now_ns
from loadgen.engine.tally import Tally
from loadgen.errors import UsageError
from loadgen.profile.profile import Configuration, Profile
from loadgen.transport.tier import choose_tier

__all__ = ["CONTROL", "MANIFEST", "VARIANTS", "Variant", "measure_runtimes", "unavailable"]

MANIFEST = "runtimes.json"
CONTROL = "one-permit"


@dataclass(frozen=True, slots=True)
class Variant:
    """What is set over the profile. read_bytes: None is the tier's own. permits: None is the profile's."""

    name: str
    tier: str = "kernel"
    loop: str = "auto"  # uvloop where there is one
    read_bytes: int | None = None
    permits: int | None = None


VARIANTS = {
    one.name: one
    for one in (
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
    """Return why a variant cannot be measured here, in a line; None if it can."""
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
    before: Mapping[str, Any] | None = None,
) -> list[Tested]:
    """Measure every configuration with every variant; return when all are done, or `stop` is set.

    left_out: the variants that cannot be measured, each with the reason. chosen: empty, for the profile as it is.
    against: the variant that the others are to be compared with as well. before: the manifest of the same comparison,
    to make only what is missing in `directory`.
    `directory` must exist. Raises UsageError, after the rest was given up, for what cannot be measured as asked.
    """
    assert profile.agents is not None
    configurations: list[Configuration | None] = [*chosen] or [None]
    cells = [(variant, one) for one in configurations for variant in variants]
    tested = [Tested(_configuration(variant, one), directory / _place(variant, one)) for variant, one in cells]
    names = [str(place) for place in range(len(cells))]
    order = [(block, int(name)) for block, name in planned(names, profile.runs, profile.campaign.order, seed)]
    began_ns = now_ns()
    manifest: dict[str, Any] = {
        "schema": "loadgen.runtimes/1",
        **opening(profile, seed),
        "variants": [{**asdict(one), "loop": _loop_of(one)} for one in variants],
        "control": CONTROL,
        "against": against,
        "left_out": left_out,
        "planned": [[block, *_cell(*cells[place])] for block, place in order],
        "cells": [
            {
                "variant": variant.name,
                "configuration": _cell(variant, one)[1],
                "directory": _place(variant, one),
                "scenario": (one and one.scenario) or profile.agents.scenario,
            }
            for variant, one in cells
        ],
    }
    if before is not None:
        manifest = begin_again(before, directory)
    write_manifest(directory, manifest, MANIFEST)
    took_s = manifest.get("duration_s", 0.0)
    try:
        profiles = [_with(profile, variant) for variant, _ in cells]
        await measure_in_turns(profiles, tested, order, seed, tell, say, stop)
    finally:
        manifest |= {
            **closing(tested, began_ns, took_s),
            "tests": [
                {**outcome(one), "id": cell["directory"]} for one, cell in zip(tested, manifest["cells"], strict=True)
            ],
        }
        write_manifest(directory, manifest, MANIFEST)
    return tested


def _with(profile: Profile, variant: Variant) -> Profile:
    return profile.model_copy(
        update={
            "tier": variant.tier,
            "loop": _loop_of(variant),
            "read_bytes": variant.read_bytes,
            "campaign": profile.campaign.model_copy(update={"isolation": "process"}),
            # Nothing is sampled: as many samplers as variants would themselves slow down what is compared.
            "telemetry": profile.telemetry.model_copy(update={"interval_s": 0.0}),
        }
    )


def _configuration(variant: Variant, one: Configuration | None) -> Configuration:
    base = Configuration(id=variant.name) if one is None else one
    return base if variant.permits is None else base.model_copy(update={"permits": variant.permits})


def _cell(variant: Variant, one: Configuration | None) -> tuple[str, str | None]:
    return variant.name, None if one is None else str(one.id)


def _place(variant: Variant, one: Configuration | None) -> str:
    return variant.name if one is None else f"{variant.name}/{directory_of(one)}"


def _loop_of(variant: Variant) -> str:
    return variant.loop if variant.loop != "auto" else "uvloop" if _has_uvloop() else "asyncio"


def _has_uvloop() -> bool:
    return importlib.util.find_spec("uvloop") is not None

"""`loadgen slots`: how many requests a server really works on at once, and whether it remembers prompts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from loadgen.cli.exits import Exit, Stop
from loadgen.cli.measuring import faults_as_exits, load_profile
from loadgen.cli.options import Given, takes

if TYPE_CHECKING:
    from pydantic import JsonValue

    from analysis.probes.slots import SlotsResult
    from loadgen.profile import Profile

__all__ = ["slots"]

ANY_LOAD: dict[str, JsonValue] = {"concurrency": 1, "requests": 1}  # not what will be sent; a profile must have one


@dataclass(frozen=True, kw_only=True)
class Probing(Given):
    """What the options of `slots` say. needed: agents that should find a slot each. repeats: look for a cache too."""

    server: str | None
    most: int
    burst_rounds: int
    answer_tokens: int
    needed: int | None
    repeats: bool
    format: str
    page: Path | None


@takes("slots", Probing)
def slots(given: Probing) -> int:
    """Find how many requests the server really works on at once, and say what to set."""
    from analysis.report.slots import slots_markdown, slots_page, slots_text

    forms: dict[str, Callable[[SlotsResult], str]] = {
        "text": slots_text,
        "markdown": slots_markdown,
        "json": _json,
    }
    if given.format not in forms:
        raise Stop(Exit.USAGE, f"--format {given.format}: choose one of {', '.join(forms)}")
    urls = [given.server] if given.server else None
    profile = load_profile(None, urls, given.target, {"load": ANY_LOAD, **given.overrides}, quiet=given.quiet)
    result = _measure(profile, given)
    typer.echo(forms["json" if given.json else given.format](result), nl=False)
    if given.page is not None:
        try:
            given.page.write_text(slots_page(result), encoding="utf-8")
        except OSError as error:
            place = f"{given.page}: cannot be written: {error.strerror}"
            raise Stop(Exit.USAGE, f"{place}; name another place with --out") from None
    sys.stdout.flush()  # before the line that says why it is not known
    return _conclude(result, given)


def _json(result: SlotsResult) -> str:
    import msgspec

    return json.dumps(msgspec.to_builtins(result), indent=1) + "\n"


def _measure(profile: Profile, given: Probing) -> SlotsResult:
    import asyncio

    from loadgen.engine.eventloop import loop_factory
    from loadgen.probes.probe import ClockJumped
    from loadgen.probes.slots import Wanted, probe_slots

    def say(line: str) -> None:
        if not given.quiet:
            print(line, file=sys.stderr)

    wanted = Wanted(given.most, given.burst_rounds, given.answer_tokens, given.needed, given.repeats)
    [spec] = profile.targets
    try:
        with faults_as_exits(), asyncio.Runner(loop_factory=loop_factory(profile.loop)) as runner:
            return runner.run(probe_slots(spec, wanted, say, tier=profile.tier, seed=profile.seed, proxy=profile.proxy))
    except ClockJumped as error:
        raise Stop(Exit.VOID, str(error)) from None


def _conclude(result: SlotsResult, given: Probing) -> int:
    """0, or a Stop with the line that says why the slots, or the cache that was looked for, are not known."""
    if not result.answered:
        raise Stop(Exit.UNREACHABLE, f"every request failed: {result.turned_away}")
    if result.verdict == "inconclusive":
        raise Stop(Exit.INCONCLUSIVE, f"slots inconclusive: {result.reason}")
    if result.cache is not None and result.cache.verdict == "inconclusive":
        raise Stop(Exit.INCONCLUSIVE, f"prefix cache inconclusive: {result.cache.sentence}")
    return Exit.OK

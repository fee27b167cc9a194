"""`loadgen agents`: agents alone and at the same time, and what that gains; `loadgen matrix`: many such tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadgen.cli.exits import Exit, Stop
from loadgen.cli.exporting import Outlets
from loadgen.cli.matrix import measure_configurations
from loadgen.cli.measuring import load_profile, maybe_emulator, measure_one, new_directory
from loadgen.cli.options import Measuring, takes

if TYPE_CHECKING:
    from loadgen.profile import Profile

__all__ = ["agents", "matrix"]

EMULATED = 2  # instances that --emulator starts, each with a GPU of its own


@takes("agents", Measuring)
def agents(given: Measuring) -> int:
    """Measure agents alone and at the same time, and what the company costs: speedup, efficiency, contention."""
    if given.profile is None and "scenario" not in given.section("agents"):
        raise Stop(
            Exit.USAGE, "no agents: give a profile, or --scenario baseline_vs_chimera|chimera_hetero|chimera_homo"
        )
    with maybe_emulator(given.emulator, given.url, EMULATED) as urls:
        profile = load_profile(given.profile, urls, given.target, given.overrides, quiet=given.quiet)
        if profile.agents is None:
            name = given.profile
            raise Stop(Exit.USAGE, f"{name}: describes no agents; give a --scenario, or use loadgen run {name}")
        if profile.agents.configurations:
            return _configurations(profile, given)
        if given.phases is not None:
            raise Stop(Exit.USAGE, "--phases: there are no configurations; name a profile that has some, as agents-30")
        return measure_one(profile, given.profile, given)


@takes("matrix", Measuring)
def matrix(given: Measuring) -> int:
    """Measure the configurations of a profile of agents, each a campaign of its own, run by run in turns."""
    if given.profile is None:
        raise Stop(Exit.USAGE, "no configurations: name a profile that has some, as agents-30")
    with maybe_emulator(given.emulator, given.url, EMULATED) as urls:
        profile = load_profile(given.profile, urls, given.target, given.overrides, quiet=given.quiet)
        if profile.agents is None or not profile.agents.configurations:
            other = "run" if profile.agents is None else "agents"
            line = f"{given.profile}: has no configurations; name a profile that has some, as agents-30, or use"
            raise Stop(Exit.USAGE, f"{line} loadgen {other} {given.profile}")
        return _configurations(profile, given)


def _configurations(profile: Profile, given: Measuring) -> int:
    """Measure them, if nothing is asked for that only one campaign can have."""
    directory = given.out or new_directory()
    outlets = Outlets.of(given, directory)
    if outlets.any or given.live:
        what, them = ("live counters are", "them") if outlets.any else ("the table of --live is", "it")
        many = f"a profile with configurations makes many; leave {them} out"
        raise Stop(Exit.USAGE, f"{what} of one campaign: {many}")
    return measure_configurations(profile, directory, given)

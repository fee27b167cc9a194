"""A matrix: several configurations of agents, each a campaign in a directory of its own, run by run in turns.

Within a block the order of the configurations is drawn, and reversed in the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadgen.campaign.rundir import write_manifest
from loadgen.campaign.suite import Tested, begin, begin_again, directory_of, end, measure_in_turns, order_of, outcome
from loadgen.clock import now_ns
from loadgen.engine.tally import Tally
from loadgen.profile import Configuration, Profile
from loadgen.profile.secrets import without_secrets
from loadgen.suite_manifest import MATRIX, SWEEP, AgentOptions, ConfigurationFacts, MatrixManifest

__all__ = ["Matrix", "measure_matrix"]


@dataclass(slots=True)
class Matrix:
    """A matrix as planned, and the end of each configuration."""

    manifest: MatrixManifest
    tested: list[Tested] = field(default_factory=list)


async def measure_matrix(
    profile: Profile,
    chosen: Sequence[Configuration],
    directory: Path,
    seed: int,
    tell: Callable[[Tally], None],
    say: Callable[[str], None],
    stop: asyncio.Event,
    before: MatrixManifest | None = None,
) -> Matrix:
    """The matrix after every configuration was measured, or `stop` was set. `directory` must exist.

    before: the manifest of the same matrix, to make only the runs missing in `directory`.
    Raises UsageError, after the rest was given up, for a configuration that cannot be measured as stated.
    """
    order, began_ns = order_of(profile, len(chosen), seed), now_ns()
    manifest = begin(
        MatrixManifest,
        profile,
        seed,
        planned=tuple((block, chosen[place].id) for block, place in order),
        configurations=tuple(_facts(profile, configuration) for configuration in chosen),
    )
    if before is not None:
        manifest = begin_again(before, directory).with_(schema=manifest.schema)
    tested = [Tested(configuration, directory / directory_of(configuration)) for configuration in chosen]
    matrix = Matrix(manifest, tested)
    write_manifest(directory, manifest, MATRIX)
    (directory / SWEEP).unlink(missing_ok=True)  # the older name of what has just been written
    try:
        await measure_in_turns([profile] * len(chosen), tested, order, seed, tell, say, stop)
    finally:
        matrix.manifest = end(manifest, tested, [outcome(test) for test in tested], began_ns)
        write_manifest(directory, matrix.manifest, MATRIX)
    return matrix


def _facts(profile: Profile, configuration: Configuration) -> ConfigurationFacts:
    """The facts of a configuration for the manifest, with the settings it takes over from the profile."""
    assert profile.agents is not None
    agents = profile.agents.configured(configuration)
    return ConfigurationFacts(
        id=configuration.id,
        phase=configuration.phase,
        directory=directory_of(configuration),
        scenario=agents.scenario,
        permits=agents.permits or len(agents.crew),
        think_ms=agents.think_ms,
        agents=tuple(AgentOptions(name=member.name, options=without_secrets(member.options)) for member in agents.crew),
    )

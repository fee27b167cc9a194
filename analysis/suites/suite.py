"""What a campaign within a directory of many says of itself, also where it was killed.

`CampaignRead` is the part of a campaign's summary that goes into the summary of many: attributes are the keys of the
summary's JSON, and keys that are not read here have no field.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
from msgspec import Struct

from analysis.estimate import Figure
from analysis.records.frame import NoRecordsError
from analysis.summary import SCHEMA, as_mapping, summarise
from loadgen.manifest import SUMMARY
from loadgen.suite_manifest import TestFacts

__all__ = ["LABEL", "AgentsRead", "CampaignRead", "RunRead", "campaign_in", "labelled_runs", "missing_in"]

LABEL = "speedup<1.5"  # SYSTEMS 1.5: the rule by which the guide calls a run contended


class RunRead(Struct, frozen=True, kw_only=True):
    """One run of agents. Mappings are by the agent's name."""

    run: int
    block: int | None
    concurrent: bool
    left_out: str | None
    makespan_s: float | None
    wall_s: dict[str, float]
    output_tokens: dict[str, float]
    overlap: float | None


class ServerRead(Struct, frozen=True, kw_only=True):
    """What a server said of an agent's calls."""

    output_tokens_per_eval_s: float | None


class ArmRead(Struct, frozen=True, kw_only=True):
    """An agent's runs in one arm."""

    runs: int
    calls: int
    server: ServerRead


class AgentRead(Struct, frozen=True, kw_only=True):
    """One agent among the others."""

    concurrent: ArmRead


class ArmRuns(Struct, frozen=True, kw_only=True):
    """The whole runs of either kind."""

    concurrent: int
    solo: int


class ContentionRead(Struct, frozen=True, kw_only=True):
    """Whether agents slowed each other down, and in how many runs each rule says so."""

    verdict: str
    rules_runs: dict[str, int | None]


class AgentsRead(Struct, frozen=True, kw_only=True):
    """The section on agents."""

    names: tuple[str, ...]
    runs: ArmRuns
    speedup: Figure
    efficiency: Figure
    stretch: Figure
    balance: Figure
    overlap_efficiency: Figure
    combined_over_solo: Figure
    fairness: Figure
    grades: dict[str, str | None]
    contention: ContentionRead
    per_agent: dict[str, AgentRead]
    per_run: tuple[RunRead, ...]


class MissingRead(Struct, frozen=True, kw_only=True):
    """A run that was planned and did not finish."""

    block: int
    arm: str


class CampaignRead(Struct, frozen=True, kw_only=True):
    """A campaign's summary, as far as it is read here."""

    schema: str
    verdict: str
    missing_runs: tuple[MissingRead, ...] | None = None
    agents: AgentsRead | None = None


def campaign_in(directory: Path) -> CampaignRead | None:
    """The summary in `directory`, or that of what a killed campaign left there; None where there is nothing.

    A summary of an older schema is made anew from the records. Raises OSError, or ValueError for files of other kinds.
    """
    path = directory / SUMMARY
    if path.is_file():
        plain = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(plain, dict) or plain.get("schema") == SCHEMA:
            return msgspec.convert(plain, CampaignRead)
    try:
        return msgspec.convert(as_mapping(summarise(directory)), CampaignRead)
    except NoRecordsError:
        return None


def missing_in(campaign: CampaignRead | None, ended: TestFacts | None) -> int | None:
    """The runs that a campaign lacks, by its summary or else by how it `ended`; None where neither says it."""
    if campaign is not None and campaign.missing_runs is not None:
        return len(campaign.missing_runs)
    return None if ended is None else ended.missing_runs


def labelled_runs(section: AgentsRead) -> int:
    """The concurrent runs that the guide's rule calls contended."""
    return section.contention.rules_runs.get(LABEL) or 0

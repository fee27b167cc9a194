"""The summary of one campaign in a directory of many, finished or killed."""

from __future__ import annotations

from pathlib import Path

from analysis.agents.section import AgentsSection
from analysis.records.frame import NoRecordsError
from analysis.summary import SCHEMA, Summary, schema_of, summarise
from loadgen.manifest import SUMMARY
from loadgen.suite_manifest import TestFacts

__all__ = ["LABEL", "agents_in", "campaign_in", "labelled_runs", "missing_in"]

LABEL = "speedup<1.5"  # docs/agents.md#rules-of-earlier-tools: the rule by which the guide calls a run contended


def campaign_in(directory: Path) -> Summary | None:
    """The summary in `directory`, or that of what a killed campaign left there; None where there is nothing.

    A summary of an older schema is made anew from the records. Raises OSError, or ValueError for files of other kinds.
    """
    path = directory / SUMMARY
    if path.is_file():
        text = path.read_bytes()
        if schema_of(text) == SCHEMA:
            return Summary.from_json(text)
    try:
        return summarise(directory)
    except NoRecordsError:
        return None


def agents_in(campaign: Summary | None) -> AgentsSection | None:
    """The section on agents of a campaign's summary; None where there is none."""
    return campaign.agents or None if campaign is not None else None


def missing_in(campaign: Summary | None, ended: TestFacts | None) -> int | None:
    """The runs that a campaign lacks, by its summary or else by how it `ended`; None where neither says it."""
    if campaign is not None and campaign.missing_runs is not None:
        return len(campaign.missing_runs)
    return None if ended is None else ended.missing_runs


def labelled_runs(section: AgentsSection) -> int:
    """The concurrent runs that the guide's rule calls contended."""
    return section.contention.rules_runs.get(LABEL) or 0

"""The files made from the records of a campaign at its end: summary, report, artifacts, checksums."""

from __future__ import annotations

from pathlib import Path

import analysis
from analysis.formats.multi_agent_guide import write_artifacts
from loadgen.campaign.rundir import seal, write_manifest
from loadgen.manifest import REPORT, SUMMARY, Manifest
from loadgen.store.whole import write_text

__all__ = ["write_reports"]


def write_reports(directory: Path, manifest: Manifest) -> analysis.Summary:
    """The summary of what is in `directory`, written there with the report and with everything's checksum.

    Raises OSError.
    """
    write_manifest(directory, manifest)
    reading = analysis.reading_of(directory)
    summary = analysis.summarise(reading)
    write_text(directory / SUMMARY, summary.to_json())
    write_text(directory / REPORT, analysis.html_report(reading, summary))
    agents = manifest.profile.agents if manifest.profile is not None else None
    if agents is not None and agents.artifacts:
        write_artifacts(directory, reading)
    seal(directory, manifest)
    return summary

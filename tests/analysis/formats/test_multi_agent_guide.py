"""The guide's files from campaigns that did not go as planned; what they hold otherwise is seen on real runs."""

import json

from analysis.formats.multi_agent_guide import write_artifacts
from loadgen.manifest import ARTIFACTS
from tests.analysis.agent_runs import campaign

AGENTS = [
    {"name": name, "endpoint": "a", "options": {}, "asked_options": {}, "calls": ["plan"], "files": []}
    for name in ("collector", "insight")
]


def test_a_campaign_that_died_in_its_first_run_has_its_files(tmp_path):
    path = campaign(tmp_path / "run", [], agents=AGENTS, wall_start="2025-01-01T00:00:00Z")
    write_artifacts(path)
    summary = json.loads((path / ARTIFACTS / "summary.json").read_text())
    assert summary["runs"] == []
    assert summary["aggregate"]["average_efficiency"] is None
    assert "- runs: 0\n- duration: 0 s" in (path / ARTIFACTS / "comparison_report.md").read_text()

"""One directory, several conditions: figures are those of one arm, and what is missing is named."""

import pytest

import analysis
from analysis.records import arms
from loadgen.manifest import Manifest
from tests.analysis.handmade import directory, plain, request, run, write

PLANNED = [[0, "solo"], [0, "both"], [1, "both"], [1, "solo"], [2, "solo"], [2, "both"]]
DESIGN = {"arms": [{"name": "solo"}, {"name": "both"}], "primary": "both", "blocks": 3, "planned": PLANNED}


def campaign(path, finished=6):
    """TTFT 100 ms alone, 150 ms together."""
    rows = [
        request(10 * i, [10 * i + (100 if arm == "solo" else 150)], run=number, seq=i + 1)
        for number, (_, arm) in enumerate(PLANNED[:finished])
        for i in range(40)
    ]
    runs = [run(number, block=block, arm=arm) for number, (block, arm) in enumerate(PLANNED[:finished])]
    return directory(path, rows, runs=runs, design=DESIGN)


def test_a_summary_is_of_the_primary_arm(tmp_path):
    summary = analysis.summarise(campaign(tmp_path))
    assert (summary.runs, summary.requests.completed) == (3, 120)
    assert [entry.run for entry in summary.per_run] == [1, 2, 5]
    assert summary.metrics.ttft_ms.mean.value == 150
    assert summary.missing_runs == ()


def test_another_arm_is_measured_by_its_runs(tmp_path):
    frame = analysis.load(campaign(tmp_path))
    runs = arms.runs_of(frame.manifest, frame.run_numbers(), "solo")
    assert runs == (0, 3, 4)
    assert analysis.summarise(analysis.measure(frame, runs=runs)).metrics.ttft_ms.mean.value == 100


def test_planned_runs_that_did_not_finish_are_listed(tmp_path):
    summary = analysis.summarise(campaign(tmp_path, finished=4))
    assert plain(summary.missing_runs) == [{"block": 2, "arm": "solo"}, {"block": 2, "arm": "both"}]
    assert summary.runs == 2


def test_a_killed_run_belongs_to_the_arm_that_was_planned_next(tmp_path):
    path = campaign(tmp_path, finished=2)
    more = [request(10 * i, [10 * i + 170], run=2, seq=i + 1) for i in range(10)]
    write(path / "journal" / "000-000000.parquet", more)
    (path / "records.parquet").unlink()
    assert [entry.run for entry in analysis.summarise(path).per_run] == [1, 2]


@pytest.mark.parametrize("manifest", [{}, {"design": {}}, {"runs": [{"run": 1}]}])
def test_without_a_design_every_run_counts_and_none_is_missing(manifest):
    manifest = Manifest.from_json(manifest)
    assert arms.runs_of(manifest, [0, 1]) == (0, 1)
    assert arms.missing_runs(manifest) == ()
    assert arms.arm_of(manifest, 0) is None

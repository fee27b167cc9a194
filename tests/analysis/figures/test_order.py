"""Late runs against early ones, the repeated control, and what a campaign says of its missing runs and of its looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import analysis
from analysis.figures import order
from analysis.figures.runs import OverRuns
from analysis.records import arms
from analysis.records.settings import stopping
from loadgen.manifest import Manifest
from tests.analysis.handmade import directory, plain, request

EARLY, LATE = [100.0, 104.0, 98.0], [112.0, 118.0, 113.0]


def side(ttft: Sequence[float | None]) -> dict[str, OverRuns]:
    rates = [10.0 + i % 2 for i in range(len(ttft))]
    values = {"ttft_ms": tuple(ttft), "output_tokens_per_s": tuple(rates)}
    return {name: OverRuns(values=of, median=None, outliers=(), components=None) for name, of in values.items()}


def test_the_ratio_is_that_of_geometric_means_with_welch_on_logs() -> None:
    checked = order.early_late(Manifest(), range(6), side([*EARLY, *LATE]))
    assert checked is not None
    assert (checked.early, checked.late) == ((0, 1, 2), (3, 4, 5))
    ratio = checked.ratio["ttft_ms"]
    test = stats.ttest_ind(np.log(LATE), np.log(EARLY), equal_var=False).confidence_interval()
    assert ratio.value == pytest.approx(math.exp(np.log(LATE).mean() - np.log(EARLY).mean()), rel=1e-9)
    assert (ratio.low, ratio.high) == pytest.approx((math.exp(test.low), math.exp(test.high)), rel=1e-9)
    assert checked.drifts == ("ttft_ms",)
    assert order.late_differ(checked)[0].sentence.startswith(
        "late runs differ from early ones: mean TTFT is 1.14 times as large"
    )


def test_a_change_below_five_percent_is_no_drift_however_certain() -> None:
    checked = order.early_late(Manifest(), range(6), side([100.0, 100.1, 99.9, 104.0, 104.1, 103.9]))
    assert checked is not None
    assert checked.ratio["ttft_ms"].low > 1
    assert checked.drifts == ()


def test_the_middle_of_an_odd_number_of_runs_belongs_to_neither_half() -> None:
    checked = order.early_late(Manifest(), range(7), side([*EARLY, 1e6, *LATE]))
    assert checked is not None
    assert (checked.early, checked.late) == ((0, 1, 2), (4, 5, 6))
    assert checked.drifts == ("ttft_ms",)


def test_few_runs_have_a_ratio_without_an_interval_and_one_run_has_none() -> None:
    checked = order.early_late(Manifest(), range(4), side([100.0, 102.0, 110.0, 112.0]))
    assert checked is not None
    ratio = checked.ratio["ttft_ms"]
    assert ratio.value == pytest.approx(math.sqrt(110 * 112 / (100 * 102)))
    assert (ratio.low, checked.drifts) == (None, ())
    assert order.early_late(Manifest(), [0], side([100.0])) is None


def test_a_run_without_a_value_refuses_that_ratio_only() -> None:
    checked = order.early_late(Manifest(), range(6), side([None, *EARLY[1:], *LATE]))
    assert checked is not None
    assert checked.ratio["ttft_ms"].value is None
    assert checked.ratio["output_tokens_per_s"].value is not None


def test_the_order_is_that_of_execution_which_a_resumed_campaign_lists() -> None:
    manifest = {"runs": [{"run": run} for run in (0, 2, 3, 1)]}
    checked = order.early_late(Manifest.from_json(manifest), [0, 1, 2, 3], side([100.0, 900.0, 100.0, 900.0]))
    assert checked is not None
    assert (checked.early, checked.late) == ((0, 2), (3, 1))
    assert checked.ratio["ttft_ms"].value == pytest.approx(9.0)


def rows(ttfts_ms: list[float]) -> list[dict[str, Any]]:
    """One request per run."""
    return [request(0, [ttft, ttft + 100, ttft + 200], output=3, run=run, seq=0) for run, ttft in enumerate(ttfts_ms)]


def entry(run: int, block: int, arm: str, **more: Any) -> dict[str, Any]:
    return {"run": run, "block": block, "arm": arm, "measured_from_ns": 0, "measured_to_ns": 10**9, **more}


def test_the_control_is_its_last_run_over_its_first_and_in_no_other_figure(tmp_path: Path) -> None:
    planned = ((-1, "control:a"), (0, "a"), (0, "b"), (1, "control:a"))
    design = {"arms": [{"name": "a"}, {"name": "b"}], "primary": "a", "control": "a", "planned": planned}
    runs = [entry(run, block, arm) for run, (block, arm) in enumerate(planned)]
    path = directory(tmp_path / "c", rows([100.0, 50.0, 70.0, 120.0]), runs=runs, design=design)
    summary = analysis.summarise(path)
    assert analysis.summarise(analysis.load(path)) == summary  # a Frame is of all arms, too
    assert summary.control.arm == "a"
    assert summary.control.ratio["ttft_ms"] == pytest.approx(1.2)
    assert summary.metrics.ttft_ms.mean.value == pytest.approx(50.0)
    assert "control a, end over start: mean TTFT 1.2" in " ".join(analysis.terminal_report(summary).split())


@pytest.mark.parametrize("how", ["interrupted", "no_progress"])
def test_a_control_whose_end_was_cut_short_is_not_told(tmp_path: Path, how: str) -> None:
    planned = ((-1, "control:a"), (0, "a"), (1, "control:a"))
    design = {"arms": [{"name": "a"}], "primary": "a", "control": "a", "planned": planned}
    runs = [entry(run, block, arm, **{how: run == 2}) for run, (block, arm) in enumerate(planned)]
    path = directory(tmp_path / "c", rows([100.0, 50.0, 120.0]), runs=runs, design=design)
    assert analysis.summarise(path).control is None


def test_a_control_whose_end_is_missing_is_not_told(tmp_path: Path) -> None:
    design = {"arms": [{"name": "a"}], "primary": "a", "control": "a", "planned": [[-1, "control:a"], [0, "a"]]}
    runs = [entry(0, -1, "control:a"), entry(1, 0, "a")]
    path = directory(tmp_path / "c", rows([100.0, 50.0]), runs=runs, design=design)
    assert analysis.summarise(path).control is None


def test_a_run_that_was_interrupted_or_fell_silent_is_missing() -> None:
    manifest = {
        "design": {"planned": [[0, "a"], [1, "a"], [2, "a"], [3, "a"]]},
        "runs": [entry(0, 0, "a"), entry(1, 1, "a", no_progress=True), entry(2, 2, "a", interrupted=True)],
    }
    assert [run.block for run in arms.missing_runs(Manifest.from_json(manifest))] == [1, 2, 3]


def test_a_campaign_that_decided_by_looks_reports_at_the_confidence_of_the_looks(tmp_path: Path) -> None:
    planned = [[block, "main"] for block in range(5)]
    design = {"arms": [{"name": "main"}], "primary": "main", "planned": planned, "until": 0.1}
    looks = [{"runs": 5, "half_width": {"ttft_ms": 0.08}, "reached": True}]
    runs = [entry(run, run, "main") for run in range(5)]
    values = [100.0, 110.0, 105.0, 95.0, 102.0]
    path = directory(tmp_path / "c", rows(values), runs=runs, design=design, looks=looks)
    summary = analysis.summarise(path)
    mean = summary.metrics.ttft_ms.mean
    logs = np.log(values)
    half = stats.t.ppf(0.985, 4) * logs.std(ddof=1) / math.sqrt(5)
    assert mean.confidence == 0.97
    assert (mean.low, mean.high) == pytest.approx(tuple(math.exp(logs.mean() + sign * half) for sign in (-1, 1)))
    assert plain(summary.stopping) == {"within": 0.1, **looks[0]}
    told = " ".join(analysis.terminal_report(summary).split())
    assert "stopped after 5 runs: mean TTFT ±8 % (97 %, wanted ±10 %)" in told


def test_before_the_first_look_nothing_has_stopped() -> None:
    until = Manifest.from_json({"design": {"until": 0.02}})
    assert plain(stopping(until)) == {"within": 0.02, "runs": 0, "half_width": {}, "reached": False}
    assert stopping(Manifest.from_json({"design": {"until": None}})) is None


def test_many_missing_runs_are_told_in_a_line(tmp_path: Path) -> None:
    arms_planned = ["a", "b", "c"]
    planned = [[-1, "control:a"], *([block, arm] for block in range(40) for arm in arms_planned), [40, "control:a"]]
    made = [0, 1, 2, 3, 4, 6, 13, 14]  # of block 1 there is no b; block 4 has all but c
    runs = [entry(run, *planned[run]) for run in made]
    design = {"arms": [{"name": arm} for arm in arms_planned], "primary": "a", "planned": planned, "control": "a"}
    path = directory(
        tmp_path / "c",
        [request(0, [100, 200, 300], output=3, run=run, seq=0) for run in made],
        runs=runs,
        design=design,
    )
    summary = analysis.summarise(path)
    assert len(summary.missing_runs) == 114
    told = "114 runs missing: b in blocks 1-3, 5-39; a in blocks 2-3, 5-39; c in blocks 2-39; control:a in block 40"
    assert told in " ".join(analysis.terminal_report(summary).split())
    assert "114 runs missing: b in blocks 1-3" in analysis.markdown_report(summary)

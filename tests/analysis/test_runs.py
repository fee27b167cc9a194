import pytest
from handmade import directory, request, run

import analysis


def test_a_run_that_stands_out_is_marked_and_kept(tmp_path):
    levels = (100, 102, 98, 101, 99, 150)
    rows = [
        request(10 * i, [10 * i + level + i % 3, 10 * i + level + 20], output=2, run=number, seq=i + 1)
        for number, level in enumerate(levels)
        for i in range(60)
    ]
    summary = analysis.summarise(directory(tmp_path, rows, runs=[run(number) for number in range(6)]))
    side = summary["over_runs"]["ttft_ms"]
    assert side["values"] == [pytest.approx(level + 1) for level in levels]
    assert side["outliers"] == [5]
    assert side["median"] == pytest.approx(101.5)
    assert [entry["outlier_in"] for entry in summary["per_run"]][:5] == [[]] * 5
    assert "ttft_ms" in summary["per_run"][5]["outlier_in"]
    assert summary["metrics"]["ttft_ms"]["mean"]["n"] == 360  # none was left out
    assert summary["metrics"]["ttft_ms"]["mean"]["value"] > 107
    assert side["components"]["run"] > 10 * side["components"]["request"]
    assert side["components"]["advice"].startswith("Add runs: 100% of the doubt")

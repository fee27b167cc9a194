import pytest
from msgspec.structs import replace

import analysis
from tests.analysis.handmade import directory, plain, request, run


def test_a_run_that_stands_out_is_marked_and_kept(tmp_path):
    levels = (100, 102, 98, 101, 99, 150)
    rows = [
        request(10 * i, [10 * i + level + i % 3, 10 * i + level + 20], output=2, run=number, seq=i + 1)
        for number, level in enumerate(levels)
        for i in range(60)
    ]
    summary = analysis.summarise(directory(tmp_path, rows, runs=[run(number) for number in range(6)]))
    side = summary.over_runs["ttft_ms"]
    assert list(side.values) == [pytest.approx(level + 1) for level in levels]
    assert side.outliers == (5,)
    assert side.median == pytest.approx(101.5)
    assert [entry.outlier_in for entry in summary.per_run][:5] == [()] * 5
    assert "ttft_ms" in summary.per_run[5].outlier_in
    assert summary.metrics.ttft_ms.mean.n == 360  # none was left out
    assert summary.metrics.ttft_ms.mean.value > 107
    assert side.components.run > 10 * side.components.request
    assert side.components.advice.startswith("Add runs: 100% of the doubt")


LEVELS_MS = (100, 102, 98, 101)
CUT_SHORT = {
    "interrupted": run(4, measured=(0, 300), interrupted=True),
    "no progress": run(4, measured=(0, 300), no_progress=True),
    "not finished": None,  # killed: its records are there, its entry is not
}


def answers(number, level, n):
    """Answers of two endpoints, of forty tokens, whose last two share a read."""
    after = [*range(39), 38]
    return [
        request(
            10 * i,
            [10 * i + level + i % 3 + at for at in after],
            reads=after,
            output=40,
            run=number,
            seq=i + 1,
            endpoint="ab"[i % 2],
        )
        for i in range(n)
    ]


def whole_runs():
    return [row for number, level in enumerate(LEVELS_MS) for row in answers(number, level, 60)]


@pytest.mark.parametrize("why", CUT_SHORT)
def test_a_run_that_was_cut_short_is_listed_and_in_no_estimate(tmp_path, why):
    """Its 30 answers, five times as slow, made a mean TTFT of 101 ms one of 139 ms (57..339)."""
    entries = [run(number) for number in range(4)]
    given = {
        "objectives": {"ttft_p99_ms": 150, "ttft_mean_ms": 120, "event_gap_p99_ms": 30, "output_tokens_per_s_min": 1}
    }
    alone = analysis.summarise(directory(tmp_path / "alone", whole_runs(), runs=entries, **given))
    rows = [*whole_runs(), *answers(4, 500, 30)]
    entries += [CUT_SHORT[why]] if CUT_SHORT[why] else []
    both = analysis.summarise(path := directory(tmp_path / "both", rows, runs=entries, **given))

    for section in ("metrics", "objectives", "goodput", "early_late"):
        assert getattr(both, section) == getattr(alone, section), section
    for name, side in both.over_runs.items():
        kept = alone.over_runs[name]
        assert side == replace(kept, values=(*kept.values, side.values[4])), name
    for name, figures in both.endpoints.items():
        assert figures.ttft_ms == alone.endpoints[name].ttft_ms
        assert figures.event_gap_ms == alone.endpoints[name].event_gap_ms

    assert plain(both.left_out) == [{"run": 4, "why": why}]
    assert f"run 4: {why}: listed, and left out of every estimate over runs" in both.notes
    assert (both.runs, both.requests.completed) == (5, 270)
    last = both.per_run[4]
    assert (last.cut_short, last.completed, last.succeeded) == (why, 30, 30)
    assert last.ttft_mean_ms == both.over_runs["ttft_ms"].values[4] == pytest.approx(501)
    for text in (analysis.terminal_report(both), analysis.markdown_report(both), analysis.html_report(path)):
        assert why in text.split("median")[0]
    assert "Crosses did not come to their end, and are in no estimate." in analysis.html_report(path)


def test_a_run_that_is_the_only_one_keeps_what_it_can_say_though_it_was_cut_short(tmp_path):
    rows = answers(0, 100, 400)
    told = [
        analysis.summarise(directory(tmp_path / str(cut), rows, runs=[run(interrupted=cut)])) for cut in (False, True)
    ]
    assert told[1].metrics == told[0].metrics
    assert told[1].metrics.ttft_ms.p50.notes == ("within-run",)
    assert told[1].left_out == told[0].left_out == ()
    assert not any("left out" in note for note in told[1].notes)

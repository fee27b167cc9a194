import pytest

import analysis
from analysis.figures.objectives import by_count, terms_of
from tests.analysis.handmade import directory, request, run


def decided(tmp_path, rows, objectives, **options):
    summary = analysis.summarise(directory(tmp_path, rows, objectives=objectives, **options))
    return {entry.name: entry.verdict for entry in summary.objectives}, summary


def answered(n, ttft=100.0, tpot=10.0, start=0):
    return [request(10 * i, [10 * i + ttft, 10 * i + ttft + tpot], output=2) for i in range(start, start + n)]


def test_goodput_and_attainment(tmp_path):
    rows = [
        request(1000 * i, [1000 * i + ttft, 1000 * i + ttft + 10 * tpot], output=11)
        for i, (ttft, tpot) in enumerate([(300, 30), (500, 50), (900, 20), (400, 20)])
    ]
    objectives = {"ttft_p99_ms": 500, "tpot_p99_ms": 40}
    _, summary = decided(tmp_path, rows, objectives, runs=[run(measured=(0, 10_000))])
    assert summary.metrics.goodput_per_s.value == 0.2  # K39
    assert summary.goodput.attainment.value == 0.5
    assert summary.goodput.terms == {"ttft_ms": 500, "tpot_ms": 40}


def test_failures_count_as_misses_in_attainment(tmp_path):
    rows = [*answered(30), *(request(500, outcome="stalled", done=900) for _ in range(10))]
    _, summary = decided(tmp_path, rows, {"ttft_p90_ms": 200})
    assert summary.goodput.attainment.value == 0.75


def test_goodput_asks_for_the_limit_of_the_highest_percentile():
    objectives = {"ttft_p50_ms": 100, "ttft_p99_ms": 500, "e2e_mean_ms": 900, "event_gap_p99_ms": 50, "error_rate": 0.1}
    assert terms_of(objectives) == {"ttft_ms": 500}


def test_goodput_is_refused_without_terms_or_token_counts(tmp_path):
    rows = answered(30)
    _, summary = decided(tmp_path, rows, {"error_rate": 0.5})
    assert summary.metrics.goodput_per_s.value is None
    assert summary.goodput is None
    unknown = [row | {"output_tokens": None, "tokens_from": None} for row in rows]
    assert decided(tmp_path, unknown, {"tpot_p99_ms": 40})[1].goodput is None


def test_a_p99_is_held_from_299_requests_on_with_none_over():
    assert by_count(0, 299, 0.01) == "held"
    assert by_count(0, 298, 0.01) == "inconclusive"
    assert by_count(1, 473, 0.01) == "held"
    assert by_count(1, 472, 0.01) == "inconclusive"
    assert by_count(2, 20, 0.01) == "failed"
    assert by_count(0, 0, 0.01) == "inconclusive"


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (answered(299), "held"),
        (answered(100), "inconclusive"),
        ([answered(1, ttft=100 if i % 15 else 700, start=i)[0] for i in range(300)], "failed"),
    ],
)
def test_percentile_objectives(tmp_path, rows, verdict):
    verdicts, summary = decided(tmp_path, rows, {"ttft_p99_ms": 500})
    assert verdicts == {"ttft_p99_ms": verdict}
    told = "100 requests cannot decide it: ask for more, or for --runs 5"
    assert summary.objectives[0].reason == (told if verdict == "inconclusive" else None)
    assert summary.objectives[0].limit == 500
    assert summary.objectives[0].value == summary.metrics.ttft_ms.p99


def test_a_failed_request_is_over_every_limit(tmp_path):
    failed = [request(10 * i, outcome="reset") for i in range(20)]
    assert decided(tmp_path, answered(400) + failed, {"ttft_p99_ms": 500})[0] == {"ttft_p99_ms": "failed"}


def test_a_request_we_cancelled_is_over_only_the_limits_it_had_outlasted(tmp_path):
    short = [request(10 * i, outcome="cancelled", done=10 * i + 300) for i in range(20)]
    long = [request(10 * i, outcome="cancelled", done=10 * i + 9000) for i in range(20)]
    assert decided(tmp_path, answered(400) + short, {"ttft_p99_ms": 500})[0] == {"ttft_p99_ms": "held"}
    assert decided(tmp_path, answered(400) + long, {"ttft_p99_ms": 500})[0] == {"ttft_p99_ms": "failed"}


AIMS = {
    "ttft_mean_ms": 110,
    "e2e_mean_ms": 118,
    "requests_per_s_min": 90,
    "output_tokens_per_s_min": 500,
    "itl_p50_ms": 25,
    "event_gap_p999_ms": 12,
    "ttft_p99_ms": 120,
    "ttft_p50_ms": 102,
    "error_rate": 0.01,
}


def over_runs(number, n=400):
    """Runs that differ by a millisecond or two."""
    rows = [
        request(10 * i, [10 * i + 100 + run_ + i % 7, 10 * i + 120 + run_], output=2, run=run_, seq=i + 1)
        for run_ in range(number)
        for i in range(n)
    ]
    return rows, {"runs": [run(run_, measured=(200, 3990)) for run_ in range(number)]}


def test_with_several_runs_every_figure_is_decided_by_how_they_differ(tmp_path):
    rows, options = over_runs(5)
    verdicts, summary = decided(tmp_path, rows, AIMS, **options)
    assert verdicts == {
        "ttft_mean_ms": "held",  # 105 +- 2
        "e2e_mean_ms": "failed",  # 122 +- 2
        "requests_per_s_min": "held",
        "output_tokens_per_s_min": "failed",
        "itl_p50_ms": "held",
        "event_gap_p999_ms": "failed",
        "ttft_p99_ms": "held",
        "ttft_p50_ms": "failed",
        "error_rate": "held",
    }
    assert {objective.basis for objective in summary.objectives} == {"runs"}


def test_one_run_decides_percentiles_of_requests_for_itself_and_no_means(tmp_path):
    rows, options = over_runs(1)
    verdicts, summary = decided(tmp_path, rows, AIMS, **options)
    assert {name for name, verdict in verdicts.items() if verdict == "inconclusive"} == {
        *("ttft_mean_ms", "e2e_mean_ms", "requests_per_s_min", "output_tokens_per_s_min"),
        *("itl_p50_ms", "event_gap_p999_ms"),
    }
    basis = {objective.name: objective.basis for objective in summary.objectives}
    assert (basis["ttft_p99_ms"], basis["error_rate"]) == ("within-run", "within-run")
    assert {objective.reason for objective in summary.objectives if objective.verdict == "inconclusive"} == {
        "no interval from 1 run: ask for --runs 5"
    }
    means = next(objective for objective in summary.objectives if objective.name == "ttft_mean_ms")
    assert means.value.notes == ("no interval from 1 run: ask for --runs 5",)


def test_runs_that_disagree_decide_nothing_however_many_requests_they_hold(tmp_path):
    slow = [
        request(10 * i, [10 * i + ttft, 10 * i + ttft + 20], output=2, run=run_, seq=i + 1)
        for run_, ttft in enumerate((100, 140, 180, 120, 160))
        for i in range(400)
    ]
    runs = [run(number) for number in range(5)]
    verdicts, summary = decided(tmp_path, slow, {"ttft_p50_ms": 155}, runs=runs)
    assert verdicts == {"ttft_p50_ms": "inconclusive"}
    assert summary.objectives[0].reason == "the limit lies within the doubt: ask for more runs"


def test_an_unstable_campaign_holds_nothing_and_says_why(tmp_path):
    rows = [request(100 * i, [100 * i + 100 + i / 5, 100 * i + 150 + i / 5], output=2) for i in range(400)]
    aims = {"ttft_p50_ms": 500, "ttft_p90_ms": 120}
    verdicts, summary = decided(tmp_path, rows, aims, runs=[run(measured=(0, 39_900))])
    assert summary.verdict == "unstable"
    assert verdicts == {"ttft_p50_ms": "inconclusive", "ttft_p90_ms": "failed"}
    assert summary.objectives[0].reason == "unstable, see the verdict"


def test_failures_of_one_run_in_five_make_its_percentile_endless(tmp_path):
    rows, options = over_runs(5)
    spoilt = [row | {"outcome": "reset"} if row["run"] == 2 and row["seq"] % 3 == 0 else row for row in rows]
    verdicts, _ = decided(tmp_path, spoilt, {"ttft_p90_ms": 500, "ttft_p50_ms": 500, "error_rate": 0.5}, **options)
    assert verdicts == {"ttft_p90_ms": "inconclusive", "ttft_p50_ms": "held", "error_rate": "held"}


@pytest.mark.parametrize(("failures", "verdict"), [(0, "held"), (1, "failed")])
def test_an_error_rate_of_zero_means_none(tmp_path, failures, verdict):
    rows = answered(20) + [request(0, outcome="reset")] * failures
    assert decided(tmp_path, rows, {"error_rate": 0})[0] == {"error_rate": verdict}


def test_a_run_that_we_spoilt_decides_nothing(tmp_path):
    rows = [row | {"sent_ns": row["sent_ns"] + 50_000_000} for row in answered(400)]
    options = {"load": {"arrivals": "poisson", "rate_per_s": 100}, "runs": [run(open_loop=True)]}
    verdicts, summary = decided(tmp_path, rows, {"ttft_p99_ms": 500, "ttft_p50_ms": 1}, **options)
    assert summary.verdict == "generator-limited"
    assert set(verdicts.values()) == {"inconclusive"}


def test_nothing_measured_fails_no_mean_but_every_percentile_that_failures_decide(tmp_path):
    rows = [request(0, outcome="refused") for _ in range(10)]
    verdicts, summary = decided(tmp_path, rows, {"ttft_p99_ms": 500, "ttft_mean_ms": 100, "error_rate": 0.1})
    assert summary.verdict == "failed"
    assert verdicts == {"ttft_p99_ms": "failed", "ttft_mean_ms": "inconclusive", "error_rate": "failed"}

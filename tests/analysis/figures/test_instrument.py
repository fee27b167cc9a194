"""The verdict: when it was us, when the server could not keep up, when nothing can be said."""

import numpy as np
import pytest

import analysis
from tests.analysis.handmade import directory, plain, request, run

OPEN = {"arrivals": "poisson", "rate_per_s": 100}


def judged(tmp_path, rows, **options):
    summary = analysis.summarise(directory(tmp_path, rows, **options))
    return summary.verdict, list(summary.verdict_reasons), summary


def steady(n=200, sent_after=0.0, ttft=50.0, **others):
    return [request(10 * i, [10 * i + ttft, 10 * i + ttft + 20], sent=10 * i + sent_after, **others) for i in range(n)]


def test_a_healthy_run_is_ok_without_reasons(tmp_path):
    verdict, reasons, _ = judged(tmp_path, steady(), load=OPEN, runs=[run(open_loop=True, offered=200)])
    assert (verdict, reasons) == ("ok", [])


def test_no_answer_at_all_is_failed(tmp_path):
    rows = steady(outcome="refused", error="nobody listens")
    verdict, reasons, summary = judged(tmp_path, rows)
    assert (verdict, reasons) == ("failed", ["no request completed"])
    assert summary.requests.failed == {"refused": 200}
    assert plain(summary.errors) == [{"outcome": "refused", "status": None, "error": "nobody listens", "n": 200}]
    assert summary.metrics.ttft_ms.p50.value is None


def test_answers_outside_the_window_only_are_failed_too(tmp_path):
    verdict, reasons, _ = judged(tmp_path, steady(), runs=[run(measured=(5_000, 6_000))])
    assert (verdict, reasons) == ("failed", ["no request that was due in the measured window completed"])


@pytest.mark.parametrize(("slip", "verdict"), [(4.9, "ok"), (6.0, "generator-limited")])
def test_late_sends_are_ours(tmp_path, slip, verdict):
    # TTFT from sent is about 50 ms: a tenth of it is allowed.
    rows = steady(sent_after=slip, ttft=50 + slip)
    got, reasons, summary = judged(tmp_path, rows, load=OPEN, runs=[run(open_loop=True)])
    assert got == verdict
    if got != "ok":
        assert reasons == ["requests were sent late: p99 of the slip 6 ms, allowed 5 ms"]
        p50 = summary.metrics.ttft_ms.p50
        assert (p50.value, p50.low, p50.notes[0]) == (None, None, "no percentile: generator-limited")
        assert summary.metrics.ttft_ms.mean.value is not None


def test_a_slip_of_a_millisecond_is_always_allowed(tmp_path):
    assert judged(tmp_path, steady(sent_after=0.9, ttft=2), load=OPEN, runs=[run(open_loop=True)])[0] == "ok"


def test_scheduled_requests_that_were_not_sent_are_ours_unless_somebody_interrupted(tmp_path):
    for interrupted, verdict in ((False, "generator-limited"), (True, "ok")):
        entry = run(open_loop=True, offered=210, interrupted=interrupted)
        got, reasons, _ = judged(tmp_path, steady(), load=OPEN, runs=[entry])
        assert got == verdict
        assert reasons == (["10 of 210 scheduled requests were not sent"] if got != "ok" else [])
    rows = steady()[:-5] + [request(1990, outcome="not_sent", sent_ns=None) for _ in range(5)]
    assert judged(tmp_path, rows, load=OPEN, runs=[run(open_loop=True, offered=200)])[0] == "generator-limited"


def test_a_closed_loop_must_reach_its_concurrency(tmp_path):
    rows = [request(0, [100]), request(0, [120]), request(100, [200]), request(120, [200])]
    load = {"arrivals": "closed", "concurrency": 3}
    verdict, reasons, _ = judged(tmp_path, rows, load=load, runs=[run(offered=4)])
    assert (verdict, reasons) == ("generator-limited", ["concurrency reached 2 of 3 asked for"])
    told = run(offered=4, concurrency_asked=3, concurrency_reached=3)
    assert judged(tmp_path, rows, load=load, runs=[told])[0] == "ok"
    few = {"arrivals": "closed", "concurrency": 50}
    entry = run(offered=2)
    assert judged(tmp_path, rows[:2], load=few, runs=[entry])[0] == "ok"  # more than there are requests


@pytest.mark.parametrize(
    ("streams", "tokens_per_s", "told"),
    [
        (2, 250, None),  # 4 at once and 500 events/s: just twice as much
        (1, 250, "concurrency 1 and 250 token events/s, here were up to 4 and 500"),
        (2, 240, "concurrency 2 and 240 token events/s, here were up to 4 and 500"),
        (100, 5000, None),
    ],
)
def test_a_calibration_at_a_far_lower_load_is_told(tmp_path, streams, tokens_per_s, told):
    # Four at a time, of 10 tokens each, every 80 ms: 400 tokens in 0.8 s.
    rows = [request(at, [at + 2 * i for i in range(1, 11)]) for at in range(0, 800, 80) for _ in range(4)]
    calibration = {"streams": streams, "tokens_per_s": tokens_per_s, "ttft_bias_us": 1, "ttft_halfwidth_us": 2}
    window = run(measured=(0, 800))
    _, reasons, summary = judged(tmp_path, rows, runs=[window], instrument={"calibration": calibration})
    notes = [note for note in summary.notes if "calibrated" in note]
    assert [told in note for note in notes] == ([True] if told else [])
    assert not any("calibrated" in reason for reason in reasons)  # the stamps may still be as good


def test_the_kernel_tier_is_judged_by_what_shares_a_read_and_not_by_lag(tmp_path):
    busy = {"loop_lag_ms": {"p50": 5, "p99": 50, "max": 100}, "cpu_share": 0.99}
    assert judged(tmp_path, steady(), instrument=busy)[0] == "ok"
    shared = [request(10 * i, [10 * i + 50] * 2 + [10 * i + 70], reads=[0, 0, 1]) for i in range(20)]
    verdict, reasons, _ = judged(tmp_path, shared)
    assert verdict == "generator-limited"
    assert reasons == ["33.3% of token events share a read with a later one, allowed 5%"]


def test_the_callback_tier_is_judged_by_lag_and_cpu(tmp_path):
    busy = {"loop_lag_ms": {"p50": 5, "p99": 5.1, "max": 100}, "cpu_share": 0.81}
    verdict, reasons, _ = judged(tmp_path, steady(), tier="callback", instrument=busy)
    assert verdict == "generator-limited"
    assert reasons == [
        "event loop lag p99 5.1 ms, over a quarter of the median event gap 20 ms",
        "the client used 81% of a core, allowed 80%",
    ]
    calm = {"loop_lag_ms": {"p50": 1, "p99": 4.9, "max": 100}, "cpu_share": 0.79}
    assert judged(tmp_path, steady(), tier="callback", instrument=calm)[0] == "ok"


def queue_of_one(arrivals, service):
    """FIFO, one server, times in ms."""
    free, rows = 0.0, []
    for due in arrivals:
        free = max(free, due) + service
        rows.append(request(due, [free]))
    return rows


def test_an_open_loop_faster_than_the_server_is_unstable_and_prints_no_percentile(tmp_path):
    arrivals = np.cumsum(np.random.default_rng(1).exponential(10, 1000))
    entry = run(open_loop=True, measured=(0, float(arrivals[-1])))
    verdict, reasons, summary = judged(tmp_path, queue_of_one(arrivals, 12), load=OPEN, runs=[entry])
    assert verdict == "unstable"
    assert "of the arrivals," in reasons[0]
    assert summary.metrics.e2e_ms.p99.notes[0] == "no percentile: unstable"
    assert (summary.per_run[0].ttft_p50_ms, summary.per_run[0].ttft_p99_ms) == (None, None)
    assert summary.per_run[0].ttft_mean_ms > 0
    assert summary.metrics.requests_per_s.value == pytest.approx(1000 / 12, rel=0.02)
    assert judged(tmp_path, queue_of_one(arrivals, 7), load=OPEN, runs=[entry])[0] == "ok"


def test_a_burst_is_not_unstable(tmp_path):
    rows = queue_of_one([0.0] * 300, 5)
    load = {"arrivals": "burst", "requests": 300}
    for end in (0, 1000):
        assert judged(tmp_path, rows, load=load, runs=[run(open_loop=True, measured=(0, end))])[0] == "ok"


def test_reasons_name_their_run_when_there_are_several(tmp_path):
    rows = [
        {**row, "run": number, "seq": i + 1}
        for number, slip in ((0, 0.0), (1, 20.0))
        for i, row in enumerate(steady(50, sent_after=slip, ttft=70))
    ]
    runs = [run(0, open_loop=True), run(1, open_loop=True)]
    verdict, reasons, _ = judged(tmp_path, rows, load=OPEN, runs=runs)
    assert verdict == "generator-limited"
    assert len(reasons) == 1
    assert reasons[0].startswith("run 1: requests were sent late")


@pytest.mark.parametrize(("jump_us", "verdict"), [(49.0, "ok"), (51.0, "generator-limited")])
def test_a_step_of_the_wall_clock_voids_kernel_stamps(tmp_path, jump_us, verdict):
    instrument = {"tier": "kernel", "clock_jump_us": jump_us}
    got, reasons, _ = judged(tmp_path, steady(), load=OPEN, runs=[run(open_loop=True)], instrument=instrument)
    assert got == verdict
    assert [reason for reason in reasons if "wall clock" in reason] == reasons

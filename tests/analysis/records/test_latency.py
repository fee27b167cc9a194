"""What each duration is, on records small enough to be worked by hand."""

import numpy as np
import pytest

import analysis
from analysis.records import latency
from analysis.records.distribution import middle_of
from loadgen.record import Kind
from tests.analysis.handmade import CONTENT, directory, plain, request, run


def measured(tmp_path, rows, **options):
    return analysis.measure(analysis.load(directory(tmp_path, rows, **options)))


def ms(values):
    return [None if np.isnan(value) else value / 1e6 for value in values]


def test_ttft_has_two_starts(tmp_path):
    m = measured(tmp_path, [request(100, [150, 170], sent=130)])
    assert ms(latency.ttft(m)) == [50]
    assert ms(latency.ttft_service(m)) == [20]
    assert ms(latency.queue(m)) == [30]
    assert ms(latency.e2e(m)) == [70]


def test_only_events_that_bear_tokens_count(tmp_path):
    kinds = [Kind.ROLE, Kind.EMPTY, Kind.REASONING, Kind.CONTENT, Kind.TOOL, Kind.EMPTY, Kind.USAGE]
    m = measured(tmp_path, [request(0, [1, 2, 10, 30, 70, 80, 90], kinds=kinds)])
    assert ms(latency.ttft(m)) == [10]
    assert ms(latency.e2e(m)) == [70]
    assert m.gaps.stamped.values().tolist() == [20_000_000, 40_000_000]


def test_tpot_counts_the_tokens_that_came_with_the_first_event(tmp_path):
    rows = [
        request(0, [100, 140, 180], counts=[1, 4, 4], output=9),
        request(0, [100, 140, 180], counts=[4, 4, 1], output=9),
    ]
    m = measured(tmp_path, rows)  # K32
    assert ms(latency.ttft(m)) == [100, 100]
    assert ms(latency.tpot(m)) == [10, 16]
    assert ms(latency.tpot_usual(m)) == [10, 10]
    assert m.gaps.stamped.values().tolist() == [40_000_000] * 4


def test_several_tokens_an_event_refuse_token_itl_and_print_both_tpots(tmp_path):
    row = request(0, [100, 140, 180], counts=[4, 4, 1], output=9)
    summary = analysis.summarise(directory(tmp_path, [row]))
    assert summary.metrics.itl_ms is None
    assert any("itl" in note for note in summary.notes)
    tpot = summary.metrics.tpot_ms.mean
    assert tpot.value == 16
    assert "with k_1 = 1, as usual elsewhere: 10" in tpot.notes
    assert summary.tokens_per_event.mean == 3


@pytest.mark.parametrize("output", [None, 1])
def test_tpot_needs_more_tokens_than_the_first_event_had(tmp_path, output):
    m = measured(tmp_path, [request(0, [100, 140], output=output)])
    assert ms(latency.tpot(m)) == [None]


def test_a_count_made_of_events_is_not_a_token_count(tmp_path):
    rows = [request(0, [100, 140, 180], output=3, tokens_from="events") for _ in range(30)]
    metrics = analysis.summarise(directory(tmp_path, rows)).metrics
    assert metrics.tpot_ms.mean.value is None
    assert metrics.tpot_ms.mean.notes[0] == "no data"
    assert metrics.output_tokens_per_s.value is None
    assert metrics.output_tokens_per_s.low == pytest.approx(90 / 1000)  # a lower bound, over the 1000 s window
    assert metrics.total_tokens_per_s.value is None


def test_an_answer_in_one_event_has_no_tpot_and_no_gap(tmp_path):
    m = measured(tmp_path, [request(0, [100], output=50)])
    assert ms(latency.tpot(m)) == [None]
    assert m.gaps.stamped.n == 0


def test_events_of_different_requests_make_no_gap(tmp_path):
    m = measured(tmp_path, [request(0, [10, 20]), request(5, [25]), request(6, []), request(7, [50, 90])])
    assert m.gaps.stamped.values().tolist() == [10_000_000, 40_000_000]


def test_an_event_followed_by_another_in_its_read_is_censored(tmp_path):
    row = request(0, [100, 100, 130, 160, 160, 160], reads=[0, 0, 1, 2, 2, 2])
    m = measured(tmp_path, [row])
    assert m.tokens.censored.tolist() == [3]
    assert analysis.summarise(m).instrument.censored_share == 0.5


def test_an_event_that_bears_no_token_censors_nothing(tmp_path):
    row = request(0, [100, 130, 130], reads=[0, 1, 1], kinds=[CONTENT, CONTENT, Kind.USAGE])
    assert measured(tmp_path, [row]).tokens.censored.tolist() == [0]


def test_gaps_of_shared_reads_are_known_stamped_and_spread(tmp_path):
    # Gaps as stamped 0, 30, 30, 0, 0; the last read spread evenly: 0, 30, 10, 10, 10. The first read stays as it is.
    row = request(0, [100, 100, 130, 160, 160, 160], reads=[0, 0, 1, 2, 2, 2])
    other = request(0, [50, 80, 80], reads=[0, 1, 1])  # 30, 0 -> 15, 15
    m = measured(tmp_path, [row, other])
    assert sorted(m.gaps.stamped.values().tolist()) == [0, 0, 0, 0, 30_000_000, 30_000_000, 30_000_000]
    bins, counts = m.gaps.spread()
    assert [middle_of(index) / 1e6 for index in bins] == pytest.approx([0, 10, 15, 30], rel=0.0005)
    assert counts == [1, 3, 2, 1]
    assert sum(counts) == m.gaps.stamped.n


def test_the_first_token_of_a_shared_read_may_have_come_any_time_since_the_read_before(tmp_path):
    kinds = [Kind.ROLE, CONTENT, CONTENT]
    rows = [
        request(0, [100, 100], sent=1, reads=[0, 0], headers_ns=40_000_000),
        request(0, [100, 100], sent=1, reads=[0, 0], headers_ns=100_000_000),  # the head says nothing
        request(0, [60, 100, 100], sent=1, reads=[0, 1, 1], kinds=kinds),
        request(0, [100, 100], sent=1, headers_ns=40_000_000),  # two reads with one stamp: not censored
    ]
    m = measured(tmp_path, rows)
    assert ms((m.tokens.first_least_ns - m.requests.intended_ns).astype(float)) == [40, 1, 60, 100]
    assert ms(latency.ttft(m)) == [100] * 4


def test_percentiles_that_shared_reads_could_move_are_printed_as_a_pair(tmp_path):
    rows = [request(i, [i + 100, i + 100, i + 130, i + 160], sent=i + 1, reads=[0, 0, 1, 2]) for i in range(40)]
    metrics = analysis.summarise(directory(tmp_path, rows, tier="callback")).metrics
    assert "first tokens share a read: between 1 and 100" in metrics.ttft_ms.p50.notes
    rows = [request(i, [i + 100, i + 130, i + 130], reads=[0, 1, 1]) for i in range(40)]
    metrics = analysis.summarise(directory(tmp_path, rows, tier="callback")).metrics
    notes = metrics.event_gap_ms.p90.notes
    assert any(note.startswith("by when in a read they came: between 15 and 30") for note in notes)
    assert "33.3% of events share a read with a later one" in notes


def test_send_lag_leaves_out_connecting_and_waiting_for_a_slot(tmp_path):
    rows = [
        request(0, [50], sent=0.5),
        request(10, [60], sent=50.2, done=100),  # one in flight allowed: waited for the first
        request(200, [250], sent=230, connect_ns=200_300_000),
        request(400, [450], sent=440, stale_connections=1),
    ]
    load = {"arrivals": "poisson", "rate_per_s": 10, "max_in_flight": 1}
    m = measured(tmp_path, rows, load=load, runs=[run(open_loop=True)])
    assert ms(latency.send_lag(m)) == [0.5, None, pytest.approx(0.3), None]
    assert ms(latency.queue(m)) == [pytest.approx(x) for x in (0.5, 40.2, 30, 40)]


def test_itl_is_told_when_one_token_an_event_is_certain(tmp_path):
    told = [request(0, [10, 20, 30], counts=[1, 1, 1]) for _ in range(5)]
    assert analysis.summarise(directory(tmp_path, told)).metrics.itl_ms is not None
    deduced = [request(0, list(range(100)), output=102) for _ in range(5)]  # at most 2 of 100 events carry more
    summary = analysis.summarise(directory(tmp_path, deduced))
    assert summary.metrics.itl_ms is not None
    assert plain(summary.tokens_per_event) == {"mean": 1.02, "one_token_share": 0.98, "deduced": True}
    unknown = [request(0, list(range(100)), output=106) for _ in range(5)]
    assert analysis.summarise(directory(tmp_path, unknown)).metrics.itl_ms is None


@pytest.mark.parametrize(("shared", "refused"), [(1, False), (2, True)])
def test_itl_is_refused_when_over_one_percent_is_censored(tmp_path, shared, refused):
    reads = [0] * (shared + 1) + list(range(1, 100 - shared))
    summary = analysis.summarise(directory(tmp_path, [request(0, range(100), counts=[1] * 100, reads=reads)]))
    assert summary.instrument.censored_share == shared / 100
    assert (summary.metrics.itl_ms is None) == refused

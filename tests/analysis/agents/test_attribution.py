"""What a slow call is put down to: by its record, by what was sampled beside it, by what else was going on.

Five blocks of two agents, each with eight calls a second apart; alone the first token takes 100 ms and gaps are 10 ms.
In the concurrent runs insight has a request out all the while and is not slowed down, but collector is.
"""

from __future__ import annotations

import json

import msgspec
import pytest

from analysis.agents.contention_section import BySamples
from analysis.agents.section import agents_section
from analysis.records.frame import load
from analysis.report.agents import agents_sections
from analysis.report.document import Document
from analysis.report.text import as_text
from tests.analysis.agent_runs import Call, campaign
from tests.analysis.sampled import rows, write

WOBBLE = (1.0, 1.01, 0.99, 1.005, 0.995)
CALLS = 8
CONCURRENT = (2, 5, 8, 11, 14)
SOLO = tuple(run for run in range(15) if run not in CONCURRENT)
EVERY = [t / 4 for t in range(-4, 45)]  # four looks a second, from a second before the zero


def quick(factor, **others):
    return [Call((turn + 1) * 1000, 100 * factor, 10 * factor, 41, others=others) for turn in range(CALLS)]


def late(factor, ttft=300.0, gap=10.0, **others):
    return [Call((turn + 1) * 1000, ttft * factor, gap * factor, 41, others=others) for turn in range(CALLS)]


def findings(tmp_path, slow, sampled=(), solo=None, what="ttft", **manifest):
    """(the findings on collector, the whole section). sampled: samples; slow: collector's calls of a block."""

    def beside(factor):  # one long answer, whose first token comes before collector is sent anything
        return [Call(0, 100 * factor, 10 * factor, 1000)]

    made = [
        {
            "solo:collector": {"collector": (solo or quick)(f)},
            "solo:insight": {"insight": beside(f)},
            "concurrent": {"collector": slow(f), "insight": beside(f)},
        }
        for f in WOBBLE
    ]
    path = campaign(tmp_path / "run", made, **manifest)
    if sampled:
        write(path / "telemetry.parquet", list(sampled))
    section = agents_section(load(path))
    mine = [finding for finding in section.contention.findings if (finding.agent, finding.what) == ("collector", what)]
    assert len(mine) == CALLS * len(CONCURRENT)
    return mine, section


def causes(found):
    return {finding.cause for finding in found}


def everywhere(name, value, runs=CONCURRENT, *, kind="gauge", source="server", **labels):
    """Samples of every run of `runs`. value: of a time in seconds."""
    return [
        row
        for run in runs
        for row in rows(name, {t: value(t) for t in EVERY}, number=run, kind=kind, source=source, **labels)
    ]


def looked():
    return everywhere("scrape_duration_seconds", lambda t: 0.01, range(15), endpoint="a")


# --- by what the server says beside it --------------------------------------------------------------------------------


def test_without_samples_it_is_a_guess_by_what_the_others_did(tmp_path):
    found, section = findings(tmp_path, late)
    assert causes(found) == {"slower_decode"}
    assert {finding.sampling_gap_s for finding in found} == {None}
    assert section.contention.attribution_by_samples == BySamples(findings=0, sampling_gap_s=None)
    assert "by samples" not in as_text(Document("", agents_sections(section)))


def test_requests_seen_in_the_servers_queue_are_a_queue(tmp_path):
    sampled = [*looked(), *everywhere("vllm:num_requests_waiting", lambda t: 1, endpoint="a", engine="0")]
    found, section = findings(tmp_path, late, sampled)
    assert causes(found) == {"queue"}
    assert {finding.sampling_gap_s for finding in found} == {0.25}
    assert section.contention.attribution["queue"] == 40
    assert section.contention.attribution_by_samples == BySamples(findings=40, sampling_gap_s=0.25)
    text = " ".join(as_text(Document("", agents_sections(section))).split())
    assert "end 40; 40 of these by samples up to 0.25 s apart" in text


def test_a_queue_at_another_server_is_none_here(tmp_path):
    found, _ = findings(tmp_path, late, everywhere("vllm:num_requests_waiting", lambda t: 1, endpoint="b"))
    assert causes(found) == {"slower_decode"}


def test_what_is_so_when_alone_too_explains_nothing(tmp_path):
    sampled = everywhere("vllm:num_requests_waiting", lambda t: 1, range(15), endpoint="a")
    assert causes(findings(tmp_path, late, sampled)[0]) == {"slower_decode"}


def queue_time(seconds):
    """Counters of a server that finishes two requests a second and lets them queue for `seconds` each."""
    sampled = []
    for part, step in (("sum", seconds), ("count", 1)):
        name = f"vllm:request_queue_time_seconds_{part}"
        sampled += everywhere(name, lambda t, step=step: step * 2 * (t + 1), endpoint="a", kind="counter")
    return sampled


def test_queue_time_that_the_server_counted_is_a_queue_without_one_being_seen(tmp_path):
    found, _ = findings(tmp_path, late, queue_time(0.2))
    assert causes(found) == {"queue"}


def test_what_the_server_counted_goes_before_what_was_seen(tmp_path):
    """Requests were seen waiting, but all that queued meanwhile did so for 15 ms at most together, of 200."""
    sampled = [*queue_time(0.005), *everywhere("vllm:num_requests_waiting", lambda t: 1, endpoint="a")]
    assert causes(findings(tmp_path, late, sampled)[0]) == {"slower_decode"}


def test_the_calls_own_queue_time_goes_before_the_servers_gauges(tmp_path):
    sampled = everywhere("vllm:num_requests_waiting", lambda t: 1, endpoint="a")
    found, _ = findings(tmp_path, lambda f: late(f, server_queue_ns=1_000_000), sampled)
    assert causes(found) == {"slower_decode"}
    found, _ = findings(tmp_path / "2", lambda f: late(f, server_queue_ns=190_000_000), sampled)
    assert causes(found) == {"queue"}
    assert {finding.sampling_gap_s for finding in found} == {None}


@pytest.mark.parametrize(("full", "cause"), [(0.96, "kv_pressure"), (0.94, "slower_decode")])
def test_a_full_cache(tmp_path, full, cause):
    sampled = [*looked(), *everywhere("vllm:kv_cache_usage_perc", lambda t: full, endpoint="a")]
    assert causes(findings(tmp_path, late, sampled)[0]) == {cause}


def test_requests_put_back_for_want_of_cache(tmp_path):
    sampled = everywhere("vllm:num_preemptions_total", lambda t: 10 + 4 * (t + 1), endpoint="a", kind="counter")
    sampled += everywhere("vllm:num_preemptions_total", lambda t: 10, SOLO, endpoint="a", kind="counter")
    found, _ = findings(tmp_path, late, [*looked(), *sampled])
    assert causes(found) == {"kv_pressure"}
    assert {finding.sampling_gap_s for finding in found} == {0.25}


def test_queue_goes_before_cache_and_cache_before_clocks(tmp_path):
    sampled = everywhere("vllm:kv_cache_usage_perc", lambda t: 0.99, endpoint="a") + clocks(0.3)
    assert causes(findings(tmp_path / "1", late, sampled)[0]) == {"kv_pressure"}
    sampled += everywhere("vllm:num_requests_waiting", lambda t: 2, endpoint="a")
    assert causes(findings(tmp_path / "2", late, sampled)[0]) == {"queue"}


def test_the_prompts_own_evaluation_goes_before_the_cache(tmp_path):
    sampled = everywhere("vllm:kv_cache_usage_perc", lambda t: 0.99, endpoint="a")
    found, _ = findings(
        tmp_path,
        lambda f: late(f, server_prompt_eval_ns=round(290e6 * f)),
        sampled,
        solo=lambda f: quick(f, server_prompt_eval_ns=round(90e6 * f)),
    )
    assert causes(found) == {"prefill_interference"}


# --- clocks -----------------------------------------------------------------------------------------------------------


def clocks(drop, **labels):
    labels = {"gpu": "0", **labels}
    usual = everywhere("gpu_sm_clock_hertz", lambda t: 2e9, SOLO, source="nvml", **labels)
    return usual + everywhere("gpu_sm_clock_hertz", lambda t: 2e9 * (1 - drop), source="nvml", **labels)


def test_clocks_that_account_for_half_of_it(tmp_path):
    """A clock lower by a third makes everything half as slow again: enough for 1.6 times, not for three times."""
    found, _ = findings(tmp_path / "1", lambda f: late(f, ttft=160), clocks(1 / 3))
    assert causes(found) == {"clocks"}
    assert {finding.sampling_gap_s for finding in found} == {0.25}
    assert causes(findings(tmp_path / "2", late, clocks(1 / 3))[0]) == {"slower_decode"}


def test_slower_tokens_are_put_down_to_clocks_too(tmp_path):
    slow = lambda f: late(f, ttft=100, gap=14)  # noqa: E731
    assert causes(findings(tmp_path / "1", slow, clocks(0.25), what="tpot")[0]) == {"clocks"}
    assert causes(findings(tmp_path / "2", slow, clocks(0.04), what="tpot")[0]) == {"slower_decode"}


def test_a_reason_to_lower_the_clocks_counts_where_the_clocks_are_not_told(tmp_path):
    sampled = everywhere("gpu_throttle", lambda t: 1, source="nvml", gpu="0", reason="hw_thermal_slowdown")
    assert causes(findings(tmp_path / "1", late, sampled)[0]) == {"clocks"}
    assert causes(findings(tmp_path / "2", late, sampled + clocks(0.0))[0]) == {"slower_decode"}
    idle = everywhere("gpu_throttle", lambda t: 1, source="nvml", gpu="0", reason="gpu_idle")
    assert causes(findings(tmp_path / "3", late, idle)[0]) == {"slower_decode"}


def test_boards_of_this_machine_have_no_part_in_a_server_elsewhere(tmp_path):
    far = [{"name": "a", "url": "http://far.example:8000", "api": "openai", "model": "m"}]
    slow = lambda f: late(f, ttft=160)  # noqa: E731
    assert causes(findings(tmp_path / "1", slow, clocks(1 / 3), targets=far)[0]) == {"slower_decode"}
    beside = clocks(1 / 3, exporter="far.example:9400")
    assert causes(findings(tmp_path / "2", slow, beside, targets=far)[0]) == {"clocks"}


# --- client and network -----------------------------------------------------------------------------------------------


def lag(ms, tier):
    return {"instrument": {"tier": tier, "workers": 1, "loop_lag_ms": {"p50": 1, "p99": ms, "max": ms}}}


@pytest.mark.parametrize(
    ("ms", "tier", "cause"),
    [
        (150, "callback", "client"),
        (50, "callback", "slower_decode"),
        (150, "kernel", "slower_decode"),  # its stamps do not wait for the loop
    ],
)
def test_a_client_that_may_have_stamped_late(tmp_path, ms, tier, cause):
    assert causes(findings(tmp_path, late, **lag(ms, tier))[0]) == {cause}


def test_a_client_late_by_half_a_gap_may_have_made_the_gaps(tmp_path):
    slow = lambda f: late(f, ttft=100, gap=14)  # noqa: E731
    assert causes(findings(tmp_path / "1", slow, what="tpot", **lag(6, "callback"))[0]) == {"client"}
    assert causes(findings(tmp_path / "2", slow, what="tpot", **lag(4, "callback"))[0]) == {"slower_decode"}


def sent_for(ms):
    """Collector's calls, of which the socket took the last byte so long after the first."""
    return lambda f: [
        Call(c.sent, c.ttft, c.gap, c.tokens, others={"sent_last_ns": round((c.sent + ms) * 1e6)}) for c in late(f)
    ]


@pytest.mark.parametrize(("ms", "cause"), [(150, "network"), (50, "slower_decode")])
def test_a_request_that_the_socket_took_slowly(tmp_path, ms, cause):
    found, _ = findings(tmp_path, sent_for(ms))
    assert causes(found) == {cause}
    assert {finding.sampling_gap_s for finding in found} == {None}


def test_what_the_network_took_is_not_the_servers_queue(tmp_path):
    """A server that reports its prompt evaluation but no queue: the rest is a queue, unless it went by before."""
    evaluated = {"server_prompt_eval_ns": 90_000_000}

    def slow(factor):
        return [Call(c.sent, c.ttft, c.gap, c.tokens, others={**c.others, **evaluated}) for c in sent_for(150)(factor)]

    def alone(factor):
        return quick(factor, server_prompt_eval_ns=round(90e6 * factor))

    assert causes(findings(tmp_path / "1", slow, solo=alone)[0]) == {"network"}
    assert causes(findings(tmp_path / "2", lambda f: late(f, **evaluated), solo=alone)[0]) == {"queue"}


def test_segments_sent_again(tmp_path):
    sampled = everywhere("tcp_retransmitted_segments_total", lambda t: 8 * (t + 1), source="host", kind="counter")
    quiet = everywhere("tcp_retransmitted_segments_total", lambda t: 5, SOLO, source="host", kind="counter")
    found, _ = findings(tmp_path / "1", late, sampled + quiet)
    assert causes(found) == {"network"}
    assert {finding.sampling_gap_s for finding in found} == {0.25}
    noisy = everywhere(
        "tcp_retransmitted_segments_total", lambda t: 8 * (t + 1), range(15), source="host", kind="counter"
    )
    assert causes(findings(tmp_path / "2", late, noisy)[0]) == {"slower_decode"}


def test_lost_segments_come_after_a_queue_that_shows_in_the_times(tmp_path):
    """Collector's first token comes as long after the end of insight's answer as it takes alone."""
    sampled = everywhere("tcp_retransmitted_segments_total", lambda t: 8 * (t + 1), source="host", kind="counter")
    made = []
    for f in WOBBLE:
        first = [Call((turn + 1) * 1000, 100 * f, 10 * f, 21) for turn in range(CALLS)]
        behind = [Call(c.sent + 1, c.done - c.sent - 1 + 100 * f, 10 * f, 41) for c in first]
        solo = {"solo:collector": {"collector": quick(f)}, "solo:insight": {"insight": quick(f)}}
        made.append({**solo, "concurrent": {"collector": behind, "insight": first}})
    path = campaign(tmp_path / "run", made)
    write(path / "telemetry.parquet", sampled)
    found = agents_section(load(path)).contention.findings
    assert {finding.cause for finding in found if (finding.agent, finding.what) == ("collector", "ttft")} == {"queue"}


def test_the_section_is_json_where_looks_are_too_few_to_have_a_gap(tmp_path):
    sampled = [
        row for run in CONCURRENT for row in rows("vllm:num_requests_waiting", {0: 1.0}, number=run, endpoint="a")
    ]
    _, section = findings(tmp_path, late, sampled)
    assert section.contention.attribution_by_samples == BySamples(findings=10, sampling_gap_s=None)
    json.dumps(msgspec.to_builtins(section), allow_nan=False)

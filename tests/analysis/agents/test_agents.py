"""The agents section, held against campaigns whose truth is known because they were made by hand."""

from __future__ import annotations

import json
import math

import pytest

from analysis.agents.section import agents_section, cohens_d, grade, spread
from analysis.records.frame import load
from analysis.summary import summarise
from tests.analysis.agent_runs import Call, campaign, one_after_the_other

ARMS = ("solo", "concurrent")
WOBBLE = (1.0, 1.01, 0.99, 1.005, 0.995)  # of one block against the next
SHAPE = ((100.0, 10.0, 41), (200.0, 10.0, 21))  # two calls: 500 ms and 400 ms


def shapes(factor, ttft=1.0, gap=1.0, tokens=1.0):
    return [(first * factor * ttft, every * factor * gap, round(n * tokens)) for first, every, n in SHAPE]


def blocks(together, wobble=WOBBLE, alone=lambda f: one_after_the_other(0, *shapes(f))):
    """Blocks of two equal agents; `together(factor)` makes the concurrent run."""
    return [
        {"solo:collector": {"collector": alone(f)}, "solo:insight": {"insight": alone(f)}, "concurrent": together(f)}
        for f in wobble
    ]


def both(make):
    return lambda factor: {"collector": make(factor), "insight": make(factor)}


def section(tmp_path, made, **manifest):
    return agents_section(load(campaign(tmp_path / "run", made, **manifest)))


def independent(factor):
    return one_after_the_other(0, *shapes(factor * (1 + 0.001 * math.sin(1000 * factor))))


def test_agents_that_do_not_touch_have_all_the_speedup(tmp_path):
    told = section(tmp_path, blocks(both(independent)))
    assert told["efficiency"]["low"] < 1 < told["efficiency"]["high"]
    assert told["speedup"]["value"] == pytest.approx(2, rel=1e-3)
    assert told["ideal_speedup"]["value"] == pytest.approx(2)
    assert told["stretch"]["value"] == pytest.approx(1, rel=1e-3)
    assert told["contention"]["verdict"] == "none"
    assert told["contention"]["ttft_stretch"]["value"] == pytest.approx(1, rel=1e-3)
    assert told["blocks"] == 5
    assert told["combined_over_solo"]["value"] == pytest.approx(told["speedup"]["value"])


def test_figures_of_a_void_campaign_say_so(tmp_path):
    stepped = {"tier": "kernel", "clock_jump_us": 900.0}
    directory = campaign(tmp_path / "run", blocks(both(independent)), instrument=stepped)
    summary = summarise(directory)
    assert summary["verdict"] == "generator-limited"
    for name in ("speedup", "efficiency", "stretch", "combined_over_solo"):
        assert "void: generator-limited" in summary["agents"][name]["notes"]


def serial(factor, calls=1):
    """One server that serves one request at a time, strictly in turn: `calls` equal calls an agent, 500 ms each."""
    ttft, gap, tokens = SHAPE[0]
    lasts = (ttft + gap * (tokens - 1)) * factor
    by_agent = {"collector": [], "insight": []}
    for place in range(calls):
        for offset, name in enumerate(by_agent):
            sent = 0.0 if place == 0 else by_agent[name][-1].done
            starts = (2 * place + offset) * lasts
            by_agent[name].append(Call(sent, starts - sent + ttft * factor, gap * factor, tokens))
    return by_agent


def alone(factor, calls=1):
    return one_after_the_other(0, *[(t * factor, g * factor, n) for t, g, n in [SHAPE[0]] * calls])


@pytest.mark.parametrize(("calls", "guide"), [(1, 0.75), (2, 0.875)])
def test_one_serial_server_gains_nothing_whatever_the_guide_says(tmp_path, calls, guide):
    """SYSTEMS 1.4: (4n - 1) / 4n by the guide's formula, and half by measured solo runs."""
    made = blocks(lambda f: serial(f, calls), alone=lambda f: alone(f, calls))
    told = section(tmp_path, made)
    assert told["speedup"]["value"] == pytest.approx(1, abs=1e-6)
    assert told["efficiency"]["value"] == pytest.approx(0.5, abs=1e-6)
    assert told["overlap_efficiency"]["value"] == pytest.approx(guide, abs=1e-6)
    assert "the guide's formula" in told["overlap_efficiency"]["notes"][0]
    assert told["contention"]["verdict"] == "contention"
    assert told["contention"]["ttft_stretch_at_least"] > 1.05
    assert told["contention"]["tpot_stretch"]["value"] is None or told["contention"]["tpot_stretch"]["value"] < 1.001


def test_one_permit_is_one_after_the_other(tmp_path):
    def taking_turns(factor):
        first = one_after_the_other(0, *shapes(factor))
        second = one_after_the_other(first[-1].done, *shapes(factor))
        second[0] = Call(second[0].sent, second[0].ttft, second[0].gap, second[0].tokens, intended=0.0)
        return {"collector": first, "insight": second}

    told = section(tmp_path, blocks(taking_turns), permits=1)
    assert told["efficiency"]["value"] == pytest.approx(0.5, abs=1e-6)
    assert told["overlap_efficiency"]["value"] == pytest.approx(0.5, abs=1e-6)
    assert told["overlap"]["value"] == pytest.approx(1, abs=1e-6)
    assert told["per_agent"]["insight"]["permit_wait_ms"]["value"] == pytest.approx(900, rel=0.01)
    assert told["per_agent"]["collector"]["permit_wait_ms"]["value"] == 0
    assert told["contention"]["verdict"] == "none"
    assert "no call overlapped one of another agent" in told["contention"]["reasons"][0]
    assert told["contention"]["rules"]["speedup<1.5"] is True
    assert told["contention"]["attribution"]["permit"] == 5


def test_a_shared_gpu_shows_the_slow_down_that_was_set(tmp_path):
    told = section(tmp_path, blocks(both(lambda f: one_after_the_other(0, *shapes(f, ttft=1.5, gap=1.5)))))
    assert told["stretch"]["value"] == pytest.approx(1.5)
    assert told["speedup"]["value"] == pytest.approx(2 / 1.5)
    assert told["overlap_efficiency"]["value"] == pytest.approx(1)
    assert told["per_agent"]["insight"]["stretch"]["value"] == pytest.approx(1.5)
    found = told["contention"]
    assert (found["verdict"], found["ttft_stretch"]["value"]) == ("contention", pytest.approx(1.5))
    assert found["tpot_stretch"]["value"] == pytest.approx(1.5)
    assert found["attribution"]["prefill_interference"] + found["attribution"]["slower_decode"] > 0
    assert not any(found["rules"].values())  # none of the old rules sees it
    wall = told["per_agent"]["collector"]["ttft_ms_concurrent_minus_solo"]
    assert wall["value"] == pytest.approx(75, rel=0.02)  # mean of 50 and 100


def test_without_solo_arms_only_overlap_is_told(tmp_path):
    made = [{"concurrent": arms["concurrent"]} for arms in blocks(both(independent))]
    told = section(tmp_path, made)
    assert told["speedup"]["value"] is None
    assert "no solo runs" in told["speedup"]["notes"][0]
    assert told["overlap"]["value"] == pytest.approx(2)
    assert told["contention"]["verdict"] == "unknown"


def test_a_missing_solo_arm_is_named(tmp_path):
    made = [{k: v for k, v in arms.items() if k != "solo:insight"} for arms in blocks(both(independent))]
    told = section(tmp_path, made)
    assert told["speedup"]["value"] is None
    assert "no solo runs of insight: no speedup" in told["notes"]
    assert told["contention"]["verdict"] == "inconclusive"  # nothing was found of the collector, which is half of them
    assert "TTFT: insight not compared, for want of solo runs" in told["contention"]["reasons"]


@pytest.mark.parametrize("died", ["insight", "both"])
def test_concurrent_runs_that_all_failed_say_nothing_of_contention(tmp_path, died):
    def together(factor):
        dead = [Call(0, 100, 10, 0, others={"outcome": "refused"})]
        return {"collector": dead if died == "both" else independent(factor), "insight": dead}

    told = section(tmp_path, blocks(together))
    assert told["contention"]["verdict"] == "unknown"
    assert told["contention"]["reasons"] == ["no concurrent runs"]
    assert told["speedup"]["value"] is None


def test_an_endpoint_that_died_leaves_its_block_out(tmp_path):
    made = blocks(both(independent))
    dead = Call(0, 100, 10, 1, others={"outcome": "refused"})
    made[3]["solo:insight"] = {"insight": [dead]}
    told = section(tmp_path, made)
    assert told["blocks"] == 4
    assert "run 10 left out: a call ended in refused" in told["notes"]
    assert any("no complete set of solo runs" in note for note in told["notes"])
    assert "few runs" in told["speedup"]["notes"]


@pytest.mark.parametrize("how", ["interrupted", "no_progress"])
def test_a_concurrent_run_that_was_cut_short_is_none(tmp_path, how):
    path = campaign(tmp_path / "run", blocks(both(independent)))
    manifest = json.loads((path / "manifest.json").read_text())
    last = manifest["runs"][-1]
    last[how] = True
    (path / "manifest.json").write_text(json.dumps(manifest))
    told = agents_section(load(path))
    assert (told["runs"], told["blocks"]) == ({"concurrent": 4, "solo": 10}, 4)
    assert last["run"] not in [one["run"] for one in told["per_run"]]


def test_unequal_work_is_compared_by_token_rates(tmp_path):
    told = section(tmp_path, blocks(both(lambda f: one_after_the_other(0, *shapes(f, tokens=0.5)))))
    assert told["speedup"]["notes"][0].startswith("unequal work (collector: 30 tokens against 62 alone")
    assert told["speedup"]["value"] == told["combined_over_solo"]["value"]


def test_a_campaign_that_stopped_by_looks_reports_with_97_percent(tmp_path):
    made = blocks(both(independent))
    told = section(tmp_path, made)
    path = campaign(tmp_path / "looked", made)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["design"]["until"] = 0.02
    (path / "manifest.json").write_text(json.dumps(manifest))
    looked = agents_section(load(path))
    names = ("speedup", "efficiency", "stretch", "overlap", "balance", "combined_over_solo")
    for wide, narrow in [
        *((looked[name], told[name]) for name in names),
        *((looked["contention"][name], told["contention"][name]) for name in ("ttft_stretch", "tpot_stretch")),
        *((looked["per_agent"]["insight"][arm]["wall_s"], told["per_agent"]["insight"][arm]["wall_s"]) for arm in ARMS),
    ]:
        assert (wide["confidence"], narrow["confidence"]) == (0.97, 0.95)
        assert wide["value"] == narrow["value"]
        # t(4) at 97 % over that at 95 % is 3.2976 / 2.7764 (K1).
        widths = [math.log(one["high"] / one["low"]) for one in (wide, narrow)]
        assert widths[0] == pytest.approx(widths[1] * 3.2976 / 2.776445, rel=1e-3, abs=1e-9)
    assert looked["speedup"]["low"] < told["speedup"]["low"]


def test_the_share_of_contended_runs_is_over_runs(tmp_path):
    told = section(tmp_path, blocks(both(independent)))
    assert told["contention"]["flags"]["runs_contended"]["notes"] == []


def test_answers_without_a_token_leave_fairness_unknown(tmp_path):
    def empty(factor):
        return one_after_the_other(0, *shapes(factor), output_tokens=0)

    told = section(tmp_path, blocks(both(empty), alone=empty))
    assert told["fairness"]["value"] is None
    assert told["speedup"]["value"] == pytest.approx(2)


def test_two_blocks_have_no_interval(tmp_path):
    told = section(tmp_path, blocks(both(independent), wobble=WOBBLE[:2]))
    assert told["speedup"]["low"] is None
    assert told["speedup"]["value"] == pytest.approx(2, rel=0.01)
    assert told["contention"]["verdict"] == "inconclusive"


def test_short_answers_and_cold_loads_are_named_and_not_called_contention(tmp_path):
    made = blocks(both(independent))
    made[2]["concurrent"]["insight"] = one_after_the_other(0, (100, 10, 6), (200, 10, 4))
    cold = {"server_load_ns": 2_000_000_000}
    made[4]["concurrent"]["collector"] = [
        Call(0, 2100, 10, 41, others=cold),
        *one_after_the_other(2500, SHAPE[1]),
    ]
    told = section(tmp_path, made)
    assert [(one["run"], one["agent"], one["tokens"]) for one in told["short_answers"]] == [
        (8, "insight", 6),
        (8, "insight", 4),
    ]
    assert [(one["run"], one["load_s"]) for one in told["cold_loads"]] == [(14, 2.0)]
    assert told["contention"]["rules_runs"]["speedup<1.5"] == 2
    causes = {one["run"]: one["cause"] for one in told["contention"]["findings"] if one["what"] == "balance"}
    assert causes == {8: "short_answer", 14: "cold_load"}
    late = [one for one in told["contention"]["findings"] if one["what"] == "ttft"]
    assert {one["cause"] for one in late if one["run"] == 14} == {"cold_load"}


def test_old_rules_have_their_thresholds_in_their_names(tmp_path):
    def slow(factor):
        late = one_after_the_other(0, (8000 * factor, 10, 41), (8000 * factor, 10, 21))
        return {"collector": late, "insight": one_after_the_other(0, *shapes(factor))}

    told = section(tmp_path, blocks(slow))["contention"]["rules"]
    assert told == {
        "speedup<1.5": True,
        "delta_ttft>3s": True,
        "delta_ttft>10s": False,
        "ttft>3s": True,
        "ttft>10s": False,
    }


def test_deltas_carry_their_direction(tmp_path):
    def unlike(factor):
        return {"collector": independent(factor), "insight": one_after_the_other(0, *shapes(factor, ttft=2))}

    told = section(tmp_path, blocks(unlike))
    assert told["deltas"]["ttft_ms_insight_minus_collector"]["value"] == pytest.approx(150, rel=0.01)
    assert told["deltas"]["output_tokens_per_s_insight_minus_collector"]["value"] < 0


def test_start_skew_is_told(tmp_path):
    def skewed(factor):
        return {"collector": independent(factor), "insight": one_after_the_other(30, *shapes(factor))}

    told = section(tmp_path, blocks(skewed))
    assert told["start_skew_ms"]["value"] == pytest.approx(30)


def test_prefill_and_queue_as_the_server_tells_them(tmp_path):
    quick = {"server_queue_ns": 0, "server_prompt_eval_ns": 90_000_000}
    waited = {"server_queue_ns": 400_000_000, "server_prompt_eval_ns": 90_000_000}
    shape = [(100.0, 10.0, 11)] * 4
    made = blocks(
        lambda f: {
            "collector": one_after_the_other(0, *[(500 * f, 10 * f, 11)] * 4, **waited),
            "insight": one_after_the_other(0, *[(100 * f, 10 * f, 11)] * 4, **quick),
        },
        alone=lambda f: one_after_the_other(0, *[(t * f, g * f, n) for t, g, n in shape], **quick),
    )
    told = section(tmp_path, made)
    assert told["contention"]["attribution"]["queue"] == 10  # two calls a run, then insight has ended
    assert told["per_agent"]["collector"]["concurrent"]["server"]["queue_ms"] == pytest.approx(400)
    assert told["per_agent"]["insight"]["solo"]["server"]["load_ms"] is None


def test_outliers_are_marked_and_kept():
    told = spread(dict(enumerate([10.0, 10.1, 9.9, 10.05, 9.95, 20.0])))
    assert told["outliers"] == {"iqr": [5], "z": [5]}
    assert told["mean"] == pytest.approx(11.6666667)
    assert told["mean_without_outliers"] == pytest.approx(10)
    assert told["sd"] == pytest.approx(4.083, abs=1e-3)


def test_cohens_d_is_in_pooled_deviations():
    assert cohens_d([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]) == pytest.approx(1)
    assert cohens_d([1.0, 1.0], [2.0, 2.0]) is None
    assert cohens_d([1.0], [2.0, 2.0]) is None


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("overlap_efficiency", 0.96, "excellent"),
        ("overlap_efficiency", 0.86, "acceptable"),
        ("overlap_efficiency", 0.79, "problematic"),
        ("contended_share", 0.04, "excellent"),
        ("contended_share", 0.31, "problematic"),
        ("cv", 0.004, "excellent"),
        ("cv", None, None),
    ],
)
def test_grades_are_the_guides(name, value, word):
    assert grade(name, value) == word


@pytest.mark.parametrize(("endpoint", "cause"), [("a", "queue"), ("b", "prefill_interference")])
def test_one_waits_for_another_only_at_the_same_server(tmp_path, endpoint, cause):
    """insight's first token comes as long after collector's end as it takes alone: a queue, if there is one."""

    def together(factor):
        first = [Call(start, 100 * factor, 10 * factor, 11) for start in (0, 1000, 2000, 3000)]
        late = [Call(c.sent + 1, c.done - c.sent - 1 + 100 * factor, 10 * factor, 11) for c in first]
        return {"collector": first, "insight": [c.at(endpoint) for c in late]}

    made = blocks(together, alone=lambda f: [Call(start, 100 * f, 10 * f, 11) for start in (0, 1000, 2000, 3000)])
    found = section(tmp_path, made)["contention"]["findings"]
    late = [one["cause"] for one in found if one["what"] == "ttft" and one["agent"] == "insight"]
    assert late == [cause] * 20


def test_answers_in_one_piece_have_no_ttft_and_no_verdict(tmp_path):
    whole = {"event_ns": [], "event_kind": [], "event_read": []}

    def together(factor):
        shape = shapes(factor)
        return {name: one_after_the_other(0, *shape, **whole) for name in ("collector", "insight")}

    told = section(tmp_path, blocks(together, alone=lambda f: one_after_the_other(0, *shapes(f), **whole)))
    assert told["speedup"]["value"] == pytest.approx(2)
    assert told["per_agent"]["insight"]["concurrent"]["ttft_ms"]["value"] is None
    assert told["contention"]["verdict"] == "unknown"
    assert told["contention"]["reasons"] == ["cannot be told from the solo runs"]
    assert told["contention"]["rules"]["ttft>3s"] is None
    assert told["contention"]["rules"]["speedup<1.5"] is False


def test_a_level_shift_in_the_middle_of_a_run_has_its_time(tmp_path):
    """Forty calls of a second; from the twentieth on, gaps take twice as long."""

    def together(factor):
        calls, at = [], 0.0
        for turn in range(40):
            calls.append(Call(at, 100 * factor, (10 if turn < 20 else 20) * (1 + 0.01 * (turn % 3)), 91))
            at = calls[-1].done
        return {"collector": calls, "insight": calls}

    made = blocks(together, wobble=WOBBLE[:3], alone=lambda f: one_after_the_other(0, *[(100 * f, 10, 91)] * 5))
    shifts = section(tmp_path, made)["contention"]["shifts"]
    assert {one["run"] for one in shifts} == {2, 5, 8}
    assert all(one["at_s"] == pytest.approx(20, abs=1) for one in shifts)
    assert shifts[0]["after"] / shifts[0]["before"] == pytest.approx(2, rel=0.05)

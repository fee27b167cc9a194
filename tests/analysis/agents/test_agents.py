"""The agents section, held against campaigns whose truth is known because they were made by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import msgspec
import pytest

from analysis.agents.differences import Outliers, cohens_d, spread
from analysis.agents.section import AgentsSection, RunCounts, agents_section
from analysis.estimate import NoteCode, note
from analysis.formats.guide_grades import grade
from analysis.records.frame import load
from tests.analysis.agent_runs import Call, campaign, one_after_the_other
from tests.analysis.handmade import mapping_of

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


def section_of(tmp_path, made, **manifest):
    return agents_section(load(campaign(tmp_path / "run", made, **manifest)))


def independent(factor):
    return one_after_the_other(0, *shapes(factor * (1 + 0.001 * math.sin(1000 * factor))))


def test_agents_that_do_not_touch_have_all_the_speedup(tmp_path):
    agents = section_of(tmp_path, blocks(both(independent)))
    assert agents.efficiency.low < 1 < agents.efficiency.high
    assert agents.speedup.value == pytest.approx(2, rel=1e-3)
    assert agents.ideal_speedup.value == pytest.approx(2)
    assert agents.stretch.value == pytest.approx(1, rel=1e-3)
    assert agents.contention.verdict == "none"
    assert agents.contention.ttft_stretch.value == pytest.approx(1, rel=1e-3)
    assert agents.blocks == 5
    assert agents.combined_over_solo.value == pytest.approx(agents.speedup.value)


def test_figures_of_a_void_campaign_say_so(tmp_path):
    stepped = {"tier": "kernel", "clock_jump_us": 900.0}
    directory = campaign(tmp_path / "run", blocks(both(independent)), instrument=stepped)
    summary = mapping_of(directory)
    assert summary["verdict"] == "generator-limited"
    for name in ("speedup", "efficiency", "stretch", "combined_over_solo"):
        assert "void: generator-limited" in summary["agents"][name]["notes"]
        assert {"code": "void", "data": {"verdict": "generator-limited"}} in summary["agents"][name]["note_codes"]


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
    """docs/agents.md#known-answers: (4n - 1) / 4n by the guide's formula, and half by measured solo runs."""
    made = blocks(lambda f: serial(f, calls), alone=lambda f: alone(f, calls))
    agents = section_of(tmp_path, made)
    assert agents.speedup.value == pytest.approx(1, abs=1e-6)
    assert agents.efficiency.value == pytest.approx(0.5, abs=1e-6)
    assert agents.overlap_efficiency.value == pytest.approx(guide, abs=1e-6)
    assert agents.overlap_efficiency.note_codes[0].code is NoteCode.GUIDE_FORMULA
    assert agents.contention.verdict == "contention"
    assert agents.contention.ttft_stretch_at_least > 1.05
    assert agents.contention.tpot_stretch.value is None or agents.contention.tpot_stretch.value < 1.001


def test_one_permit_is_one_after_the_other(tmp_path):
    def taking_turns(factor):
        first = one_after_the_other(0, *shapes(factor))
        second = one_after_the_other(first[-1].done, *shapes(factor))
        second[0] = Call(second[0].sent, second[0].ttft, second[0].gap, second[0].tokens, intended=0.0)
        return {"collector": first, "insight": second}

    agents = section_of(tmp_path, blocks(taking_turns), permits=1)
    assert agents.efficiency.value == pytest.approx(0.5, abs=1e-6)
    assert agents.overlap_efficiency.value == pytest.approx(0.5, abs=1e-6)
    assert agents.overlap.value == pytest.approx(1, abs=1e-6)
    assert agents.per_agent["insight"].permit_wait_ms.value == pytest.approx(900, rel=0.01)
    assert agents.per_agent["collector"].permit_wait_ms.value == 0
    assert agents.contention.verdict == "none"
    assert agents.contention.reasons == ("no call overlapped one of another agent",)
    assert [reason.code for reason in agents.contention.reason_codes] == [NoteCode.NO_OVERLAP]
    assert agents.contention.rules["speedup<1.5"] is True
    assert agents.contention.attribution["permit"] == 5


def test_a_shared_gpu_shows_the_slow_down_that_was_set(tmp_path):
    agents = section_of(tmp_path, blocks(both(lambda f: one_after_the_other(0, *shapes(f, ttft=1.5, gap=1.5)))))
    assert agents.stretch.value == pytest.approx(1.5)
    assert agents.speedup.value == pytest.approx(2 / 1.5)
    assert agents.overlap_efficiency.value == pytest.approx(1)
    assert agents.per_agent["insight"].stretch.value == pytest.approx(1.5)
    found = agents.contention
    assert (found.verdict, found.ttft_stretch.value) == ("contention", pytest.approx(1.5))
    assert found.tpot_stretch.value == pytest.approx(1.5)
    assert found.attribution["prefill_interference"] + found.attribution["slower_decode"] > 0
    assert not any(found.rules.values())  # none of the old rules sees it
    later = agents.per_agent["collector"].ttft_service_ms_concurrent_minus_solo
    assert later.value == pytest.approx(75, rel=0.02)  # mean of 50 and 100


def test_without_solo_arms_only_overlap_is_told(tmp_path):
    made = [{"concurrent": arms["concurrent"]} for arms in blocks(both(independent))]
    agents = section_of(tmp_path, made)
    assert agents.speedup.value is None
    assert agents.speedup.note_codes[0].code is NoteCode.NO_SOLO_RUNS
    assert agents.overlap.value == pytest.approx(2)
    assert agents.contention.verdict == "unknown"


def test_a_missing_solo_arm_is_named(tmp_path):
    made = [{k: v for k, v in arms.items() if k != "solo:insight"} for arms in blocks(both(independent))]
    agents = section_of(tmp_path, made)
    assert agents.speedup.value is None
    assert agents.notes == ("no solo runs of insight: no speedup",)
    assert agents.note_codes == (note(NoteCode.NO_SOLO_RUNS_OF, agents="insight"),)
    assert agents.contention.verdict == "inconclusive"  # nothing was found of the collector, which is half of them
    assert "TTFT service: insight not compared, for want of solo runs" in agents.contention.reasons


@pytest.mark.parametrize("died", ["insight", "both"])
def test_concurrent_runs_that_all_failed_say_nothing_of_contention(tmp_path, died):
    def together(factor):
        dead = [Call(0, 100, 10, 0, others={"outcome": "refused"})]
        return {"collector": dead if died == "both" else independent(factor), "insight": dead}

    agents = section_of(tmp_path, blocks(together))
    assert agents.contention.verdict == "unknown"
    assert agents.contention.reasons == ("no concurrent runs",)
    assert agents.speedup.value is None


def test_an_endpoint_that_died_leaves_its_block_out(tmp_path):
    made = blocks(both(independent))
    dead = Call(0, 100, 10, 1, others={"outcome": "refused"})
    made[3]["solo:insight"] = {"insight": [dead]}
    agents = section_of(tmp_path, made)
    assert agents.blocks == 4
    assert "run 10 left out: a call ended in refused" in agents.notes
    assert note(NoteCode.RUNS_WITHOUT_SOLO, runs="11") in agents.note_codes
    assert "few runs" in agents.speedup.notes


@pytest.mark.parametrize("how", ["interrupted", "no_progress"])
def test_a_concurrent_run_that_was_cut_short_is_none(tmp_path, how):
    path = campaign(tmp_path / "run", blocks(both(independent)))
    manifest = json.loads((path / "manifest.json").read_text())
    last = manifest["runs"][-1]
    last[how] = True
    (path / "manifest.json").write_text(json.dumps(manifest))
    agents = agents_section(load(path))
    assert (agents.runs, agents.blocks) == (RunCounts(concurrent=4, solo=10), 4)
    assert last["run"] not in [run.run for run in agents.per_run]


def test_unequal_work_is_compared_by_token_rates(tmp_path):
    agents = section_of(tmp_path, blocks(both(lambda f: one_after_the_other(0, *shapes(f, tokens=0.5)))))
    assert agents.speedup.notes[0].startswith("unequal work (collector: 30 tokens against 62 alone")
    assert agents.efficiency.has(NoteCode.UNEQUAL_WORK)
    assert agents.stretch.has(NoteCode.UNEQUAL_TIMES)
    assert agents.speedup.value == agents.combined_over_solo.value


def test_a_campaign_that_stopped_by_looks_reports_with_97_percent(tmp_path):
    made = blocks(both(independent))
    agents = section_of(tmp_path, made)
    path = campaign(tmp_path / "looked", made)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["design"]["until"] = 0.02
    (path / "manifest.json").write_text(json.dumps(manifest))
    looked = agents_section(load(path))
    names = ("speedup", "efficiency", "stretch", "overlap", "balance", "combined_over_solo")
    for wide, narrow in [
        *((getattr(looked, name), getattr(agents, name)) for name in names),
        (looked.contention.ttft_stretch, agents.contention.ttft_stretch),
        (looked.contention.tpot_stretch, agents.contention.tpot_stretch),
        *(tuple(getattr(each.per_agent["insight"], arm).wall_s for each in (looked, agents)) for arm in ARMS),
    ]:
        assert (wide.confidence, narrow.confidence) == (0.97, 0.95)
        assert wide.value == narrow.value
        # t(4) at 97 % over that at 95 % is 3.2976 / 2.7764 (K1).
        widths = [math.log(one.high / one.low) for one in (wide, narrow)]
        assert widths[0] == pytest.approx(widths[1] * 3.2976 / 2.776445, rel=1e-3, abs=1e-9)
    assert looked.speedup.low < agents.speedup.low


def test_the_share_of_contended_runs_is_over_runs(tmp_path):
    agents = section_of(tmp_path, blocks(both(independent)))
    assert agents.contention.flags.runs_contended.notes == ()


def test_answers_without_a_token_leave_fairness_unknown(tmp_path):
    def empty(factor):
        return one_after_the_other(0, *shapes(factor), output_tokens=0)

    agents = section_of(tmp_path, blocks(both(empty), alone=empty))
    assert agents.fairness.value is None
    assert agents.speedup.value == pytest.approx(2)


def test_two_blocks_have_no_interval(tmp_path):
    agents = section_of(tmp_path, blocks(both(independent), wobble=WOBBLE[:2]))
    assert agents.speedup.low is None
    assert agents.speedup.value == pytest.approx(2, rel=0.01)
    assert agents.contention.verdict == "inconclusive"


def test_short_answers_and_cold_loads_are_named_and_not_called_contention(tmp_path):
    made = blocks(both(independent))
    made[2]["concurrent"]["insight"] = one_after_the_other(0, (100, 10, 6), (200, 10, 4))
    cold = {"server_load_ns": 2_000_000_000}
    made[4]["concurrent"]["collector"] = [
        Call(0, 2100, 10, 41, others=cold),
        *one_after_the_other(2500, SHAPE[1]),
    ]
    agents = section_of(tmp_path, made)
    assert [(entry.run, entry.agent, entry.tokens) for entry in agents.short_answers] == [
        (8, "insight", 6),
        (8, "insight", 4),
    ]
    assert [(entry.run, entry.load_s) for entry in agents.cold_loads] == [(14, 2.0)]
    assert agents.contention.rules_runs["speedup<1.5"] == 2
    causes = {entry.run: entry.cause for entry in agents.contention.findings if entry.what == "balance"}
    assert causes == {8: "short_answer", 14: "cold_load"}
    late = [entry for entry in agents.contention.findings if entry.what == "ttft"]
    assert {entry.cause for entry in late if entry.run == 14} == {"cold_load"}


def test_old_rules_have_their_thresholds_in_their_names(tmp_path):
    def slow(factor):
        late = one_after_the_other(0, (8000 * factor, 10, 41), (8000 * factor, 10, 21))
        return {"collector": late, "insight": one_after_the_other(0, *shapes(factor))}

    rules = section_of(tmp_path, blocks(slow)).contention.rules
    assert rules == {
        "speedup<1.5": True,
        "delta_ttft>3s": True,
        "delta_ttft>10s": False,
        "ttft>3s": True,
        "ttft>10s": False,
    }


def test_deltas_carry_their_direction(tmp_path):
    def unlike(factor):
        return {"collector": independent(factor), "insight": one_after_the_other(0, *shapes(factor, ttft=2))}

    agents = section_of(tmp_path, blocks(unlike))
    assert agents.deltas["ttft_ms_insight_minus_collector"].value == pytest.approx(150, rel=0.01)
    assert agents.deltas["output_tokens_per_s_insight_minus_collector"].value < 0


def test_ttft_counts_from_when_a_call_was_due_and_service_ttft_from_when_it_was_sent(tmp_path):
    """insight waits 40 ms for a permit before its first of two calls: 20 ms of its mean TTFT."""

    def waiting(factor):
        first, *rest = one_after_the_other(40, *shapes(factor))
        return {"collector": independent(factor), "insight": [replace(first, intended=0.0), *rest]}

    agents = section_of(tmp_path, blocks(waiting))
    arm = agents.per_agent["insight"].concurrent
    assert arm.ttft_ms.value - arm.ttft_service_ms.value == pytest.approx(20, rel=0.01)
    assert arm.ttft_service_ms.value == pytest.approx(150, rel=0.01)
    assert agents.per_agent["insight"].ttft_ms_concurrent_minus_solo.value == pytest.approx(20, abs=0.5)
    assert agents.per_agent["insight"].ttft_service_ms_concurrent_minus_solo.value == pytest.approx(0, abs=0.5)
    assert agents.deltas["ttft_ms_insight_minus_collector"].value == pytest.approx(20, abs=0.5)
    assert agents.deltas["ttft_service_ms_insight_minus_collector"].value == pytest.approx(0, abs=0.5)
    assert agents.contention.ttft_stretch.value == pytest.approx(1, rel=0.01)  # a permit is no contention


def test_the_section_is_the_same_after_a_way_through_json(tmp_path):
    agents = section_of(tmp_path, blocks(lambda f: serial(f, 2), alone=lambda f: alone(f, 2)))
    text = json.dumps(msgspec.to_builtins(agents), allow_nan=False)
    assert msgspec.convert(json.loads(text), AgentsSection) == agents


def test_start_skew_is_told(tmp_path):
    def skewed(factor):
        return {"collector": independent(factor), "insight": one_after_the_other(30, *shapes(factor))}

    agents = section_of(tmp_path, blocks(skewed))
    assert agents.start_skew_ms.value == pytest.approx(30)


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
    agents = section_of(tmp_path, made)
    assert agents.contention.attribution["queue"] == 10  # two calls a run, then insight has ended
    assert agents.per_agent["collector"].concurrent.server.queue_ms == pytest.approx(400)
    assert agents.per_agent["insight"].solo.server.load_ms is None


def test_outliers_are_marked_and_kept():
    spreading = spread(dict(enumerate([10.0, 10.1, 9.9, 10.05, 9.95, 20.0])))
    assert spreading.outliers == Outliers(iqr=(5,), z=(5,))
    assert spreading.mean == pytest.approx(11.6666667)
    assert spreading.mean_without_outliers == pytest.approx(10)
    assert spreading.sd == pytest.approx(4.083, abs=1e-3)


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
    found = section_of(tmp_path, made).contention.findings
    late = [entry.cause for entry in found if entry.what == "ttft" and entry.agent == "insight"]
    assert late == [cause] * 20


def test_answers_in_one_piece_have_no_ttft_and_no_verdict(tmp_path):
    whole = {"event_ns": [], "event_kind": [], "event_read": []}

    def together(factor):
        shape = shapes(factor)
        return {name: one_after_the_other(0, *shape, **whole) for name in ("collector", "insight")}

    agents = section_of(tmp_path, blocks(together, alone=lambda f: one_after_the_other(0, *shapes(f), **whole)))
    assert agents.speedup.value == pytest.approx(2)
    assert agents.per_agent["insight"].concurrent.ttft_ms.value is None
    assert agents.contention.verdict == "unknown"
    assert agents.contention.reasons == ("cannot be told from the solo runs",)
    assert agents.contention.rules["ttft>3s"] is None
    assert agents.contention.rules["speedup<1.5"] is False


def test_a_level_shift_in_the_middle_of_a_run_has_its_time(tmp_path):
    """Forty calls of a second; from the twentieth on, gaps take twice as long."""

    def together(factor):
        calls, at = [], 0.0
        for turn in range(40):
            calls.append(Call(at, 100 * factor, (10 if turn < 20 else 20) * (1 + 0.01 * (turn % 3)), 91))
            at = calls[-1].done
        return {"collector": calls, "insight": calls}

    made = blocks(together, wobble=WOBBLE[:3], alone=lambda f: one_after_the_other(0, *[(100 * f, 10, 91)] * 5))
    shifts = section_of(tmp_path, made).contention.shifts
    assert {entry.run for entry in shifts} == {2, 5, 8}
    assert all(entry.at_s == pytest.approx(20, abs=1) for entry in shifts)
    assert shifts[0].after / shifts[0].before == pytest.approx(2, rel=0.05)

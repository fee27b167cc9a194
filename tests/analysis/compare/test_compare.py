"""Directories made by hand, compared: who is called different, by which test, and what is refused."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.compare.compare import compare
from analysis.compare.sides import NotComparableError, read_side
from analysis.estimate import NoteCode, note
from analysis.report.comparison import comparison_document
from analysis.report.html import as_page
from analysis.report.markdown import as_markdown
from analysis.report.text import as_text
from analysis.stats import equivalence, ratio
from tests.analysis.handmade import directory, request, run

RUNS_MS = [60.0, 61.2, 59.1, 60.5, 59.4, 60.1]
WINDOW = (0, 100_000)


def runs(values_ms, *, requests=20, tokens=5, gap=10.0, failed=0, first=0, **others):
    """Rows of one run for each value, whose requests, one every 100 ms, all have that TTFT."""
    rows = []
    for number, ttft in enumerate(values_ms, first):
        for place in range(requests):
            due = 100.0 * place
            common = {"run": number, "seq": place, "prompt_sha": f"{number:08x}{place:08x}"} | others
            if place < failed:
                rows.append(request(due, outcome="http_error", status=503, error="full", done=due + 1, **common))
                continue
            at = [due + ttft + gap * token for token in range(tokens)]
            rows.append(request(due, at, output=tokens, **common))
    return rows


def campaign(path, values_ms, *, manifest=None, entries=None, **rest):
    windows = entries or [run(number, WINDOW, offered=None) for number in range(len(values_ms))]
    return read_side(directory(path, runs(values_ms, **rest), runs=windows, **(manifest or {})))


@pytest.fixture
def a(tmp_path):
    return campaign(tmp_path / "a", RUNS_MS)


def codes(noted):
    return [note.code for note in noted.note_codes]


def scaled(factor, by=0.0):
    return [value * factor * (1 + by * (-1) ** place) for place, value in enumerate(RUNS_MS)]


@pytest.mark.parametrize(
    ("values", "verdict", "direction", "gate"),
    [
        (scaled(1.10), "different", "worse", "worse"),
        (scaled(0.90), "different", "better", "held"),
        (scaled(1.025), "different but negligible", "worse", "held"),
        (scaled(1.002), "equivalent", "worse", "held"),
        (scaled(1.03, by=0.08), "inconclusive", "worse", "undecided"),
        # Worse, but whether by more than the margin is open: the gate does not say that it held.
        (scaled(1.04, by=0.005), "different", "worse", "undecided"),
    ],
)
def test_the_four_verdicts_and_the_gate(a, tmp_path, values, verdict, direction, gate):
    comparison = compare(a, campaign(tmp_path / "b", values), metrics=["ttft_mean_ms"])
    shown = comparison.metrics["ttft_mean_ms"]
    assert (shown.verdict, shown.direction, comparison.gate.verdict) == (verdict, direction, gate)
    assert (shown.detectable is not None) == (verdict == "inconclusive")
    expected = ratio.log_welch(values, RUNS_MS)
    got = (shown.b_to_a.value, shown.b_to_a.low, shown.b_to_a.high, shown.p)
    assert got == pytest.approx((expected.value, expected.low, expected.high, expected.p), rel=1e-6)


def test_the_unit_is_the_run_and_its_value_is_that_of_the_summary(a):
    shown = compare(a, a).metrics
    assert shown["ttft_mean_ms"].a.values == pytest.approx(RUNS_MS)
    assert shown["ttft_mean_ms"].a.n == 6
    for name in ("ttft_mean_ms", "ttft_p50_ms", "ttft_p99_ms", "requests_per_s", "success_rate"):
        assert list(shown[name].a.values) == [getattr(run, name) for run in a.summary.per_run]


def test_one_token_an_event_is_not_told_twice(a, tmp_path):
    assert "event_gap_mean_ms" not in compare(a, a).metrics
    assert "event_gap_mean_ms" in compare(a, a, metrics=["tpot_mean_ms", "event_gap_mean_ms"]).metrics


def test_swapping_the_sides_turns_the_ratio_over(a, tmp_path):
    b = campaign(tmp_path / "b", scaled(1.1))
    forth, back = (compare(*sides).metrics["ttft_mean_ms"] for sides in ((a, b), (b, a)))
    assert forth.b_to_a.value == pytest.approx(1 / back.b_to_a.value)
    assert forth.b_to_a.low == pytest.approx(1 / back.b_to_a.high)
    assert forth.p == pytest.approx(back.p)
    assert (forth.direction, back.direction) == ("worse", "better")


# The family


def test_a_difference_counts_if_it_holds_in_the_whole_family(a, tmp_path):
    b = campaign(tmp_path / "b", scaled(1.015, by=0.004))
    alone = compare(a, b, metrics=["ttft_mean_ms"])
    family = compare(a, b)
    p = {name: shown.p for name, shown in family.metrics.items()}
    adjusted = dict(zip(p, equivalence.holm(list(p.values())), strict=True))
    assert {name: shown.p_holm for name, shown in family.metrics.items()} == pytest.approx(adjusted)
    one, many = alone.metrics["ttft_mean_ms"], family.metrics["ttft_mean_ms"]
    assert (one.verdict, many.verdict) == ("different but negligible", "equivalent")
    k = family.family.size
    assert k == len(p) > 4
    inner, outer = many.b_to_a, many.family_interval
    assert outer.confidence == pytest.approx(1 - 0.05 / k, abs=1e-4)
    assert outer.low < inner.low < inner.high < outer.high
    assert (one.family_interval.low, one.family_interval.confidence) == (one.b_to_a.low, 0.95)


# Pairs


def two_arms(path, drift, factor):
    """One interleaved campaign of two arms; every block is slower than the one before."""
    rows, entries = [], []
    for block in range(6):
        for place, (arm, scale) in enumerate((("old", 1.0), ("new", factor))):
            number = 2 * block + place
            rows += runs([60 * scale * drift**block * (1 + 0.002 * (-1) ** number)], first=number)
            entries.append(run(number, WINDOW, offered=None, block=block, arm=arm))
    design = {"arms": [{"name": "old", "agents": []}, {"name": "new", "agents": []}], "primary": "old", "blocks": 6}
    design["planned"] = [[block, arm] for block in range(6) for arm in ("old", "new")]
    return directory(path, rows, runs=entries, design=design, wall_start="2025-01-01T00:00:00Z")


def test_arms_of_one_campaign_with_too_few_common_blocks_are_no_pairs_and_no_separate_campaigns(tmp_path):
    path = two_arms(tmp_path / "c", drift=1.0, factor=1.1)
    manifest = json.loads((path / "manifest.json").read_text())
    for entry in manifest["runs"]:  # the arms were made one after the other, in blocks of their own
        entry["block"] += 10 if entry["arm"] == "new" and entry["block"] > 1 else 0
    (path / "manifest.json").write_text(json.dumps(manifest))
    comparison = compare(read_side(path, "old"), read_side(path, "new"))
    assert comparison.paired is False
    assert comparison.pairing_code == note(NoteCode.FEW_COMMON_BLOCKS, least=3, blocks=2)


def test_arms_of_one_campaign_are_compared_block_by_block(tmp_path):
    path = two_arms(tmp_path / "c", drift=1.05, factor=1.10)
    comparison = compare(read_side(path, "old"), read_side(path, "new"), metrics=["ttft_mean_ms"])
    shown = comparison.metrics["ttft_mean_ms"]
    assert (comparison.paired, comparison.pairing_code) == (True, note(NoteCode.PAIRED_BLOCKS, blocks=6))
    assert (shown.verdict, shown.df, shown.secondary.exact_test) == ("different", 5, "sign flip")
    assert shown.b_to_a.value == pytest.approx(1.10 * 0.998 / 1.002, rel=1e-6)
    # The drift of 28 % over the campaign, which is in both arms alike, would hide it from a test of unpaired runs.
    unpaired = ratio.log_welch(shown.b.values, shown.a.values)
    assert unpaired.low < 1 < unpaired.high
    assert (comparison.a.arm, comparison.b.arm, comparison.a.runs) == ("old", "new", 6)


def test_an_arm_that_is_not_there_is_named(tmp_path):
    path = two_arms(tmp_path / "c", drift=1.0, factor=1.1)
    with pytest.raises(ValueError, match="no arm named 'odl'; there is old, new"):
        read_side(path, "odl")


def test_pairs_on_request_where_the_numbers_allow_it(a, tmp_path):
    b = campaign(tmp_path / "b", scaled(1.01))
    comparison = compare(a, b, paired=True, metrics=["ttft_mean_ms"])
    expected = ratio.log_paired(scaled(1.01), RUNS_MS)
    assert comparison.pairing_code == note(NoteCode.PAIRED_AS_ASKED, pairs=6)
    assert comparison.metrics["ttft_mean_ms"].b_to_a.low == pytest.approx(expected.low, rel=1e-6)
    fewer = compare(a, campaign(tmp_path / "c", scaled(1.01)[:5]), paired=True, metrics=["ttft_mean_ms"])
    assert (fewer.paired, fewer.metrics["ttft_mean_ms"].method) == (False, "Welch's t on logs")
    assert fewer.pairing_code == note(NoteCode.NO_PAIRS, a=6, b=5)


# What is refused, or marked


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_runs_have_a_ratio_and_no_interval(a, tmp_path, n):
    comparison = compare(a, campaign(tmp_path / "b", scaled(2.0)[:n]))
    for shown in comparison.metrics.values():
        assert (shown.verdict, shown.b_to_a.low, shown.p) == ("inconclusive", None, None)
        assert shown.why_code.code is NoteCode.TOO_FEW_RUNS
        assert shown.why_code.data["runs"] == n
    assert comparison.metrics["ttft_mean_ms"].b_to_a.value == pytest.approx(2, rel=0.05)
    assert comparison.gate.verdict == "undecided"
    assert "at least 3 are needed" in as_text(comparison_document(comparison)).replace("\n  ", " ")


def test_three_runs_are_few(tmp_path):
    comparison = compare(campaign(tmp_path / "a", RUNS_MS[:3]), campaign(tmp_path / "b", scaled(1.5)[:3]))
    assert NoteCode.FEW_RUNS in codes(comparison.metrics["ttft_mean_ms"])
    assert comparison.metrics["ttft_mean_ms"].secondary.agrees is None  # no exact p of 3 v 3 is below 0.1


def test_a_side_that_failed_is_refused_with_its_reason(a, tmp_path):
    dead = campaign(tmp_path / "dead", RUNS_MS, failed=20)
    with pytest.raises(NotComparableError, match=r"dead: failed, so it says nothing about the server: \S"):
        compare(a, dead)


def test_a_limited_generator_is_refused(a, tmp_path):
    late = campaign(tmp_path / "late", RUNS_MS, manifest={"instrument": {"clock_jump_us": 1e9}})
    with pytest.raises(NotComparableError, match="generator-limited"):
        compare(late, a)


@pytest.mark.parametrize(("how", "why"), [("interrupted", "interrupted"), ("no_progress", "no progress")])
def test_runs_that_were_cut_short_are_left_out_and_listed(a, tmp_path, how, why):
    entries = [run(number, WINDOW, offered=None, **{how: number == 5}) for number in range(6)]
    b = campaign(tmp_path / "b", [*scaled(1.0)[:5], 600.0], entries=entries)
    comparison = compare(a, b)
    assert comparison.metrics["ttft_mean_ms"].b.n == 5
    assert comparison.note_codes == (note(NoteCode.RUNS_LEFT_OUT, side="B", runs=f"run 5 ({why})"),)
    assert (comparison.b.runs, comparison.b.requests) == (5, 100)


def test_a_run_that_stands_out_is_told_and_kept(a, tmp_path):
    comparison = compare(a, campaign(tmp_path / "b", [*RUNS_MS[:5], 90.0]), metrics=["ttft_mean_ms"])
    assert comparison.note_codes == (note(NoteCode.RUNS_STAND_OUT, side="B", runs="5"),)
    assert comparison.metrics["ttft_mean_ms"].b.n == 6


def test_planned_runs_that_are_missing_are_told(a, tmp_path):
    design = {"arms": [{"name": "main", "agents": []}], "primary": "main", "blocks": 8}
    entries = [run(number, WINDOW, offered=None, block=number, arm="main") for number in range(6)]
    planned = [[block, "main"] for block in range(8)]
    b = campaign(tmp_path / "b", RUNS_MS, entries=entries, manifest={"design": {**design, "planned": planned}})
    assert compare(a, b).note_codes == (note(NoteCode.RUNS_MISSING, side="B", runs=2),)


def test_a_difference_below_the_stamp_error_is_marked(tmp_path):
    """10 % of 60 ms, and a client whose stamps are wrong by up to 4 ms."""
    coarse = {"instrument": {"calibration": {"ttft_bias_us": 0.0, "ttft_halfwidth_us": 4000.0}}}
    sides = [campaign(tmp_path / "a", RUNS_MS, manifest=coarse), campaign(tmp_path / "b", scaled(1.1), manifest=coarse)]
    shown = compare(*sides).metrics
    assert codes(shown["ttft_mean_ms"]) == [NoteCode.WITHIN_STAMP_ERROR]
    assert codes(shown["requests_per_s"]) == []


def test_answers_of_another_length_are_compared_per_token_only(a, tmp_path):
    comparison = compare(a, campaign(tmp_path / "b", RUNS_MS, tokens=6))
    assert comparison.fairness.output_tokens.difference == pytest.approx(0.2)
    (differ,) = comparison.fairness.note_codes
    assert differ == note(NoteCode.LENGTHS_DIFFER, share=pytest.approx(0.2), a=5, b=6)
    refused = {name for name, shown in comparison.metrics.items() if shown.why}
    assert refused == {"ttft_mean_ms", "ttft_p50_ms", "ttft_p99_ms", "e2e_mean_ms", "requests_per_s"}
    assert set(comparison.family.metrics) == {"tpot_mean_ms", "output_tokens_per_s", "success_rate"}
    assert comparison.metrics["tpot_mean_ms"].verdict == "equivalent"


def test_a_zero_has_no_ratio(tmp_path):
    sides = [campaign(tmp_path / name, RUNS_MS, manifest={"objectives": {"ttft_p99_ms": 60}}) for name in "ab"]
    shown = compare(*sides).metrics["goodput_per_s"]
    assert 0 in shown.a.values
    assert (shown.verdict, shown.why_code.code) == ("inconclusive", NoteCode.NO_RATIO_OF_ZERO)


def test_a_metric_that_one_side_lacks_is_inconclusive(a):
    shown = compare(a, a, metrics=["goodput_per_s"]).metrics["goodput_per_s"]
    assert (shown.verdict, shown.why_code) == ("inconclusive", note(NoteCode.NO_VALUE, sides="A and B"))


def test_wrong_names_and_margins(a):
    with pytest.raises(ValueError, match="ttft_ms: no metric to compare; there is ttft_mean_ms"):
        compare(a, a, metrics=["ttft_ms"])
    with pytest.raises(ValueError, match="a margin must be > 0"):
        compare(a, a, margin=0)


# Success rates


def test_success_rates_differ_by_points_and_survivors_are_marked(a, tmp_path):
    comparison = compare(a, campaign(tmp_path / "b", RUNS_MS, failed=4))
    shown = comparison.metrics["success_rate"]
    assert (shown.scale, shown.verdict, shown.direction) == ("points", "different", "worse")
    assert shown.b_to_a.value == pytest.approx(-0.2)
    # No run differs from its neighbours, so that the runs alone would leave no doubt: the counts do.
    assert shown.b_to_a.low < -0.2 < shown.b_to_a.high < 0
    assert {"requests_per_s", "output_tokens_per_s", "success_rate"} <= set(comparison.gate.worse)
    assert NoteCode.SURVIVORS_ONLY_ON in codes(comparison.metrics["ttft_mean_ms"])
    assert "survivors only on B: 20.0% of the requests failed" in comparison.metrics["ttft_mean_ms"].notes


def test_no_failure_among_few_requests_is_not_equivalent_to_another(tmp_path):
    few = [campaign(tmp_path / name, RUNS_MS[:3], requests=5) for name in "ab"]
    assert compare(*few).metrics["success_rate"].verdict == "inconclusive"
    many = [campaign(tmp_path / name, RUNS_MS, requests=40) for name in "cd"]
    assert compare(*many).metrics["success_rate"].verdict == "equivalent"


# What could be found


def test_minimum_detectable_effect_and_runs_needed(tmp_path):
    rng = np.random.default_rng(2)
    a, b = (60 * rng.lognormal(0, 0.10, 5) for _ in range(2))
    comparison = compare(campaign(tmp_path / "a", a), campaign(tmp_path / "b", b), metrics=["ttft_mean_ms"])
    found = comparison.metrics["ttft_mean_ms"].detectable
    sd = math.sqrt((np.log(a).var(ddof=1) + np.log(b).var(ddof=1)) / 2)
    assert found.least == pytest.approx(math.exp(2.024 * sd), rel=1e-3)  # K40, unpaired n = 5
    # Two-sided t at 5 % and 80 % power needs about 2 (1.96 + 0.84)^2 (sd / effect)^2 runs a side, and one or two more.
    normal = 2 * (1.95996 + 0.84162) ** 2 * (sd / math.log(1.05)) ** 2
    assert normal < found.runs_needed < normal + 3


def test_pairs_have_an_effect_of_their_own(tmp_path):
    noise = np.array([0.1, -0.08, 0.05, -0.11, 0.07, -0.03])
    b = np.array(RUNS_MS) * np.exp(noise)
    comparison = compare(
        campaign(tmp_path / "a", RUNS_MS), campaign(tmp_path / "b", b), metrics=["ttft_mean_ms"], paired=True
    )
    found = comparison.metrics["ttft_mean_ms"].detectable
    assert found.least == pytest.approx(math.exp(1.435 * noise.std(ddof=1)), rel=1e-3)  # K40, paired n = 6


# Fairness


def side_with(path, model, seed, start):
    entries = [
        run(number, WINDOW, offered=None, wall_start=f"2025-01-01T{start:02}:{number:02}:00Z") for number in range(6)
    ]
    target = {"name": "a", "url": "http://a", "api": "openai", "model": model, "version": "vLLM 1"}
    manifest = {"targets": [target], "seed": seed, "loadgen": "0.1.0"}
    return campaign(path, RUNS_MS, entries=entries, manifest=manifest)


def test_fairness_sets_side_by_side_what_could_be_the_reason(tmp_path):
    a = side_with(tmp_path / "a", "llama-3-8b-Q4_K_M", 1, start=3)
    b = side_with(tmp_path / "b", "llama-3-8b-Q8_0", 1, start=5)
    fair = compare(a, b).fairness
    facts = {fact.name: (fact.a, fact.b, fact.same) for fact in fair.facts}
    assert facts["quantisation"] == (["q4_k_m"], ["q8_0"], False)
    assert facts["server"] == (["vLLM 1"], ["vLLM 1"], True)
    assert facts["seed"] == (1, 1, True)
    assert facts["client"] == (None, None, None)
    assert (fair.prompts.a, fair.prompts.b, fair.prompts.shared) == (120, 120, 120)
    assert NoteCode.NOT_INTERLEAVED in codes(fair)
    assert NoteCode.NOT_INTERLEAVED not in codes(compare(a, a).fairness)


@pytest.mark.parametrize(
    ("model", "quantisation"),
    [
        ("qwen2.5:7b-instruct-q4_K_M", "q4_k_m"),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", "awq"),
        ("mlx-community/Llama-3.2-3B-4bit", "4bit"),
        ("meta-llama/Llama-3.1-8B-FP8", "fp8"),
        ("Qwen/Qwen2-7B", None),
        ("gpt-4", None),
    ],
)
def test_quantisation_as_names_tell_it(tmp_path, model, quantisation):
    side = side_with(tmp_path / "a", model, 1, start=3)
    facts = {fact.name: fact.a for fact in compare(side, side).fairness.facts}
    assert facts["quantisation"] == (None if quantisation is None else [quantisation])


# Reports


HOSTILE = "<script>alert(1)</script>|`x`\x1b[31m"


@pytest.fixture
def hostile(a, tmp_path):
    return compare(a, side_with(tmp_path / "b", HOSTILE, 2, start=4))


def test_the_text_fits_a_terminal(a, hostile, tmp_path):
    few = compare(a, campaign(tmp_path / "few", RUNS_MS[:2], failed=3))
    wild = compare(a, campaign(tmp_path / "wild", np.array(RUNS_MS) * [1, 30, 2, 9, 100, 3]))
    for comparison in (hostile, few, wild, compare(a, a, metrics=["ttft_p50_ms"])):
        text = as_text(comparison_document(comparison))
        assert max(map(len, text.splitlines())) <= 80
        assert "\x1b" not in text
        for shown in comparison.metrics.values():
            assert f"\n{shown.label}" in text


def test_what_a_server_says_is_no_markup(hostile):
    page, markdown = as_page(comparison_document(hostile)), as_markdown(comparison_document(hostile))
    assert "<script" not in page
    assert re.search(r"(?<!\\)<script", markdown) is None
    assert "&lt;script&gt;alert(1)" in page
    loads = [word for word in ("src=", "href=", "url(", "@import", "<link") if word in page]
    assert loads == []


def test_the_page_draws_each_ratio_inside_the_picture(a, tmp_path):
    wild = compare(a, campaign(tmp_path / "wild", np.array(RUNS_MS) * [1, 30, 2, 9, 100, 3]))
    page = as_page(comparison_document(wild))
    assert page.count("<circle") == sum(shown.scale == "ratio" for shown in wild.metrics.values())
    places = [float(part.split('"')[0]) for part in page.split('cx="')[1:]]
    assert all(170 <= place <= 970 for place in places)


def test_the_dict_is_json(hostile):
    assert json.loads(json.dumps(hostile.to_json(), allow_nan=False))["schema"] == "loadgen.compare/1"


# As the program printed it before


FIXTURES = Path(__file__).parents[2] / "fixtures" / "b318a7d"
GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="module")
def old_directories():
    """A comparison of two directories that the code of b318a7d made."""
    a, b = (replace(read_side(FIXTURES / name), name=name) for name in ("five", "five-b"))
    return compare(a, b)


def test_a_comparison_of_old_directories_prints_as_it_did(old_directories):
    assert as_text(comparison_document(old_directories)) == (FIXTURES / "compare.txt").read_text(encoding="utf-8")


def test_the_json_of_old_directories_has_the_keys_and_values_it_had(old_directories):
    was = json.loads((FIXTURES / "compare.json").read_text(encoding="utf-8"))
    assert without_codes(json.loads(json.dumps(old_directories.to_json()))) == was


def without_codes(plain):
    """The JSON without what stands beside the sentences since."""
    if isinstance(plain, list):
        return [without_codes(value) for value in plain]
    if not isinstance(plain, dict):
        return plain
    return {key: without_codes(value) for key, value in plain.items() if not key.endswith(("_code", "_codes"))}


def test_the_markdown_is_the_golden_one(old_directories):
    printed = as_markdown(comparison_document(old_directories))
    assert printed == (GOLDEN / "comparison.md").read_text(encoding="utf-8")

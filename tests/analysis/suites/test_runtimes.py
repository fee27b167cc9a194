"""The table of runtimes and what is said of it, from run directories with known values."""

from __future__ import annotations

import json
import math
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import analysis
from analysis.estimate import Estimate, Note, NoteCode, note, refused
from analysis.report.html import as_page
from analysis.report.markdown import as_markdown
from analysis.report.runtimes import runtimes_document
from analysis.report.text import as_text
from analysis.stats import planning
from analysis.suites.runtimes import Contended, LoopLag, RuntimesSummary, summarise_runtimes

SETTINGS = {"tier": "kernel", "loop": "uvloop", "read_bytes": None, "permits": None}
FIXTURE = Path(__file__).parents[2] / "fixtures" / "b318a7d" / "agents"


@cache
def whole_summary() -> dict[str, Any]:
    """A real campaign's summary, whose keys are all there; tests write their values over some of them."""
    plain: dict[str, Any] = json.loads(analysis.summarise(FIXTURE).to_json())
    return plain


def write(directory: Path, efficiencies: dict[str, list[list[float]]], tokens: float = 1.0) -> None:
    """Lay out what a comparison leaves. efficiencies: by variant, of each configuration, of each block.

    Two agents need 1 s and 3 s alone; the makespan is what gives the efficiency. tokens: together over alone.
    """
    cells = []
    for name, configurations in efficiencies.items():
        for number, values in enumerate(configurations):
            place = f"{name}/{number}"
            cells.append({"variant": name, "configuration": str(number), "directory": place, "scenario": "homo"})
            (directory / place).mkdir(parents=True)
            summary = whole_summary() | {"verdict": "ok", "missing_runs": [], "agents": section(values, tokens)}
            lag = {"p50": 0.1 + number, "p99": 1.0, "max": 2.0}
            (directory / place / "summary.json").write_text(json.dumps(summary))
            (directory / place / "manifest.json").write_text(json.dumps({"instrument": {"loop_lag_ms": lag}}))
    manifest = {
        "seed": 1,
        "order": "randomised",
        "blocks": 5,
        "variants": [{"name": name, **SETTINGS, "read_bytes": 1024 << at} for at, name in enumerate(efficiencies)],
        "control": "one-permit",
        "left_out": {"aiohttp": "it is not there"},
        "cells": cells,
        "tests": [{"id": cell["directory"], "missing_runs": 0, "error": None} for cell in cells],
    }
    (directory / "runtimes.json").write_text(json.dumps(manifest))


def text_of(summary: RuntimesSummary) -> str:
    return as_text(runtimes_document(summary))


def in_all_forms(summary: RuntimesSummary) -> tuple[str, str, str]:
    """The report as text, as Markdown without the signs that escape, and as a page."""
    document = runtimes_document(summary)
    return as_text(document), as_markdown(document).replace("\\", ""), as_page(document)


FIGURES = ("speedup", "stretch", "balance", "overlap_efficiency", "combined_over_solo", "fairness")


def figure(*notes: Note) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(refused(notes[0]).figure() if notes else Estimate(1.0, n=1).figure())
    return plain


def section(values: list[float], tokens: float) -> dict[str, Any]:
    runs = []
    for block, value in enumerate(values):
        alone = {"run": 3 * block, "left_out": None, "block": block, "concurrent": False}
        alone |= {"overlap": None, "makespan_s": None, "start_s": {}}
        runs += [{**alone, "wall_s": {"a": 1.0}, "output_tokens": {"a": 10}}]
        runs += [{**alone, "wall_s": {"b": 3.0}, "output_tokens": {"b": 10}}]
        runs += [
            {
                "run": 3 * block + 2,
                "left_out": None,
                "block": block,
                "concurrent": True,
                "start_s": {},
                "wall_s": {"a": 1.0, "b": 3.0},
                "makespan_s": 2.0 / value,
                "overlap": 2 * value,
                "output_tokens": {"a": 10 * tokens, "b": 10 * tokens},
            }
        ]
    real = whole_summary()["agents"]
    return real | {
        "names": ["a", "b"],
        "runs": {"concurrent": len(values), "solo": 2 * len(values)},
        **dict.fromkeys(FIGURES, figure()),
        "efficiency": figure(*([] if tokens == 1 else [Note(NoteCode.UNEQUAL_WORK, {"agents": "a: 20 against 10"})])),
        "per_agent": {},
        "contention": real["contention"]
        | {"verdict": "none", "rules_runs": {"speedup<1.5": sum(value < 0.75 for value in values)}},
        "per_run": runs,
    }


ALIKE = {
    "kernel": [[0.96, 0.98, 0.97, 0.99, 0.95]],
    "callback": [[0.97, 0.95, 0.98, 0.96, 0.98]],
    "asyncio": [[0.98, 0.96, 0.96, 0.99, 0.97]],
    "one-permit": [[0.4999, 0.5, 0.5001, 0.5, 0.4999]],
}


def test_the_table_has_runs_and_configurations_apart(tmp_path: Path) -> None:
    write(tmp_path, {"kernel": [[0.9, 0.8, 0.7], [0.5, 0.6, 0.64]]})
    (line,) = summarise_runtimes(tmp_path).variants
    told = line.efficiency
    assert (told.runs, told.peak, told.minimum) == (6, 0.9, 0.5)
    assert told.median == pytest.approx((0.64 + 0.7) / 2)
    assert told.sd_of_runs == pytest.approx(math.sqrt(0.0206))
    assert told.sd_of_configuration_means == pytest.approx((0.8 - 0.58) / math.sqrt(2))
    blocks = [math.sqrt(0.45), math.sqrt(0.48), math.sqrt(0.448)]
    assert told.mean.value == pytest.approx(math.prod(blocks) ** (1 / 3))
    # Configurations that differ are no noise: the interval is that of the three blocks.
    assert told.mean.high - told.mean.low < 0.1
    assert line.contended == Contended(rule="speedup<1.5", runs=4, of=6)
    assert line.loop_lag_ms == LoopLag(p50=1.1, p99=1.0, max=2.0)


def test_unequal_work_is_compared_by_token_rates(tmp_path: Path) -> None:
    write(tmp_path, {"kernel": [[0.25, 0.25, 0.25]]}, tokens=2.0)
    (line,) = summarise_runtimes(tmp_path).variants
    assert line.efficiency.mean.value == pytest.approx(0.5)
    assert line.overlap_efficiency.mean.value == pytest.approx(0.25)


def test_runtimes_that_are_alike_are_said_to_be_as_far_as_that_is_known(tmp_path: Path) -> None:
    write(tmp_path, ALIKE)
    summary = summarise_runtimes(tmp_path)
    first = summary.comparisons[0]
    assert first.figure == "efficiency"
    assert first.variants == ("kernel", "callback", "asyncio")  # the control is in no test
    assert first.separated is False
    assert first.alexander_govern.p > 0.5
    assert {pair.verdict for pair in first.pairs} == {"equivalent"}
    assert first.conclusion_code.code is NoteCode.NONE_SEPARATES
    assert first.conclusion.startswith("none of the 3 working runtimes separates from the others (Alexander-Govern")
    assert first.conclusion.endswith("3 of 3 pairs are equivalent within 5 %")
    assert all(one.holds for one in summary.control.figures.values())
    assert [pair.detectable for pair in first.pairs] == [None] * 3
    assert "so many runs find" not in text_of(summary)
    strict = summarise_runtimes(tmp_path, margin=0.001).comparisons[0]
    assert {pair.verdict for pair in strict.pairs} == {"inconclusive"}
    assert strict.conclusion.endswith("0 of 3 pairs are equivalent within 0.1 %; of the rest these runs cannot tell")


def test_pairs_that_cannot_be_told_say_what_could_have_been(tmp_path: Path) -> None:
    write(tmp_path, ALIKE)
    summary = summarise_runtimes(tmp_path, margin=0.001, against="kernel")
    first = summary.comparisons[0]
    kernel, callback = (np.log(ALIKE[name][0]) for name in ("kernel", "callback"))
    sd = math.sqrt((kernel.var(ddof=1) + callback.var(ddof=1)) / 2)
    for family in ("pairs", "dunnett"):
        effect = planning.minimum_detectable(5, 5, size=0.05 / len(getattr(first, family)))
        seen = getattr(first, family)[0].detectable
        assert seen.least == pytest.approx(math.exp(effect * sd))
        assert (seen.power, seen.runs) == (0.8, 5)
        assert seen.runs_needed > 5
    # Three pairs share the error of one test, so that each of them finds less than it would alone.
    assert first.pairs[0].detectable.least > math.exp(planning.minimum_detectable(5, 5) * sd)
    least = [pair.detectable.least for pair in first.pairs]
    for text in in_all_forms(summary):
        told = " ".join(text.split())
        assert (
            "parallel efficiency, all pairs by Games-Howell, where inconclusive: so many runs find a ratio of " in told
        )
        assert f"{min(least):.3f} to {max(least):.3f}, by the pair, 80% of the time; for 1.001: " in told
        assert "against kernel by Dunnett, where inconclusive" in told


def test_a_runtime_that_is_slower_separates(tmp_path: Path) -> None:
    write(tmp_path, ALIKE | {"asyncio": [[0.80, 0.82, 0.81, 0.79, 0.80]]})
    summary = summarise_runtimes(tmp_path, against="kernel")
    first = summary.comparisons[0]
    assert first.separated is True
    verdicts = {(pair.a, pair.b): pair.verdict for pair in first.pairs}
    assert verdicts == {
        ("kernel", "callback"): "equivalent",
        ("kernel", "asyncio"): "different",
        ("callback", "asyncio"): "different",
    }
    ratio = first.pairs[1].ratio
    assert ratio.value == pytest.approx(0.9699 / 0.8039, abs=1e-3)
    assert 1.1 < ratio.low < ratio.value < ratio.high
    assert first.conclusion_code.code is NoteCode.PAIRS_SEPARATE
    assert (first.conclusion_code.data["apart"], first.conclusion_code.data["pairs"]) == (2, 3)
    assert [(one.a, one.b) for one in first.dunnett] == [("callback", "kernel"), ("asyncio", "kernel")]
    assert first.dunnett[1].p < 0.001 < first.dunnett[0].p
    assert "against kernel by Dunnett" in text_of(summary)
    assert max(map(len, text_of(summary).splitlines())) <= 80


def test_two_runs_are_too_few_to_test(tmp_path: Path) -> None:
    write(tmp_path, {name: [values[:2] for values in one] for name, one in ALIKE.items()})
    for one in summarise_runtimes(tmp_path).comparisons:
        assert (one.separated, one.pairs) == (None, ())
        assert one.conclusion_code == note(NoteCode.NOT_TESTED_FEW_RUNS, runs=2, least=3)


def test_a_control_that_is_off_is_told(tmp_path: Path) -> None:
    write(tmp_path, ALIKE | {"one-permit": [[0.55, 0.56, 0.55, 0.56, 0.55]]})
    summary = summarise_runtimes(tmp_path)
    assert not any(one.holds for one in summary.control.figures.values())
    assert "50.0 % by design" in text_of(summary)
    assert "which it should NOT be" in text_of(summary)


def test_a_variant_without_a_whole_concurrent_run_has_a_line_and_no_figures(tmp_path: Path) -> None:
    write(tmp_path, ALIKE)
    path = tmp_path / "callback/0/summary.json"
    summary = json.loads(path.read_text())
    # As the section has it where every concurrent run had a call that failed.
    summary["agents"] |= {"runs": {"concurrent": 0, "solo": 10}, "efficiency": figure()}
    summary["agents"]["contention"] |= {"verdict": "unknown", "rules_runs": {"speedup<1.5": None}}
    for run in summary["agents"]["per_run"]:
        run["left_out"] = "a call ended in refused" if run["concurrent"] else None
    path.write_text(json.dumps(summary))
    told = summarise_runtimes(tmp_path)
    (line,) = (one for one in told.variants if one.name == "callback")
    assert line.contended == Contended(rule="speedup<1.5", runs=0, of=0)
    assert (line.efficiency.runs, line.efficiency.mean.value) == (0, None)
    assert "callback" in text_of(told)


def test_what_is_missing_and_left_out_is_in_the_report(tmp_path: Path) -> None:
    write(tmp_path, ALIKE)
    shutil.rmtree(tmp_path / "callback/0")
    manifest = json.loads((tmp_path / "runtimes.json").read_text())
    manifest["tests"][1] |= {"missing_runs": None, "error": "127.0.0.1:9: nobody answers"}
    (tmp_path / "runtimes.json").write_text(json.dumps(manifest))
    summary = summarise_runtimes(tmp_path)
    assert summary.missing == ("callback/0",)
    assert summary.comparisons[0].not_tested == ("callback",)
    _, _, page = in_all_forms(summary)
    assert page.count("<circle") >= 2 * sum(line.efficiency.runs > 0 for line in summary.variants) > 0
    assert "<script" not in page
    for told in in_all_forms(summary):
        for words in ("aiohttp left out: it is not there", "nobody answers", "not measured", "incomplete or missing"):
            assert words in " ".join(told.split())
    assert max(map(len, text_of(summary).splitlines())) <= 80

"""`loadgen compare` as a script uses it: exit codes, one line on stderr, and servers of known speed distinguished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadgen.emulator import Law, spawn
from tests.fakes.command import run_here, run_there

# A gap so long that hardly any two tokens are read together, even on a busy machine.
TTFT_S, GAP_S = 0.02, 0.02
SHORT = ("--concurrency", "8", "--requests", "40", "--input-tokens", "16", "--output-tokens", "6", "--runs", "6")


def measured(folder: Path, name: str, factor: float, seed: int, *more: object) -> Path:
    law = Law(ttft_s=TTFT_S * factor, gap_s=GAP_S * factor, jitter=0.1, seed=seed)
    with spawn(law, presents="openai") as emulator:
        result = run_there(
            *("run", "--url", emulator.url, *SHORT, "--seed", "7", "--out", folder / name, "--no-progress", *more)
        )
    assert result.code == 0, result.out + result.err
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("compared")


@pytest.fixture(scope="module")
def before(folder) -> Path:
    return measured(folder, "before", 1.0, seed=1)


@pytest.fixture(scope="module")
def slower(folder, before) -> Path:
    return measured(folder, "slower", 1.1, seed=2)


GATED = ("--metric", "e2e_mean_ms", "--metric", "tpot_mean_ms")


def test_a_server_ten_percent_slower_is_found(before, slower):
    result = run_here("compare", before, slower, *GATED, "--gate", "--json")
    told = result.json()
    assert result.code == 1
    assert told["gate"] == {"verdict": "worse", "worse": ["e2e_mean_ms", "tpot_mean_ms"], "undecided": []}
    for name in ("e2e_mean_ms", "tpot_mean_ms"):
        shown = told["metrics"][name]
        assert (shown["verdict"], shown["direction"], shown["a"]["n"]) == ("different", "worse", 6)
        # What the machine adds to both, a fraction of a millisecond in 20, brings the ratio nearer to 1, never further.
        assert 1.05 < shown["b_to_a"]["value"] < 1.12
        listed = json.loads((before / "summary.json").read_text())["over_runs"][name.replace("_mean", "")]["values"]
        assert shown["a"]["values"] == listed
    assert told["fairness"]["prompts"] == {"a": 240, "b": 240, "shared": 240}
    assert {fact["name"]: fact["same"] for fact in told["fairness"]["facts"]}["model"] is True


def test_without_a_gate_a_difference_is_no_error(before, slower):
    result = run_here("compare", before, slower, *GATED)
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("\n\nB is worse: E2E mean, TPOT mean\n")
    assert max(map(len, result.out.splitlines())) <= 80


def test_the_other_way_round_the_gate_holds(before, slower):
    assert run_here("compare", slower, before, *GATED, "--gate").code == 0


def test_a_margin_of_half_forgives_a_tenth(before, slower):
    result = run_here("compare", before, slower, *GATED, "--gate", "--margin", "50%")
    assert result.code == 0
    assert "different, negligible" in result.out


def test_the_page_and_the_markdown(before, slower, tmp_path):
    page = tmp_path / "compared.html"
    result = run_here("compare", before, slower, "--format", "markdown", "--out", page)
    assert result.out.startswith("# Comparison\n")
    assert "| E2E mean, ms |" in result.out
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_an_undecided_metric_closes_the_gate(folder, before):
    few = measured(folder, "few", 1.0, 3, "--runs", "2")
    result = run_here("compare", before, few, *GATED, "--gate")
    assert result.code == 3
    assert "no interval from 2 runs a side: at least 3 are needed" in " ".join(result.out.split())


WRONG = {
    "twice": (("{a}", "{a}"), "is compared with itself; name two directories"),
    "missing": (("{a}", "{a}-none"), "neither records.parquet nor journal/*.parquet nor manifest.json in it"),
    "arm": (("{a}", "{a}:nobody"), "no arm named 'nobody'; there is main"),
    "margin": (("{a}", "{b}", "--margin", "lots"), "--margin lots: must be between 0 and 100 %, such as 5%"),
    "margin of all": (("{a}", "{b}", "--margin", "100%"), "--margin 100%: must be between"),
    "metric": (("{a}", "{b}", "--metric", "ttft"), "ttft: no metric to compare; there is ttft_mean_ms"),
    "format": (("{a}", "{b}", "--format", "pdf"), "--format pdf: choose one of text, markdown, json"),
    "page": (("{a}", "{b}", "--out", "{a}/none/page.html"), "cannot be written: No such file or directory"),
}


@pytest.mark.parametrize(("arguments", "line"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_line_and_code_two(before, slower, arguments, line):
    result = run_here("compare", *(word.format(a=before, b=slower) for word in arguments))
    assert result.code == 2
    assert line in result.line


def test_a_run_in_which_every_request_failed_is_void(folder, before):
    with spawn(Law(), presents="openai", faults=("503=1",)) as emulator:
        run_there("run", "--url", emulator.url, *SHORT, "--out", folder / "dead", "--no-progress")
    result = run_here("compare", before, folder / "dead")
    assert result.code == 4
    assert "dead: failed, so it says nothing about the server: " in result.line

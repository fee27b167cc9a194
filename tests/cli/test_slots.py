"""`loadgen slots` against emulators whose slots and caches are known, over real sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadgen.cli.app import run_app
from loadgen.cli.exits import Exit
from loadgen.emulator import Law, spawn
from loadgen.probes.probe import prompt
from loadgen.record import PROBE_RUN

Capture = pytest.CaptureFixture[str]


def quick(**how: Any) -> Law:
    """Return a law by which 32 tokens take 67 ms."""
    return Law(ttft_s=0.005, gap_s=0.002, **how)


def probed(capsys: Capture, url: str, *arguments: str, code: Exit = Exit.OK) -> dict[str, Any]:
    """Run the command; return its JSON, having checked the exit code and that nothing else was printed."""
    assert run_app(["slots", "--url", url, "--json", "--quiet", "--seed", "7", *arguments]) == code
    out, err = capsys.readouterr()
    assert (err == "") == (code == Exit.OK)
    result: dict[str, Any] = json.loads(out)
    assert result["schema"] == "loadgen.slots/1"
    return result


@pytest.mark.parametrize("slots", [1, 2, 4, 8])
@pytest.mark.parametrize("how", [{}, {"jitter": 0.2, "batch_slope_s": 0.001}], ids=["exact", "jitter-and-slope"])
def test_slots_of_ollama_are_found(capsys: Capture, slots: int, how: dict[str, float]) -> None:
    with spawn(quick(slots=slots, **how), presents="ollama") as emulator:
        result = probed(capsys, emulator.url, "--rounds", "3")
    assert result["verdict"] == "found"
    assert {key: result["slots"][key] for key in ("value", "low", "high")} == dict.fromkeys(
        ("value", "low", "high"), slots
    )
    assert result["slots"]["confidence"] > 0.95
    assert result["told"] is None  # Ollama does not say
    assert f"OLLAMA_NUM_PARALLEL={2 * slots}" in result["advice"][0]


def test_cold_load_before_the_first_answer_is_not_in_the_bursts(capsys: Capture) -> None:
    with spawn(quick(slots=2, load_s=0.5), presents="ollama") as emulator:
        result = probed(capsys, emulator.url, "--rounds", "3", "--most", "4")
    assert result["slots"]["value"] == 2
    assert result["sizes"][0]["ttft_first_ms"] < 250


def test_server_without_slots_gets_a_lower_bound(capsys: Capture) -> None:
    with spawn(quick(batch_slope_s=0.0005)) as emulator:
        result = probed(capsys, emulator.url, "--rounds", "3", "--most", "6", "--agents", "9")
    assert (result["verdict"], result["slots"]["value"], result["slots"]["low"]) == ("at-least", None, 6)
    assert result["advice"][1] == "9 agents are more than was tried: run again with --most 9"


def test_what_llamacpp_says_is_printed_beside(capsys: Capture) -> None:
    with spawn(quick(slots=2), presents="llamacpp") as emulator:
        result = probed(capsys, emulator.url, "--rounds", "3", "--most", "4")
    assert result["told"] == {"slots": 2, "from": "/props total_slots", "verdict": "agrees"}


def test_server_that_says_one_and_works_on_four_is_contradicted(capsys: Capture) -> None:
    # Without --slots the emulator has no limit, and its /props says 1.
    with spawn(quick(), presents="llamacpp") as emulator:
        assert run_app(["slots", "--url", emulator.url, "--rounds", "3", "--most", "4"]) == Exit.OK
    out, err = capsys.readouterr()
    assert "1 (/props total_slots), which DISAGREES with what was measured" in out
    assert "round 3 of 3" in err


def test_lm_studio_says_how_many_requests_a_model_takes_once_it_is_loaded(capsys: Capture) -> None:
    with spawn(quick(slots=3, load_s=0.2), presents="lmstudio") as emulator:
        result = probed(capsys, emulator.url, "--rounds", "3", "--most", "4")
    assert result["slots"]["value"] == 3
    assert result["told"] == {"slots": 3, "from": "/api/v1/models config.parallel", "verdict": "agrees"}
    assert "load the model with 6 parallel requests" in result["advice"][0]


def test_answers_too_short_to_tell_are_refused_with_the_cure(capsys: Capture) -> None:
    law = Law(ttft_s=0.05, gap_s=0.001, slots=1)
    with spawn(law, presents="ollama") as emulator:
        short = ("--rounds", "2", "--most", "4")
        result = probed(capsys, emulator.url, *short, "--output-tokens", "8", code=Exit.INCONCLUSIVE)
        assert result["slots"]["value"] is None
        assert result["reason"].startswith("the answers were too short to tell: the first one ended before the others")
        cure = result["reason"].rpartition("--output-tokens ")[2]
        assert (
            probed(capsys, emulator.url, "--rounds", "5", "--most", "2", "--output-tokens", cure)["slots"]["value"] == 1
        )


def test_refusals_by_chance_are_told_and_do_not_hide_the_number(capsys: Capture) -> None:
    with spawn(quick(slots=4), presents="ollama", faults=("503=1/20",)) as emulator:
        result = probed(capsys, emulator.url, "--rounds", "4")
    assert result["slots"]["value"] == 4
    assert "503" in result["turned_away"]
    assert sum(size["refused"] for size in result["sizes"]) > 0


def test_server_that_answers_nothing_ends_with_its_words(capsys: Capture) -> None:
    with spawn(quick(), presents="ollama", faults=("503=1",)) as emulator:
        assert run_app(["slots", "--url", emulator.url, "--quiet"]) == Exit.UNREACHABLE
    out, err = capsys.readouterr()
    assert out == ""
    assert "the first request ended as http_error" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--url", "http://127.0.0.1:9"], Exit.UNREACHABLE, "http://127.0.0.1:9: "),
        (["--url", "127.0.0.1"], Exit.USAGE, "http"),
        (["--url", "http://127.0.0.1:9", "--most", "1"], Exit.USAGE, "'1'"),
        (["--url", "http://127.0.0.1:9", "--api", "smoke"], Exit.USAGE, "smoke"),
        (["--url", "http://127.0.0.1:9", "--header", "X"], Exit.USAGE, "--header"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(capsys: Capture, arguments: list[str], code: Exit, words: str) -> None:
    assert run_app(["slots", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.alone
def test_prefix_cache_is_found_and_the_emulator_knows_which_prompts_it_had(capsys: Capture) -> None:
    # 512 words at 10,000 tokens/s are 51 ms, which a repeat does not cost.
    law = Law(ttft_s=0.02, gap_s=0.001, prefill_tokens_per_s=10_000, prefix_cache=True, jitter=0.05)
    with spawn(law) as emulator:
        result = probed(capsys, emulator.url, "--rounds", "3", "--most", "2", "--output-tokens", "64", "--cache")
        truth = [one for one in emulator.truth().values() if one.input_tokens >= 512]
    cache = result["cache"]
    assert cache["verdict"] == "polluted"
    assert cache["ratio"]["low"] < (20 + 51.2 - 51.2 * 496 / 512) / (20 + 51.2) < cache["ratio"]["high"]
    assert cache["ratio"]["n"] == 6
    assert cache["told"].startswith("496 of ")
    # One repeat in three requests, all but the last block of it cached.
    assert sorted(one.cached_tokens for one in truth) == [0] * 12 + [496] * 6


@pytest.mark.alone
def test_server_without_a_prefix_cache_is_clean(capsys: Capture) -> None:
    law = Law(ttft_s=0.06, gap_s=0.001, prefill_tokens_per_s=10_000)
    with spawn(law, presents="ollama") as emulator:
        result = probed(capsys, emulator.url, "--rounds", "6", "--most", "2", "--output-tokens", "64", "--cache")
        assert all(name.startswith(f"{PROBE_RUN}-") for name in emulator.truth())
    assert result["cache"]["verdict"] == "clean"


def test_no_two_prompts_begin_alike() -> None:
    made = [prompt(24, 7, number) for number in range(300)]
    assert len({" ".join(text.split()[:3]) for text in made}) == 300
    assert {len(text.split()) for text in made} == {24}
    assert prompt(24, 7, 5) == made[5] != prompt(24, 8, 5)


def test_the_result_as_markdown_and_as_a_page_that_loads_nothing(capsys: Capture, tmp_path: Path) -> None:
    with spawn(Law(slots=2, ttft_s=0.03, gap_s=0.005), presents="ollama") as emulator:
        out = tmp_path / "slots.html"
        words = ["slots", "--url", emulator.url, "--rounds", "2", "--most", "4", "--quiet"]
        assert run_app([*words, "--format", "markdown", "--out", str(out)]) in (Exit.OK, Exit.INCONCLUSIVE)
    assert capsys.readouterr().out.startswith("## Slots\n")
    page = out.read_text()
    assert page.count("<circle") >= 6  # a dot a burst
    assert "answers that began at once" in page
    assert "http://" not in page.replace(emulator.url, "")
    assert "<script" not in page


def test_an_unknown_format_is_one_line(capsys: Capture) -> None:
    assert run_app(["slots", "--url", "http://127.0.0.1:1", "--format", "pdf"]) == Exit.USAGE
    assert capsys.readouterr().err == "loadgen: --format pdf: choose one of text, markdown, json\n"

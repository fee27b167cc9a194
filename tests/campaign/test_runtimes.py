"""`loadgen runtimes` on the emulator: the control, what is left out, what is refused, and where it all lies."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loadgen.campaign.runtimes import CONTROL, VARIANTS, unavailable
from loadgen.emulator import Law, spawn
from loadgen.profile import load
from tests.fakes.command import Result, command, run_here
from tests.fakes.proxy import forward
from tests.fakes.talker import talking

LAW = Law(ttft_s=0.03, gap_s=0.01, instances=2)
SMALL = ("--workload", "micro", "--output-tokens", 12, "--seed", 3, "--no-progress")
NAMES = ("callback", CONTROL)


def runs_of(directory: Path) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads((directory / "manifest.json").read_text())["runs"]
    return runs


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> tuple[Path, Result]:
    """A working runtime and the control, two agents on two instances."""
    out = tmp_path_factory.mktemp("runtimes") / "out"
    with spawn(LAW, presents="ollama") as pair:
        where = [word for url in pair.urls for word in ("--url", url)]
        result = run_here("runtimes", *where, *SMALL, "--variants", ",".join(NAMES), "--runs", 3, "--out", out)
    return out, result


@pytest.fixture(scope="module")
def summary(compared) -> dict[str, Any]:
    out, result = compared
    assert result.code == 0, result.err
    told: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return told


def test_one_permit_gives_half_the_efficiency(summary) -> None:
    told = summary["control"]
    assert (told["variant"], told["expected"]) == (CONTROL, 0.5)
    for name in ("efficiency", "overlap_efficiency"):
        estimate = told["figures"][name]["estimate"]
        inside = estimate["low"] <= 0.5 <= estimate["high"]
        assert told["figures"][name]["holds"] is (inside or abs(estimate["value"] - 0.5) <= 0.005)
        assert estimate["value"] == pytest.approx(0.5, abs=0.02)
    assert told["figures"]["overlap_efficiency"]["holds"]
    line = summary["variants"][1]
    assert line["contended"] == {"rule": "speedup<1.5", "runs": 3, "of": 3}


def test_a_working_runtime_has_the_efficiency_of_independent_servers(summary) -> None:
    line = summary["variants"][0]
    assert (line["name"], line["tier"], line["permits"]) == ("callback", "callback", None)
    assert line["contended"]["runs"] == 0
    for name in ("efficiency", "overlap_efficiency"):
        one = line[name]
        assert one["runs"] == 3
        assert one["minimum"] <= one["median"] <= one["peak"]
        assert one["mean"]["value"] == pytest.approx(1.0, abs=0.1)
        assert one["sd_of_runs"] > 0
        assert one["sd_of_configuration_means"] is None  # of one configuration
    assert 0 < line["loop_lag_ms"]["p50"] <= line["loop_lag_ms"]["p99"] <= line["loop_lag_ms"]["max"]


def test_runs_are_made_in_turns_each_in_a_process_of_its_own(compared, summary) -> None:
    out, _ = compared
    plan = json.loads((out / "runtimes.json").read_text())
    assert (plan["seed"], plan["order"], plan["blocks"]) == (3, "randomised", 3)
    began = sorted((run["start_ns"], name, run["block"]) for name in NAMES for run in runs_of(out / name))
    assert [block for _, _, block in began] == [0] * 6 + [1] * 6 + [2] * 6
    assert [name for _, name, _ in began][::3] == [name for _, name, _ in plan["planned"]]
    for name in NAMES:
        manifest = json.loads((out / name / "manifest.json").read_text())
        assert manifest["design"]["isolation"] == "process"
        assert manifest["instrument"]["tier"] == VARIANTS[name].tier
        assert manifest["permits"] == (1 if name == CONTROL else 2)
    assert summary["missing"] == []


def test_the_control_is_in_no_test_and_one_runtime_has_nothing_to_differ_from(summary) -> None:
    assert [one["figure"] for one in summary["comparisons"]] == ["efficiency", "overlap_efficiency", "makespan_s"]
    assert [one["variants"] for one in summary["comparisons"]] == [["callback"]] * 3
    assert all(one["conclusion_code"] == {"code": "not-tested-alone"} for one in summary["comparisons"])


def test_the_report_fits_a_terminal_and_is_kept_as_markdown(compared) -> None:
    out, result = compared
    assert max(map(len, result.out.splitlines()[:-1])) <= 80
    for word in (*NAMES, "Parallel efficiency", "Overlap efficiency", "speedup<1.5", "lag p99", "50.0 % by design"):
        assert word in result.out
    told = (out / "report.md").read_text()
    assert "| one-permit | kernel |" in told
    assert told.startswith("## Runtimes\n")


def test_configurations_have_a_directory_each_and_what_is_not_available_is_left_out(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with spawn(LAW, presents="ollama") as pair, talking(forward) as proxy:
        result = run_here(
            *("runtimes", "agents-30", "--phases", "3", "--url", pair.urls[0], "--url", pair.urls[1], *SMALL),
            *("--proxy", f"http://127.0.0.1:{proxy.port}", "--variants", "kernel,callback,aiohttp", "--no-solo"),
            *("--runs", 1, "--json", "--out", out),
        )
    assert result.code == 0, result.err
    summary = result.json()
    reason = "a proxy stands between"
    assert summary["left_out"] == {"kernel": reason, "callback": reason}
    assert f"kernel left out: {reason}\n" in result.err
    assert [line["name"] for line in summary["variants"]] == ["aiohttp"]
    places = [f"aiohttp/phase_3_test_{number}" for number in (200, 201, 202)]
    assert sorted(cell["directory"] for cell in summary["cells"]) == places
    assert all((out / place / "records.parquet").is_file() for place in places)
    (line,) = summary["variants"]
    assert (line["efficiency"]["runs"], line["overlap_efficiency"]["runs"]) == (0, 3)
    assert line["overlap_efficiency"]["sd_of_configuration_means"] > 0
    assert [one["code"] for one in line["efficiency"]["mean"]["note_codes"]] == ["no-block-with-solo"]
    assert summary["comparisons"][0]["conclusion_code"]["code"] == "not-tested-few-runs"


def test_a_proxy_leaves_but_one_tier() -> None:
    assert [name for name, one in VARIANTS.items() if unavailable(one, "http://127.0.0.1:1") is None] == ["aiohttp"]
    assert {name for name, one in VARIANTS.items() if unavailable(one, None) is None} >= {"asyncio", "callback"}


def test_without_uvloop_its_variant_is_left_out_and_the_others_say_asyncio() -> None:
    code = (
        "import sys, importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'uvloop' else find(name, *more)\n"
        "from loadgen.campaign import runtimes\n"
        "print(runtimes.unavailable(runtimes.VARIANTS['uvloop'], None), runtimes._loop_of(runtimes.VARIANTS['kernel']))"
    )
    done = subprocess.run([command()[0], "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == "uvloop is not installed asyncio\n", done.stderr


WRONG = {
    "unknown": (("--variants", "kernel,tokio"), "--variants kernel,tokio: there is no tokio; there are kernel, uvloop"),
    "empty": (("--variants", "kernel,,callback"), "there is no empty one"),
    "against": (("--variants", "kernel", "--against", "aiohttp"), "--against aiohttp: is not measured; name one of"),
    "no agents": (("quickstart",), "quickstart: describes no agents; add --scenario chimera_homo"),
    "phase": (("agents-30", "--phases", "9"), "--phases 9: no phase 9"),
    "none left": (("--variants", "kernel", "--proxy", "http://127.0.0.1:1"), "none of the variants can be measured"),
}


@pytest.mark.parametrize(("words", "told"), WRONG.values(), ids=WRONG)
def test_bad_input_is_one_line_and_exit_code_2(words, told: str, tmp_path: Path) -> None:
    result = run_here("runtimes", "--url", "http://127.0.0.1:9", *words, "--out", tmp_path / "out")
    assert result.code == 2
    assert told in result.line
    assert not (tmp_path / "out").exists()


def test_a_server_that_is_not_there_is_exit_code_5(tmp_path: Path) -> None:
    result = run_here("runtimes", "--url", "http://127.0.0.1:9", "--variants", "kernel", "--out", tmp_path / "out")
    assert result.code == 5
    assert "1 of 1 measurements failed: kernel: " in result.err


def test_the_size_of_a_read_goes_with_the_kernel_tier_alone() -> None:
    base = {"load": {"concurrency": 1, "requests": 1}}
    assert load(None, {**base, "tier": "kernel", "read_bytes": 1024}).resolved()["read_bytes"] == 1024
    assert "read_bytes" not in load(None, base).resolved()
    with pytest.raises(ValueError, match="read_bytes has a meaning only when tier is kernel"):
        load(None, {**base, "read_bytes": 1024})

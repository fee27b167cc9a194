"""Directories of many campaigns: verified, reported again, killed, resumed; and a killed campaign of agents."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadgen.clock import NS_PER_S, now_ns
from loadgen.emulator import Law, spawn
from tests.fakes.command import Result, command, rows, run_here

LAW = Law(ttft_s=0.03, gap_s=0.01, instances=2)
MEASURED = (0, 4)  # 4: the machine was too busy to measure well, which is not what is tried here
NAMES = [f"phase_3_test_{number}" for number in (200, 201, 202)]
SMALL = ("--workload", "micro", "--output-tokens", 12, "--seed", 3, "--no-progress", "--telemetry-interval", 0)


@pytest.fixture(scope="module")
def pair() -> Iterator[Any]:
    with spawn(LAW, presents="ollama") as running:
        yield running


def where(pair: Any) -> list[str]:
    return [word for url in pair.urls for word in ("--url", url)]


def sweep_words(pair: Any, out: Path, runs: int) -> tuple[object, ...]:
    return ("agents", "agents-30", "--phases", 3, *where(pair), *SMALL, "--runs", runs, "--artifacts", "--out", out)


def runtimes_words(pair: Any, out: Path, runs: int) -> tuple[object, ...]:
    named = ("--variants", "kernel,callback", "--against", "kernel", "--no-solo")
    return ("runtimes", *where(pair), *SMALL[:-2], *named, "--runs", runs, "--out", out)


@pytest.fixture(scope="module")
def sweep(pair: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("sweep") / "out"
    result = run_here(*sweep_words(pair, out, 1))
    assert result.code in MEASURED, result.err
    return out, result


@pytest.fixture(scope="module")
def compared(pair: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("runtimes") / "out"
    result = run_here(*runtimes_words(pair, out, 2))
    assert result.code in MEASURED, result.err
    return out, result


def manifest_in(directory: Path, name: str = "manifest.json") -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((directory / name).read_text())
    return manifest


def change(directory: Path, name: str, was: str | None = None) -> None:
    """Change the last digit in a file, or the one after `was`; whatever it is in, it then holds another number."""
    path = directory / name
    text = path.read_text()
    at = next(i for i in range(text.index(was) + len(was), len(text)) if text[i].isdigit()) if was else -1
    if was is None:
        at = max(i for i, letter in enumerate(text) if letter.isdigit())
    path.write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}")


# --- verify ----------------------------------------------------------------------------------------------------------


def test_what_was_measured_is_as_recorded(sweep: tuple[Path, Result], compared: tuple[Path, Result]) -> None:
    for out, _ in (sweep, compared):
        told = run_here("verify", out)
        assert told.code == 0, told.out
        assert told.out.endswith("files as recorded; the summaries follow from the records\n")


CHANGED = {
    "the summary at the top": ("summary.json", None, "summary.json: changed since the run"),
    "a published artifact": ("comprehensive_test_summary.json", "average_efficiency", "changed since the run"),
    "the log of tests": ("test_execution_log.json", None, "test_execution_log.json: changed since the run"),
    "the plan": ("matrix.json", '"blocks"', "matrix.json: changed since the run"),
    "a summary below": (f"{NAMES[0]}/summary.json", '"value"', f"{NAMES[0]}/summary.json: changed since the run"),
    "an artifact below": (f"{NAMES[1]}/artifacts/summary.json", None, "artifacts/summary.json: changed since the run"),
    "an answer": (f"{NAMES[1]}/artifacts/run_1/metrics.json", None, "artifacts/run_1/metrics.json: changed since"),
}


@pytest.mark.parametrize(("name", "after", "line"), CHANGED.values(), ids=CHANGED)
def test_a_changed_number_is_found(
    name: str, after: str | None, line: str, sweep: tuple[Path, Result], tmp_path: Path
) -> None:
    out = shutil.copytree(sweep[0], tmp_path / "copy")
    change(out, name, after)
    told = run_here("verify", out)
    assert told.code == 1
    assert line in told.out
    assert len(told.out.splitlines()) == 1


@pytest.mark.parametrize(
    "name",
    ["comprehensive_test_summary.json", f"{NAMES[2]}/artifacts/comparison_report.md", f"{NAMES[2]}/manifest.json"],
)
def test_a_missing_file_is_named(name: str, sweep: tuple[Path, Result], tmp_path: Path) -> None:
    out = shutil.copytree(sweep[0], tmp_path / "copy")
    (out / name).unlink()
    told = run_here("verify", out)
    assert (told.code, told.out) == (1, f"{name}: missing\n")


def test_the_top_must_follow_from_below_though_every_checksum_fits(sweep: tuple[Path, Result], tmp_path: Path) -> None:
    from loadgen.campaign.rundir import seal
    from loadgen.suite_manifest import MatrixManifest

    out = shutil.copytree(sweep[0], tmp_path / "copy")
    change(out, "summary.json", "overlap_efficiency_mean")
    seal(out, MatrixManifest.from_json(manifest_in(out, "matrix.json")), "matrix.json")
    told = run_here("verify", out)
    assert told.code == 1
    assert told.out == "summary.json: does not follow from the directories below and matrix.json\n"


def test_a_changed_comparison_of_runtimes_is_found(compared: tuple[Path, Result], tmp_path: Path) -> None:
    for name in ("report.md", "runtimes.json", "callback/summary.json"):
        out = shutil.copytree(compared[0], tmp_path / name.replace("/", "-"))
        change(out, name)
        told = run_here("verify", out)
        assert (told.code, told.out) == (1, f"{name}: changed since the run\n")


# --- report ----------------------------------------------------------------------------------------------------------


def test_a_report_is_printed_again(sweep: tuple[Path, Result], compared: tuple[Path, Result]) -> None:
    for out, result in (sweep, compared):
        printed, _, pointer = result.out.rstrip("\n").rpartition("\n")
        assert pointer.startswith(str(out))
        assert run_here("report", out).out.strip() == printed.strip()
        assert run_here("report", out, "--format", "json").out == (out / "summary.json").read_text()
        for asked in (("--format", "html"), ("--html", out / "x.html"), ("--perfetto", out / "x.json")):
            refused = run_here("report", out, *asked)
            assert refused.code == 2
            assert "holds many campaigns" in refused.line
    assert run_here("report", compared[0], "--format", "markdown").out == (compared[0] / "report.md").read_text()
    table = run_here("report", sweep[0], "--format", "markdown").out
    assert table.startswith("## Sweep\n\n| id | phase | agents | speedup |")
    assert sum(line.startswith("| 20") for line in table.splitlines()) == 3
    assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) == 1
    told = run_here("verify", sweep[0])
    assert told.code == 0, told.out  # nothing was written


def test_an_objective_that_fails_in_a_configuration_fails_the_sweep(pair: Any, tmp_path: Path) -> None:
    profile = tmp_path / "two.yaml"
    profile.write_text(
        "# two\nagents: {configurations: [{id: 1, scenario: chimera_homo, count: 1}, "
        "{id: 2, scenario: chimera_homo}]}\n"
    )
    words = ("agents", profile, *where(pair), *SMALL, "--runs", 2, "--objective", "ttft_p99_ms=0.001")
    result = run_here(*words, "--out", tmp_path / "out")
    assert result.code in (1, 4)
    if result.code == 1:
        assert result.line == "loadgen: objective failed: ttft_p99_ms"


def test_a_directory_that_is_not_ours_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "matrix.json").write_text("{}")
    assert run_here("report", tmp_path).code == 2
    assert "cannot be read" in run_here("report", tmp_path).line
    assert "holds no checksums" in run_here("verify", tmp_path).line
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "matrix.json").write_text('{"sha256": {}}')
    assert run_here("verify", tmp_path).out == "matrix.json: changed since the run\n"
    refused = run_here("resume", tmp_path)
    assert refused.code == 2
    assert "holds no profile, withheld, seed, planned, configurations; it cannot be resumed" in refused.line


# --- killed, and resumed ---------------------------------------------------------------------------------------------


def kill_when(ready: Callable[[], bool], *words: object, number: int = signal.SIGKILL) -> None:
    process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = now_ns() + 60 * NS_PER_S
    try:
        while not ready():
            assert process.poll() is None, "it ended before it could be killed"
            assert now_ns() < until
            os.sched_yield()
        process.send_signal(number)
        process.wait(30)
    finally:
        process.kill()


def runs_in(directory: Path) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = manifest_in(directory)["runs"] if (directory / "manifest.json").exists() else []
    return runs


def asked(directory: Path) -> list[tuple[int, int, str]]:
    return [(row["run"], row["seq"], row["prompt_sha"]) for row in rows(directory)]


def test_a_killed_campaign_of_agents_is_reported_and_resumed(pair: Any, tmp_path: Path) -> None:
    words = ("agents", "--scenario", "chimera_homo", *where(pair), "--output-tokens", 12, "--seed", 3, "--runs", 2)
    words = (*words, "--artifacts", "--no-progress", "--quiet")
    out, whole = tmp_path / "killed", tmp_path / "whole"
    kill_when(lambda: len(runs_in(out)) == 4, *words, "--out", out)
    before = runs_in(out)
    summary = run_here("report", out, "--json").json()
    assert len(summary["missing_runs"]) == 2
    assert summary["agents"]["runs"]["concurrent"] + summary["agents"]["runs"]["solo"] == 4
    assert run_here("verify", out).code == 2

    resumed = run_here("resume", out, "--quiet")
    assert resumed.code in MEASURED, resumed.err
    manifest = manifest_in(out)
    assert manifest["runs"][:4] == before
    assert [[run["block"], run["arm"]] for run in manifest["runs"]] == manifest["design"]["planned"]
    assert manifest["finished"]
    assert run_here("verify", out).code == 0
    assert run_here(*words, "--out", whole).code in MEASURED
    # The same calls with the same words, up to the answers in them, and every file.
    assert [row[:2] for row in asked(out)] == [row[:2] for row in asked(whole)]
    assert {row[2] for row in asked(out)} == {row[2] for row in asked(whole)}
    files = [{path.relative_to(at) for path in (at / "artifacts").rglob("*")} for at in (out, whole)]
    assert files[0] == files[1]
    assert f"{Path('artifacts') / 'run_2' / 'metrics.json'}" in manifest["sha256"]


def test_a_killed_sweep_says_what_is_missing_and_goes_on_in_turns(pair: Any, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    words = (*sweep_words(pair, out, 2), "--header", "X-Gate: opensesame")
    kill_when(lambda: sum(len(runs_in(out / name)) for name in NAMES) == 4, *words)
    before = {name: runs_in(out / name) for name in NAMES}
    refused = run_here("verify", out)
    assert refused.code == 2
    assert "did not finish; see loadgen report" in refused.line
    told = run_here("report", out)
    assert told.code == 0, told.err
    lacking = {name: 6 - len(runs) for name, runs in before.items()}
    for name, runs in lacking.items():
        number = name.rpartition("_")[2]
        assert f"{number} ({runs} runs)" in told.out if before[name] else f"{number} (" in told.out
    assert run_here("report", out, "--json").json()["missing"] == [200, 201, 202]

    refused = run_here("resume", out)
    assert refused.line == "loadgen: not kept, for it may be secret: give it again with --header 'X-Gate: ...'"
    again = ("resume", out, "--header", "X-Gate: opensesame", "--json", "--no-progress")
    resumed = run_here(*again)
    assert resumed.code in MEASURED, resumed.err
    assert not [path for path in out.rglob("*") if path.is_file() and b"opensesame" in path.read_bytes()]
    assert resumed.json()["missing"] == []
    assert all(one["success"] for one in resumed.json()["configurations"])
    assert {name: runs_in(out / name)[: len(before[name])] for name in NAMES} == before
    began = sorted((run["start_ns"], name, run["block"]) for name in NAMES for run in runs_in(out / name))
    planned = manifest_in(out, "matrix.json")["planned"]
    assert [(name, block) for _, name, block in began] == [
        (f"phase_3_test_{number}", block) for block, number in planned for _ in range(3)
    ]
    assert len(manifest_in(out, "matrix.json")["resumed"]) == 1
    assert (out / "comprehensive_test_summary.json").is_file()
    verified = run_here("verify", out)
    assert verified.code == 0, verified.out
    # Nothing is missing any more: the same again, and nothing is sent.
    records = (out / NAMES[0] / "records.parquet").read_bytes()
    assert run_here(*again).json() == resumed.json()
    assert (out / NAMES[0] / "records.parquet").read_bytes() == records


def test_a_campaign_killed_while_it_was_closed_is_closed_when_its_sweep_goes_on(
    sweep: tuple[Path, Result], tmp_path: Path
) -> None:
    out = shutil.copytree(sweep[0], tmp_path / "copy")
    for folder, name in ((out / NAMES[1], "manifest.json"), (out, "matrix.json")):
        manifest = manifest_in(folder, name)
        del manifest["sha256"], manifest["manifest_sha256"]
        (folder / name).write_text(json.dumps(manifest))
    assert "did not finish" in run_here("verify", out / NAMES[1]).line
    assert run_here("resume", out, "--quiet").code in MEASURED
    told = run_here("verify", out)
    assert told.code == 0, told.out


def test_a_matrix_called_a_sweep_goes_on_under_its_new_name(sweep: tuple[Path, Result], tmp_path: Path) -> None:
    out = shutil.copytree(sweep[0], tmp_path / "copy")
    manifest = manifest_in(out, "matrix.json")
    del manifest["sha256"], manifest["manifest_sha256"]
    (out / "matrix.json").unlink()
    (out / "sweep.json").write_text(json.dumps(manifest | {"schema": "loadgen.sweep/1"}))
    assert run_here("resume", out, "--quiet").code in MEASURED
    assert not (out / "sweep.json").exists()
    assert manifest_in(out, "matrix.json")["schema"] == "loadgen.matrix/1"
    assert manifest_in(out, "summary.json")["schema"] == "loadgen.matrix-summary/1"
    assert run_here("verify", out).code == 0


def test_a_sweep_whose_server_is_gone_or_another_stays_as_it_was(tmp_path: Path) -> None:
    out, law = tmp_path / "sweep", Law(ttft_s=0.03, gap_s=0.01)
    with spawn(law, presents="ollama") as mortal:
        port = mortal.port
        kill_when(lambda: len(runs_in(out / NAMES[0])) == 1, *sweep_words(mortal, out, 1), number=signal.SIGINT)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["missing"] == [200, 201, 202]
    verified = run_here("verify", out).out
    assert verified.endswith("the summaries follow from the records\n")
    resumed = run_here("resume", out, "--quiet")
    assert resumed.code == 5, resumed.err
    assert "3 of 3 configurations failed" in resumed.line
    assert len(runs_in(out / NAMES[0])) >= 1
    assert run_here("verify", out).out == verified
    with spawn(law, presents="ollama", port=port, model="another"):
        refused = run_here("resume", out, "--quiet")
    assert refused.code == 2
    assert "the server has changed since" in refused.line
    assert run_here("verify", out).out == verified


@pytest.mark.parametrize("of", ["sweep", "compared"])
def test_of_finished_campaigns_nothing_is_left_to_do(of: str, request: pytest.FixtureRequest) -> None:
    out, _ = request.getfixturevalue(of)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    told = run_here("resume", out)
    assert (told.code, told.err) == (0, "")
    assert "nothing is left to do, every run is made" in told.out
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_killed_comparison_of_runtimes_goes_on(pair: Any, tmp_path: Path) -> None:
    out = tmp_path / "runtimes"
    kill_when(lambda: bool(runs_in(out / "kernel")), *runtimes_words(pair, out, 2))
    told = run_here("report", out)
    assert told.code == 0, told.err
    assert "incomplete or missing: kernel, callback" in told.out
    resumed = run_here("resume", out, "--json", "--no-progress")
    assert resumed.code in MEASURED, resumed.err
    summary = resumed.json()
    assert summary["missing"] == []
    assert [line["overlap_efficiency"]["runs"] for line in summary["variants"]] == [2, 2]
    assert [run["block"] for run in runs_in(out / "callback")] == [0, 1]
    verified = run_here("verify", out)
    assert verified.code == 0, verified.out

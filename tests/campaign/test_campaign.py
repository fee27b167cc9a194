"""Campaigns against the emulator: interleaved arms, isolation, looks, what is missing, and going on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadgen.campaign.arm import Arm, Occasion
from loadgen.campaign.campaign import Campaign, Finished
from loadgen.campaign.load_arm import load_arm
from loadgen.campaign.measure import measure
from loadgen.campaign.prepare import prepare
from loadgen.cli.exits import Exit, Stop
from loadgen.cli.measuring import conclude
from loadgen.clock import NS_PER_S, now_ns
from loadgen.emulator import Law, spawn
from loadgen.emulator.spawn import Emulator
from loadgen.engine.share import Job
from loadgen.errors import UsageError
from loadgen.profile import load
from tests.fakes.command import command, rows, run_here

QUICK = Law(ttft_s=0.002, gap_s=0.001)
STEADY = Law(ttft_s=0.02, gap_s=0.01)
MEASURED = (Exit.OK, Exit.VOID)  # a machine that stalls makes the verdict generator-limited, which is not tested here
Servers = Callable[..., Emulator]


@pytest.fixture
def server() -> Iterator[Servers]:
    with ExitStack() as stack:
        yield lambda law=QUICK, **options: stack.enter_context(spawn(law, **options))


def overrides(url: str, requests: int = 4, **more: Any) -> dict[str, Any]:
    return {
        "target": {"url": url},
        "load": {"concurrency": 2, "requests": requests},
        "work": {"prompt_tokens": 20, "output_tokens": 3},
        "seed": 7,
        **more,
    }


async def campaign(given: dict[str, Any], directory: Path, **more: Any) -> tuple[Finished, dict[str, Any], list[str]]:
    """Measure; return how it ended, the manifest and what was said."""
    prepared = await prepare(load(None, given), directory, **more)
    said: list[str] = []
    prepared.say = said.append
    finished = await measure(prepared, lambda tally: None, asyncio.Event())
    return finished, manifest_of(directory), said


def manifest_of(directory: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_text("utf-8"))
    return manifest


def two_arms(campaign: Campaign) -> Sequence[Arm]:
    parts = campaign.profile, campaign.seed, campaign.endpoints, campaign.workload, campaign.tier
    return load_arm(*parts, name="a"), load_arm(*parts, name="b")


def made(manifest: dict[str, Any]) -> list[list[Any]]:
    return [[run["block"], run["arm"]] for run in manifest["runs"]]


async def test_a_plain_run_has_one_arm_and_a_block_a_run(server: Servers, tmp_path: Path) -> None:
    finished, manifest, _ = await campaign(overrides(server().url, runs=2), tmp_path / "c")
    assert made(manifest) == manifest["design"]["planned"] == [[0, "main"], [1, "main"]]
    assert (manifest["finished"], finished.missing, manifest["halted"]) == (True, 0, None)


async def test_arms_are_interleaved_as_planned_with_the_control_at_both_ends(server: Servers, tmp_path: Path) -> None:
    given = overrides(server().url, runs=3, campaign={"control": "b"})
    finished, manifest, _ = await campaign(given, tmp_path / "c", arms_of=two_arms, primary="a")
    planned = manifest["design"]["planned"]
    assert made(manifest) == planned
    assert [run["run"] for run in manifest["runs"]] == list(range(8))
    assert (planned[0], planned[-1]) == ([-1, "control:b"], [3, "control:b"])
    records = rows(tmp_path / "c")
    assert sorted({row["run"] for row in records}) == list(range(8))
    assert finished.summary is not None
    # The figures are those of the primary arm, to which the control does not belong.
    assert [run.run for run in finished.summary.per_run] == [run for run, (_, arm) in enumerate(planned) if arm == "a"]
    assert finished.summary.control.arm == "b"
    assert 0.2 < finished.summary.control.ratio["ttft_ms"] < 5


async def test_a_control_that_is_no_arm_is_refused(server: Servers, tmp_path: Path) -> None:
    url = server().url
    with pytest.raises(UsageError, match=r"^campaign\.control must name an arm, got 'c': name one of a, b"):
        await campaign(overrides(url, campaign={"control": "c"}), tmp_path / "c", arms_of=two_arms, primary="a")
    with pytest.raises(UsageError, match="there is but one arm, remove it"):
        await campaign(overrides(url, campaign={"control": "main"}), tmp_path / "d")
    assert os.listdir(tmp_path) == []


async def test_runs_go_on_until_the_first_look_that_is_narrow_enough(server: Servers, tmp_path: Path) -> None:
    given = overrides(server(STEADY).url, campaign={"until": "40%"})
    finished, manifest, said = await campaign(given, tmp_path / "c")
    assert [look["runs"] for look in manifest["looks"]] == [5]
    assert manifest["looks"][0]["reached"]
    assert len(manifest["runs"]) == 5
    assert said == [f"{said[0].partition(';')[0]}; narrow enough"]
    assert finished.summary is not None
    assert finished.summary.stopping.within == 0.4
    assert finished.summary.metrics.ttft_ms.mean.confidence == 0.97
    assert finished.summary.metrics.output_tokens_per_s.confidence == 0.97


async def test_a_look_that_is_too_wide_plans_the_runs_until_the_next(server: Servers, tmp_path: Path) -> None:
    """TTFT alternates between 50 and 100 ms: log-t half-widths at 97 % of 75 % with 5 runs and 43 % with 8."""
    given = overrides(server(Law(ttft_s=0.05, gap_s=0.001)).url, campaign={"until": 0.57, "until_metric": "ttft_ms"})
    slow = server(Law(ttft_s=0.1, gap_s=0.001))

    def alternating(campaign: Campaign) -> Sequence[Arm]:
        arm = load_arm(campaign.profile, campaign.seed, campaign.endpoints, campaign.workload, campaign.tier)
        other = tuple(replace(endpoint, url=slow.url) for endpoint in campaign.endpoints)
        slower = load_arm(campaign.profile, campaign.seed, other, campaign.workload, campaign.tier)

        def jobs(occasion: Occasion) -> Sequence[Job]:
            return (slower if occasion.run % 2 else arm).jobs(occasion)

        return (replace(arm, jobs=jobs),)

    finished, manifest, said = await campaign(given, tmp_path / "c", arms_of=alternating)
    assert [(look["runs"], look["reached"]) for look in manifest["looks"]] == [(5, False), (8, True)]
    assert len(manifest["runs"]) == 8 == manifest["design"]["blocks"]
    assert said[0].endswith("going on to 8 runs")
    assert finished.missing == 0


async def test_runs_that_have_no_figure_to_look_at_are_no_reason_for_more(server: Servers, tmp_path: Path) -> None:
    given = overrides(server(faults=("500=1",)).url, campaign={"until": "2%"})
    finished, manifest, said = await campaign(given, tmp_path / "c")
    assert len(manifest["runs"]) == 5
    assert [(look["runs"], look["reached"]) for look in manifest["looks"]] == [(5, False)]
    assert manifest["looks"][0]["half_width"]["ttft_ms"] is None
    assert said == ["5 runs: no more, for a run has no ttft_ms and its width cannot be known"]
    assert finished.summary is not None
    assert finished.summary.verdict == "failed"


async def test_unloading_makes_the_first_request_of_each_run_a_cold_one(server: Servers, tmp_path: Path) -> None:
    url = server(Law(ttft_s=0.002, gap_s=0.001, load_s=0.2), presents="ollama").url
    given = overrides(url, runs=2, campaign={"isolation": "unload"})
    _, manifest, said = await campaign(given, tmp_path / "c")
    cold = [(row["run"], row["seq"]) for row in rows(tmp_path / "c") if (row["server_load_ns"] or 0) > NS_PER_S // 10]
    # Two requests are in flight from the start, and both wait for the model.
    assert cold == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert list(manifest["cleared"].values()) == ["unloaded emulated"]
    assert said == []


async def test_lm_studio_unloads_its_instances(server: Servers, tmp_path: Path) -> None:
    url = server(Law(ttft_s=0.002, gap_s=0.001, load_s=0.2), presents="lmstudio").url
    given = overrides(url, runs=2, campaign={"isolation": "unload"})
    given["target"] |= {"api": "lmstudio"}
    _, manifest, _ = await campaign(given, tmp_path / "c")
    slow = [row for row in rows(tmp_path / "c") if row["done_ns"] - row["sent_ns"] > NS_PER_S // 10]
    cold = [(row["run"], row["seq"]) for row in slow]
    assert cold == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert list(manifest["cleared"].values()) == ["unloaded emulated"]


@pytest.mark.parametrize(("isolation", "repeated"), [("none", True), ("unload", False)])
async def test_vllm_forgets_its_prefixes(server: Servers, tmp_path: Path, isolation: str, repeated: bool) -> None:
    given = overrides(server(replace(QUICK, prefix_cache=True)).url, requests=1, runs=2)
    given |= {"campaign": {"isolation": isolation}}
    given["work"] = {"prompt_tokens": 200, "output_tokens": 2, "cache": "shared", "shared_prefix_tokens": 100}
    _, manifest, _ = await campaign(given, tmp_path / "c")
    first, second = rows(tmp_path / "c")
    assert not first["cached_tokens"]
    assert bool(second["cached_tokens"]) is repeated
    assert manifest.get("cleared") == (None if repeated else {manifest["targets"][0]["name"]: "reset the prefix cache"})


async def test_a_server_that_cannot_forget_is_told_once(server: Servers, tmp_path: Path) -> None:
    given = overrides(server(presents="llamacpp").url, runs=2, campaign={"isolation": "unload"})
    finished, _, said = await campaign(given, tmp_path / "c")
    assert len(said) == 1
    assert said[0].endswith("offers no way to unload a model or to empty its cache")
    assert finished.missing == 0


async def test_each_run_in_a_process_of_its_own(server: Servers, tmp_path: Path) -> None:
    emulator = server()
    given = overrides(emulator.url, runs=2, campaign={"isolation": "process"})
    finished, manifest, _ = await campaign(given, tmp_path / "c")
    assert finished.error is None
    assert manifest["design"]["isolation"] == "process"
    assert [(row["run"], row["seq"]) for row in rows(tmp_path / "c")] == [(r, s) for r in (0, 1) for s in range(4)]


async def test_runs_cool_down_in_between(server: Servers, tmp_path: Path) -> None:
    _, manifest, _ = await campaign(overrides(server().url, runs=2, campaign={"cooldown_s": 0.5}), tmp_path / "c")
    first, second = manifest["runs"]
    lasted = max(row["done_ns"] for row in rows(tmp_path / "c") if row["run"] == 0)
    assert second["start_ns"] - first["start_ns"] - lasted > NS_PER_S // 2


async def test_an_interruption_ends_the_cooling(server: Servers, tmp_path: Path) -> None:
    profile = load(None, overrides(server().url, runs=2, campaign={"cooldown_s": 600.0}))
    prepared = await prepare(profile, tmp_path / "c")
    stop = asyncio.Event()
    running = asyncio.create_task(measure(prepared, lambda tally: None, stop))
    while not stop.is_set():
        await asyncio.sleep(0.02)
        if prepared.manifest.runs:  # then it cools down
            stop.set()
    finished = await asyncio.wait_for(running, 30)
    assert (finished.interrupted, finished.missing) == (True, 1)
    assert manifest_of(tmp_path / "c")["halted"] == "interrupted"


async def test_an_endpoint_that_dies_between_arms_leaves_the_rest_missing_with_the_reason(
    server: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, doomed = server(), server()

    def arms(campaign: Campaign) -> Sequence[Arm]:
        parts = campaign.profile, campaign.seed
        first, second = campaign.endpoints
        a = load_arm(*parts, (first,), campaign.workload, campaign.tier, "a")
        b = load_arm(*parts, (second,), campaign.workload, campaign.tier, "b")

        def jobs(occasion: Occasion) -> Sequence[Job]:
            if occasion.block == 1:
                doomed.stop()
            return a.jobs(occasion)

        return replace(a, jobs=jobs), b

    given = overrides(good.url, runs=3, campaign={"order": "fixed"})
    given["target"] = [{"url": good.url}, {"url": doomed.url}]
    directory = tmp_path / "c"
    finished, manifest, _ = await campaign(given, directory, arms_of=arms, primary="a")
    assert made(manifest) == [[0, "a"], [0, "b"], [1, "a"]]
    assert (finished.unreachable, finished.missing) == (True, 3)
    assert manifest["halted"] == f"{doomed.url}: connection refused"
    assert finished.summary is not None
    assert msgspec.to_builtins(list(finished.summary.missing_runs)) == [
        {"block": 1, "arm": "b"},
        {"block": 2, "arm": "a"},
        {"block": 2, "arm": "b"},
    ]
    with pytest.raises(Stop) as stopped:
        conclude(finished, directory, json_=False, quiet=False)
    assert stopped.value.code == Exit.UNREACHABLE
    assert "missing runs: 3" in str(stopped.value)
    assert f"3 runs missing: b in blocks 1-2; a in block 2 ({doomed.url}" in " ".join(capsys.readouterr().out.split())


# --- killed, and resumed ---


def start(url: str, directory: Path, *more: object) -> subprocess.Popen[bytes]:
    given = ("--url", url, "--concurrency", 2, "--requests", 40, "--input-tokens", 20, "--output-tokens", 10)
    return subprocess.Popen(command("run", *given, "--seed", 7, "--out", directory, "--quiet", *more))


def wait_for(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    until = now_ns() + 60 * NS_PER_S
    while not ready():
        assert process.poll() is None, "it ended before it could be killed"
        assert now_ns() < until
        os.sched_yield()


def runs_in(directory: Path) -> int:
    path = directory / "manifest.json"
    return len(manifest_of(directory)["runs"]) if path.exists() else 0


def killed(url: str, directory: Path, number: int, *more: object, finished: int = 1) -> None:
    """Let a campaign of some runs more than `finished` finish that number, and end it in the next."""
    process = start(url, directory, "--runs", finished + 2, *more)
    wait_for(process, lambda: runs_in(directory) == finished)
    wait_for(process, lambda: any((directory / "journal").glob(f"{finished}000-*.parquet")))
    process.send_signal(number)
    process.wait(30)


def questions(directory: Path) -> list[tuple[int, int, str]]:
    return [(row["run"], row["seq"], row["prompt_sha"]) for row in rows(directory)]


def test_a_killed_campaign_keeps_its_finished_run_says_what_is_missing_and_can_go_on(
    server: Servers, tmp_path: Path
) -> None:
    url = server(Law(ttft_s=0.03, gap_s=0.005)).url
    directory = tmp_path / "killed"
    killed(url, directory, signal.SIGKILL)
    told = run_here("report", directory)
    assert told.code == 0
    assert "2 runs missing: main in blocks 1-2" in told.out
    summary = run_here("report", directory, "--json").json()
    assert summary["missing_runs"] == [{"block": 1, "arm": "main"}, {"block": 2, "arm": "main"}]
    assert summary["per_run"][0]["completed"] == 40

    before = manifest_of(directory)["runs"][0]
    resumed = run_here("resume", directory, "--quiet")
    assert resumed.code in MEASURED, resumed.err
    manifest = manifest_of(directory)
    assert made(manifest) == manifest["design"]["planned"]
    assert manifest["runs"][0] == before
    assert len(manifest["resumed"]) == 1
    assert run_here("verify", directory).code == 0
    # The same seeds: what was asked is what an unbroken campaign asks.
    start(url, tmp_path / "whole", "--runs", 3).wait(60)
    assert questions(directory) == questions(tmp_path / "whole")
    assert [(run, seq) for run, seq, _ in questions(directory)] == [(r, s) for r in range(3) for s in range(40)]


def test_an_interrupted_campaign_can_go_on_from_its_closed_records(server: Servers, tmp_path: Path) -> None:
    directory = tmp_path / "c"
    killed(server(Law(ttft_s=0.03, gap_s=0.005)).url, directory, signal.SIGINT)
    assert (directory / "records.parquet").exists()
    assert manifest_of(directory)["runs"][1]["interrupted"]
    assert run_here("resume", directory, "--quiet").code in MEASURED
    assert [(run, seq) for run, seq, _ in questions(directory)] == [(r, s) for r in range(3) for s in range(40)]
    assert [run["interrupted"] for run in manifest_of(directory)["runs"]] == [False] * 3
    assert run_here("verify", directory).code == 0


def test_of_a_finished_campaign_nothing_is_left_to_do_and_no_server_is_asked(tmp_path: Path) -> None:
    directory = tmp_path / "c"
    with spawn(QUICK) as emulator:
        assert start(emulator.url, directory, "--runs", 2, "--header", "X-Gate: opensesame").wait(60) in MEASURED
    before = {path: path.read_bytes() for path in directory.iterdir()}
    told = run_here("resume", directory)
    assert (told.code, told.err) == (0, "")
    assert told.out == (
        f"{directory}: nothing is left to do, every run is made; loadgen report {directory} shows them\n"
    )
    assert run_here("resume", directory, "--quiet").out == ""
    assert run_here("resume", directory, "--json").out == (directory / "summary.json").read_text("utf-8")
    assert {path: path.read_bytes() for path in directory.iterdir()} == before


@pytest.mark.parametrize(
    ("number", "why"), [(signal.SIGINT, "interrupted"), (signal.SIGKILL, "not finished")], ids=["SIGINT", "SIGKILL"]
)
def test_a_run_that_was_cut_short_is_in_no_estimate_over_runs(
    server: Servers, tmp_path: Path, number: int, why: str
) -> None:
    directory = tmp_path / "c"
    killed(server(Law(ttft_s=0.03, gap_s=0.005)).url, directory, number, finished=3)
    summary = run_here("report", directory, "--json").json()
    assert summary["left_out"] == [{"run": 3, "why": why}]
    assert f"run 3: {why}: listed, and left out of every estimate over runs" in summary["notes"]
    measured = [run["completed"] for run in summary["per_run"]]
    assert measured[:3] == [40] * 3
    assert 0 < measured[3] < 40
    assert summary["requests"]["completed"] == sum(measured)
    for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
        values = summary["over_runs"][name]["values"]
        mean = summary["metrics"][name]["mean"]
        assert mean["n"] == 120
        assert mean["value"] == pytest.approx(statistics.geometric_mean(values[:3]))
        assert values[3] > 0
    rates = summary["over_runs"]["requests_per_s"]["values"]
    assert summary["metrics"]["requests_per_s"]["value"] == pytest.approx(statistics.geometric_mean(rates[:3]))
    assert f"3 {why}" in run_here("report", directory).out


def test_a_campaign_that_still_runs_is_not_gone_on_with(server: Servers, tmp_path: Path) -> None:
    directory = tmp_path / "c"
    process = start(server(Law(ttft_s=0.03, gap_s=0.005)).url, directory, "--runs", 3)
    wait_for(process, lambda: runs_in(directory) == 1)
    process.send_signal(signal.SIGSTOP)  # in the middle, for as long as the other one needs
    other = run_here("resume", directory)
    process.send_signal(signal.SIGCONT)
    assert other.code == 2
    assert other.line == f"loadgen: {directory}: another loadgen is measuring into it; wait until it has ended"
    assert process.wait(60) in MEASURED
    assert [(run, seq) for run, seq, _ in questions(directory)] == [(r, s) for r in range(3) for s in range(40)]
    assert "resumed" not in manifest_of(directory)
    assert run_here("verify", directory).code == 0


def test_secrets_must_be_given_again(server: Servers, tmp_path: Path) -> None:
    directory = tmp_path / "c"
    killed(server(Law(ttft_s=0.03, gap_s=0.005)).url, directory, signal.SIGKILL, "--header", "X-Gate: opensesame")
    refused = run_here("resume", directory)
    assert refused.code == 2
    assert refused.line == "loadgen: not kept, for it may be secret: give it again with --header 'X-Gate: ...'"
    other = run_here("resume", directory, "--header", "X-Gate: opensesame", "--option", "temperature=1")
    assert other.code == 2
    assert other.line.startswith("loadgen: --option temperature: was not part of the campaign like that")
    assert run_here("resume", directory, "--header", "X-Gate: opensesame", "--quiet").code in MEASURED
    assert "opensesame" not in (directory / "manifest.json").read_text("utf-8")


def test_a_url_whose_query_holds_a_secret_must_be_given_again(server: Servers, tmp_path: Path) -> None:
    directory, url = tmp_path / "c", server(Law(ttft_s=0.03, gap_s=0.005)).url
    killed(f"{url}?api-key=opensesame&v=2", directory, signal.SIGKILL)
    refused = run_here("resume", directory)
    assert refused.code == 2
    assert refused.line == "loadgen: not kept, for it may be secret: give it again with --url"
    other = run_here("resume", directory, "--url", f"{url}?api-key=opensesame&v=3")
    assert other.code == 2
    assert other.line == "loadgen: --url: was not part of the campaign like that; start a new campaign"
    assert run_here("resume", directory, "--url", f"{url}?api-key=opensesame&v=2", "--quiet").code in MEASURED
    assert len(questions(directory)) == 120
    assert "opensesame" not in (directory / "manifest.json").read_text("utf-8")


def test_another_server_is_not_gone_on_with(tmp_path: Path) -> None:
    directory = tmp_path / "c"
    with spawn(Law(ttft_s=0.03, gap_s=0.005)) as emulator:
        killed(emulator.url, directory, signal.SIGKILL)
        port = emulator.port
    refused = run_here("resume", directory)
    assert (refused.code, "connection refused" in refused.line) == (5, True)
    with spawn(QUICK, port=port, model="another"):
        refused = run_here("resume", directory)
    assert refused.code == 2
    assert "the server has changed since: it was vLLM" in refused.line
    assert refused.line.endswith("with another; start a new campaign")
    assert len(manifest_of(directory)["runs"]) == 1  # untouched


def test_what_cannot_be_resumed_is_refused_in_one_line(tmp_path: Path) -> None:
    assert run_here("resume", tmp_path).line.endswith("no manifest.json in it; name a run's directory")
    (tmp_path / "manifest.json").write_text('{"runs": []}')
    refused = run_here("resume", tmp_path)
    assert refused.code == 2
    assert "holds no design, profile, seed, targets, withheld, workload" in refused.line


# --- profiles ---


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"campaign": {"until": "2%"}, "runs": 3}, "runs has no meaning beside campaign.until"),
        ({"campaign": {"until": "wide"}}, "campaign.until must be a share such as 2% or 0.02, got 'wide'"),
        ({"campaign": {"until": 2.0}}, "campaign.until must be < 1, got 2.0"),
        ({"campaign": {"until_metric": "ttft_ms"}}, "campaign.until_metric has a meaning only beside until"),
        ({"campaign": {"isolation": "unloaded"}}, "must be one of none, unload, process, got 'unloaded'"),
        ({"campaign": {"cooldown_s": -1.0}}, "campaign.cooldown_s must be >= 0"),
        ({"workers": 4}, "workers must be at most the concurrency of load (2), got 4"),
        (
            {"workers": 4, "load": {"rate_per_s": 9.0, "requests": 9, "max_in_flight": 3}},
            "workers must be at most load.max_in_flight (3), got 4",
        ),
    ],
)
def test_a_fault_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        load(None, {"load": {"concurrency": 2, "requests": 3}, **given})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_until_given_takes_the_place_of_runs_in_the_file_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "runs.yaml").write_text("load: {concurrency: 1, requests: 1}\nruns: 4\n")
    (tmp_path / "until.yaml").write_text("load: {concurrency: 1, requests: 1}\ncampaign: {until: 3%, cooldown_s: 5}\n")
    assert load(tmp_path / "runs.yaml", {"campaign": {"until": "1.5%"}}).campaign.until == 0.015
    other = load(tmp_path / "until.yaml", {"runs": 4})
    assert (other.runs, other.campaign.until, other.campaign.cooldown_s) == (4, None, 5.0)


def test_a_null_option_reaches_the_server_wherever_it_was_written() -> None:
    given = {"load": {"concurrency": 1, "requests": 1}, "target": {"url": "http://a", "options": {"top_k": None}}}
    assert load(None, given).targets[0].options == {"top_k": None}


def test_workers_begin_at_different_targets() -> None:
    from loadgen.campaign.load_arm import _deal, _rotated

    deal = _deal([1.0, 1.0, 2.0])
    assert [_rotated(deal, worker)[0] for worker in range(4)] == list(deal)
    assert all(sorted(_rotated(deal, worker)) == sorted(deal) for worker in range(7))

"""`loadgen agents` on the emulator: known truths end to end, bad input, sweeps, and what it leaves on disk."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadgen.emulator import Law, spawn
from loadgen.errors import UsageError
from loadgen.profile import load
from loadgen.workload.scripts import AgentsWork, describe_files, files_in, sample_files
from tests.fakes.command import LONGEST_S, Result, command, rows, run_here

MODEL = ("--api", "ollama", "--model", "emulated")
TOKENS = 12
# Long against what the client itself takes between two calls, short for a test.
LAW = Law(ttft_s=0.03, gap_s=0.01, instances=2)


@pytest.fixture(scope="module")
def pair() -> Iterator[Any]:
    """Two instances in the Ollama dialect, each with a GPU of its own."""
    with spawn(LAW, presents="ollama") as running:
        yield running


def measure(out: Path, urls: list[str], *more: object, scenario: str = "chimera_homo", runs: int = 3) -> Result:
    where = [word for url in urls for word in ("--url", url)]
    arguments = ("--scenario", scenario, "--output-tokens", TOKENS, "--runs", runs, "--seed", 7, "--out", out)
    return run_here("agents", *where, *arguments, "--no-progress", "--quiet", *more)


def went_well(result: Result) -> bool:
    """Exit code 4, too: the machine was too busy to measure well, which is not what is tried here."""
    return result.code in (0, 4)


def agents_of(out: Path) -> dict[str, Any]:
    section: dict[str, Any] = json.loads((out / "summary.json").read_text())["agents"]
    return section


def codes_of(noted: dict[str, Any]) -> set[str]:
    """The codes of the notes beside a figure or a section."""
    return {note["code"] for note in noted["note_codes"]}


def manifest_of(out: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return manifest


@pytest.fixture(scope="module")
def finished(pair: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two agents on two instances, with every file there is."""
    out = tmp_path_factory.mktemp("agents") / "run"
    result = measure(out, pair.urls, "--chimera", "num_gpu=80", "--chimera", "num_ctx=512", "--artifacts")
    assert went_well(result), result.err
    return out


# --- what is sent and recorded ---------------------------------------------------------------------------------------


def test_the_manifest_tells_agents_arms_and_blocks(finished: Path) -> None:
    manifest = manifest_of(finished)
    assert manifest["scenario"] == "chimera_homo"
    assert manifest["permits"] == 2
    assert [agent["name"] for agent in manifest["agents"]] == ["collector", "insight"]
    wanted = {"num_gpu": 80, "num_ctx": 512, "top_p": 0.9, "top_k": 40, "repeat_penalty": 1.1}
    assert all(agent["asked_options"] == wanted for agent in manifest["agents"])
    assert manifest["agents"][0]["calls"] == ["analysis", "report"]
    design = manifest["design"]
    assert design["primary"] == "concurrent"
    assert design["arms"] == [
        {"name": "solo:collector", "agents": ["collector"]},
        {"name": "solo:insight", "agents": ["insight"]},
        {"name": "concurrent", "agents": ["collector", "insight"]},
    ]
    made = [[run["block"], run["arm"]] for run in manifest["runs"]]
    assert made == design["planned"]
    assert [run["run"] for run in manifest["runs"]] == list(range(9))


def test_the_first_call_is_due_at_the_barrier_and_each_agent_has_its_endpoint(finished: Path) -> None:
    arm = {run["run"]: run["arm"] for run in manifest_of(finished)["runs"]}
    records = rows(finished)
    assert len(records) == 3 * (2 + 2 + 4)
    assert {row["outcome"] for row in records} == {"ok"}
    assert all(row["intended_ns"] == 0 for row in records if row["turn"] == 0)
    assert len({(row["agent"], row["endpoint"]) for row in records}) == 2
    alone = [row for row in records if arm[row["run"]] == "solo:insight"]
    assert {row["agent"] for row in alone} == {"insight"}
    assert {row["seq"] for row in alone} == {2, 3}  # the same calls have the same numbers in every arm


def test_a_run_is_measured_from_the_barrier_to_its_last_answer(finished: Path) -> None:
    last = {run["run"]: 0 for run in manifest_of(finished)["runs"]}
    for row in rows(finished):
        last[row["run"]] = max(last[row["run"]], row["done_ns"])
    told = {run["run"]: (run["measured_from_ns"], run["measured_to_ns"]) for run in manifest_of(finished)["runs"]}
    assert told == {run: (0, done) for run, done in last.items()}
    metrics = json.loads((finished / "summary.json").read_text())["metrics"]
    assert not [note for note in metrics["output_tokens_per_s"]["notes"] if "window" in note]


def test_the_answer_of_the_first_call_is_in_the_prompt_of_the_second(finished: Path) -> None:
    answer = (finished / "artifacts" / "run_1" / "collector_analysis.md").read_text()
    assert len(answer.split()) == TOKENS
    analysis_tokens, report_tokens = ({r["input_tokens"] for r in rows(finished) if r["turn"] == t} for t in (0, 1))
    # The emulator counts words: those of both prompts that are not the listing or the answer are fixed.
    work = AgentsWork("two-stage", ("collector", "insight"), output_tokens=TOKENS, seed=7)
    work.hear(0, "")
    ours = [len((work.ask(seq).prompt or "").split()) for seq in (0, 1)]
    assert len(analysis_tokens) == len(report_tokens) == 1
    assert report_tokens.pop() - analysis_tokens.pop() == ours[1] - ours[0] + TOKENS


def test_the_work_is_the_same_in_every_arm_and_no_prompt_is_sent_twice(finished: Path) -> None:
    records = rows(finished)
    assert {row["output_tokens"] for row in records} == {TOKENS}
    assert len({row["prompt_sha"] for row in records}) == len(records)


def test_server_durations_have_fields_of_their_own(finished: Path) -> None:
    row = rows(finished)[0]
    assert row["server_eval_ns"] == 110_000_000
    assert row["server_prompt_eval_ns"] == 30_000_000
    assert row["server_load_ns"] is None


# --- known truths ----------------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_two_independent_instances_gain_two(finished: Path) -> None:
    told = agents_of(finished)
    assert told["speedup"]["value"] == pytest.approx(2.0, rel=0.05)
    assert told["efficiency"]["value"] == pytest.approx(1.0, rel=0.05)
    assert told["stretch"]["value"] == pytest.approx(1.0, rel=0.05)
    assert told["blocks"] == 3
    assert told["notes"] == []


@pytest.mark.alone
def test_one_serial_server_gains_nothing_though_overlap_says_otherwise(tmp_path: Path) -> None:
    with spawn(Law(ttft_s=0.03, gap_s=0.01, slots=1), presents="ollama") as serial:
        assert went_well(measure(tmp_path / "run", [serial.url]))
    told = agents_of(tmp_path / "run")
    assert told["speedup"]["value"] == pytest.approx(1.0, rel=0.05)
    assert told["efficiency"]["value"] == pytest.approx(0.5, rel=0.05)
    # docs/agents.md#known-answers: (4n - 1)/4n, n = 2
    assert told["overlap_efficiency"]["value"] == pytest.approx(0.875, rel=0.05)
    with spawn(Law(ttft_s=0.03, gap_s=0.01, slots=1), presents="ollama") as serial:
        assert went_well(measure(tmp_path / "micro", [serial.url], "--workload", "micro"))
    assert agents_of(tmp_path / "micro")["overlap_efficiency"]["value"] == pytest.approx(0.75, rel=0.05)


def test_waiting_for_a_serial_server_is_put_down_to_its_queue_by_its_own_gauges(tmp_path: Path) -> None:
    """It streams no queue time with its answers: only what was sampled of it can tell."""
    law = Law(ttft_s=0.05, gap_s=0.01, slots=1)
    work = ("--workload", "two-stage", "--rounds", 3, "--telemetry-interval", 0.1)
    with spawn(law, presents="vllm") as serial:
        result = measure(tmp_path / "run", [serial.url], "--api", "openai", "--model", "emulated", *work)
    assert went_well(result), result.err
    told = agents_of(tmp_path / "run")["contention"]
    late = [one for one in told["findings"] if one["what"] == "ttft"]
    by_samples = [one for one in late if one["cause"] == "queue" and one["sampling_gap_s"] is not None]
    assert len(late) >= 20  # 3 runs of 12 calls, all but the first of which wait for one another
    assert len(by_samples) >= 0.9 * len(late)
    assert told["attribution_by_samples"]["sampling_gap_s"] >= 0.05
    server = next(iter(json.loads((tmp_path / "run" / "summary.json").read_text())["telemetry"]["servers"].values()))
    assert server["waiting"]["max"] == 1
    assert server["queue_mean_ms"] == pytest.approx(160, rel=0.15)  # 50 ms and 11 gaps of another's answer
    assert server["server_ttft_mean_ms"] == pytest.approx(server["client_ttft_service_mean_ms"], rel=0.1)


@pytest.mark.alone
def test_one_permit_is_fifty_percent_of_everything(pair: Any, tmp_path: Path) -> None:
    assert went_well(measure(tmp_path / "run", pair.urls, "--permits", 1))
    told = agents_of(tmp_path / "run")
    assert told["efficiency"]["value"] == pytest.approx(0.5, rel=0.05)
    assert told["overlap_efficiency"]["value"] == pytest.approx(0.5, rel=0.05)
    waits = [told["per_agent"][name]["permit_wait_ms"]["value"] for name in ("collector", "insight")]
    assert waits[1] - waits[0] > 250  # the other one's two calls take 280 ms


@pytest.mark.alone
def test_a_shared_gpu_stretches_both(tmp_path: Path) -> None:
    with spawn(Law(ttft_s=0.03, gap_s=0.01, instances=2, gpu_share=1.0), presents="ollama") as shared:
        assert went_well(measure(tmp_path / "run", shared.urls))
    told = agents_of(tmp_path / "run")
    assert told["overlap_efficiency"]["value"] == pytest.approx(1.0, rel=0.05)
    assert told["speedup"]["value"] < 1.4  # decode steps take twice as long, prefill does not
    assert told["stretch"]["value"] > 1.4


@pytest.mark.alone
def test_a_call_in_one_piece_has_no_ttft(pair: Any, tmp_path: Path) -> None:
    assert went_well(measure(tmp_path / "run", pair.urls, "--workload", "single"))
    records = rows(tmp_path / "run")
    assert {row["output_tokens"] for row in records} == {TOKENS}
    assert all(row["event_ns"] == [] for row in records)
    assert all(row["done_ns"] - row["sent_ns"] > 130_000_000 for row in records)
    told = agents_of(tmp_path / "run")
    assert told["per_agent"]["collector"]["concurrent"]["ttft_ms"]["value"] is None
    assert told["speedup"]["value"] == pytest.approx(2.0, rel=0.05)


def test_a_call_in_one_piece_in_the_shape_of_openai(tmp_path: Path) -> None:
    with spawn(LAW, presents="vllm") as vllm:
        assert went_well(measure(tmp_path / "run", vllm.urls, "--workload", "single", runs=1))
    records = rows(tmp_path / "run")
    assert {(row["outcome"], row["output_tokens"], row["tokens_from"]) for row in records} == {("ok", TOKENS, "usage")}
    assert all(row["event_ns"] == [] for row in records)


@pytest.mark.alone
def test_without_solo_runs_no_speedup_is_told(pair: Any, tmp_path: Path) -> None:
    assert went_well(measure(tmp_path / "run", pair.urls, "--no-solo"))
    told = agents_of(tmp_path / "run")
    assert told["speedup"]["value"] is None
    assert "no-solo-runs" in codes_of(told["speedup"])  # and "void" where the machine was too busy
    assert told["overlap"]["value"] == pytest.approx(2.0, rel=0.05)


def test_options_go_to_the_agents_they_are_meant_for(pair: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    more = ("--chimera", "num_gpu=80", "--chimera2", "num_gpu=100", "--baseline", "num_ctx=4096")
    assert went_well(measure(out, pair.urls, *more, scenario="baseline_vs_chimera", runs=1))
    collector, insight = (agent["asked_options"] for agent in manifest_of(out)["agents"])
    assert collector == {"num_ctx": 4096}
    assert insight == {"num_gpu": 80, "top_p": 0.9, "top_k": 40, "repeat_penalty": 1.1}
    assert went_well(measure(tmp_path / "two", pair.urls, *more, scenario="chimera_hetero", runs=1))
    assert [agent["asked_options"]["num_gpu"] for agent in manifest_of(tmp_path / "two")["agents"]] == [80, 100]


def test_think_time_rounds_and_four_agents_on_two_servers(pair: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    more = ("--agents", 4, "--workload", "micro", "--rounds", 2, "--think-ms", 100)
    assert went_well(measure(out, pair.urls, *more, runs=1))
    records = rows(out)
    names = {"collector", "insight", "collector-2", "insight-2"}
    assert {row["agent"] for row in records} == names
    together = next(run["run"] for run in manifest_of(out)["runs"] if run["arm"] == "concurrent")
    for name in names:
        first, second = (row for row in records if row["run"] == together and row["agent"] == name)
        assert second["intended_ns"] - first["done_ns"] >= 100_000_000


def test_short_answers_are_marked_as_unequal_work(tmp_path: Path) -> None:
    # Answers that end by themselves: the work of a solo run and that of the concurrent one differ.
    with spawn(Law(ttft_s=0.01, gap_s=0.002, instances=2, eos_mean_tokens=6, seed=1), presents="ollama") as free:
        measure(tmp_path / "run", free.urls, "--output-tokens", 60)
    assert "unequal-work" in codes_of(agents_of(tmp_path / "run")["speedup"])


# --- when something breaks -------------------------------------------------------------------------------------------


def test_a_failed_first_call_leaves_its_second_out_and_the_run_is_marked(tmp_path: Path) -> None:
    with spawn(LAW, presents="ollama", faults=("500=1/5",)) as faulty:
        measure(tmp_path / "run", faulty.urls, "--warmup-requests", 0)
    records = rows(tmp_path / "run")
    left_out = [row for row in records if row["outcome"] == "not_sent"]
    assert left_out
    assert all(row["error"] == "the call whose answer it needs failed" for row in left_out)
    assert "run-left-out" in codes_of(agents_of(tmp_path / "run"))


def test_an_endpoint_that_dies_between_arms_ends_the_campaign_and_keeps_what_was_measured(tmp_path: Path) -> None:
    out = tmp_path / "run"
    more = ("--order", "fixed", "--cooldown", "0.3")
    with spawn(Law(ttft_s=0.03, gap_s=0.01), presents="ollama", max_seconds=2.0) as mortal:
        result = measure(out, [mortal.url], *more, runs=20)
    assert result.code == 5, result.err
    assert result.err.count("\n") == 1
    assert "missing" in result.err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["missing_runs"]
    assert len(rows(out)) >= 2


# --- bad input -------------------------------------------------------------------------------------------------------

WRONG = {
    "no scenario": (("agents",), "no agents: give a profile, or --scenario"),
    "another scenario": (("agents", "--scenario", "homo"), "agents.scenario must be one of baseline_vs_chimera"),
    "no permits": (("agents", "--scenario", "chimera_homo", "--permits", "0"), "agents.permits must be >= 1, got 0"),
    "no agents": (("agents", "--scenario", "chimera_homo", "--agents", "0"), "agents.count must be >= 1, got 0"),
    "an option without a value": (("agents", "--scenario", "chimera_homo", "--chimera", "num_gpu"), "NAME=VALUE"),
    "another workload": (
        ("agents", "--scenario", "chimera_homo", "--workload", "three-stage"),
        "agents.workload must be one of two-stage, micro, single, synthetic, got 'three-stage'",
    ),
    "a prompt length for a fixed prompt": (
        ("agents", "--scenario", "chimera_homo", "--input-tokens", "100"),
        "work.prompt_tokens has no meaning beside the workload two-stage",
    ),
    "phases of nothing": (("agents", "--scenario", "chimera_homo", "--phases", "1"), "--phases: there are no config"),
    "a phase that is not there": (("agents", "agents-30", "--phases", "4"), "no phase 4; there are 1, 2, 3"),
    "phases that are no numbers": (("agents", "agents-30", "--phases", "x"), "write all, or numbers such as 1,3"),
    "live counters of configurations": (
        ("agents", "agents-30", "--prometheus-port", "0"),
        "live counters are of one campaign: a profile with configurations makes many",
    ),
    "a live table of configurations": (
        ("agents", "agents-30", "--live"),
        "the table of --live is of one campaign: a profile with configurations makes many; leave it out",
    ),
    "until over configurations": (("agents", "agents-30", "--until", "2%"), "--until cannot go with configurations"),
    "a profile without agents": (("agents", "quickstart"), "describes no agents"),
    "agents under run": (("run", "agents-30"), "describes agents; use loadgen agents agents-30"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_line_is_one_line_and_starts_nothing(case: str, tmp_path: Path) -> None:
    words, told = WRONG[case]
    result = run_here(*words, "--url", "http://127.0.0.1:9", "--out", tmp_path / "run")
    assert result.code == 2
    assert told in result.line
    assert not (tmp_path / "run").exists()


def test_a_folder_without_files_is_refused(pair: Any, tmp_path: Path) -> None:
    result = run_here(
        *("agents", "--scenario", "chimera_homo", "--url", pair.url, "--data", tmp_path, "--out", tmp_path / "run")
    )
    assert result.code == 2
    assert "holds no csv, json or md file" in result.line


WRONG_PROFILES = {
    "agents.members has two agents named a": {"members": [{"name": "a"}, {"name": "a"}]},
    "agents.members[1].target must be from 0 to 0": {"members": [{"name": "a"}, {"name": "b", "target": 1}]},
    "agents.members[0].target is none of the targets": {"members": [{"name": "a", "target": "c"}]},
    "agents.members[0].name must be letters": {"members": [{"name": "../a"}]},
    "agents.scenario is missing": {"permits": 2},
    "agents.scenario chimera_homo makes its own agents": {"scenario": "chimera_homo", "members": [{"name": "a"}]},
    "agents.configurations[1] has the id 1 of another one": {
        "scenario": "chimera_homo",
        "configurations": [{"id": 1}, {"id": "1"}],
    },
    "agents.configurations[0].scenario must be one of": {
        "scenario": "chimera_homo",
        "configurations": [{"id": 1, "scenario": "other"}],
    },
    "agents.chimra is not a known key (did you mean chimera?)": {"scenario": "chimera_homo", "chimra": {}},
}


@pytest.mark.parametrize("told", WRONG_PROFILES)
def test_a_wrong_profile_is_one_line(told: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump({"target": {"url": "http://127.0.0.1:9"}, "agents": WRONG_PROFILES[told]}))
    with pytest.raises(UsageError) as error:
        load(path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"load": {"concurrency": 2, "requests": 2}}, "load has no meaning beside agents"),
        ({"workers": 2}, "workers cannot go with agents"),
        ({"work": {"output_tokens": {"uniform": {"low": 1, "high": 9}}}}, "work.output_tokens must be one number"),
        ({"work": {"cache": "none"}}, "work.cache must be unique"),
        ({"work": {"dataset": "x.jsonl"}}, "work.dataset has no meaning beside agents"),
    ],
)
def test_what_cannot_go_with_agents_is_refused(part: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump({"agents": {"scenario": "chimera_homo"}, **part}))
    with pytest.raises(UsageError, match=told):
        load(path)


def test_a_profile_of_members_is_a_scenario_of_its_own(pair: Any, tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    members = [{"name": "reader", "target": 1, "options": {"num_ctx": 512}}, {"name": "writer", "target": "first"}]
    targets = [{"url": pair.urls[0], "name": "first"}, {"url": pair.urls[1], "name": "second"}]
    about = {"scenario": "pipeline", "workload": "micro", "members": members}
    path.write_text(yaml.safe_dump({"target": targets, "agents": about, "work": {"output_tokens": TOKENS}}))
    result = run_here("agents", path, "--out", tmp_path / "run", "--quiet", "--no-progress")
    assert went_well(result), result.err
    assert {(row["agent"], row["endpoint"]) for row in rows(tmp_path / "run")} == {
        ("reader", "second"),
        ("writer", "first"),
    }
    assert manifest_of(tmp_path / "run")["scenario"] == "pipeline"


@pytest.mark.parametrize(
    "about", [{"scenario": "chimera_homo", "rounds": 3}, {"members": [{"name": "a"}], "workload": "synthetic"}]
)
def test_what_a_manifest_keeps_of_a_profile_makes_the_same_agents_again(about: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump({"target": {"url": "http://127.0.0.1:9"}, "agents": about}))
    profile = load(path)
    path.write_text(yaml.safe_dump(profile.resolved()))
    again = load(path)
    assert again.agents == profile.agents
    assert again.load == profile.load
    assert again.resolved() == profile.resolved()


# --- artifacts and sweeps --------------------------------------------------------------------------------------------


def test_artifacts_have_the_guides_fields(finished: Path) -> None:
    folder = finished / "artifacts"
    summary = json.loads((folder / "summary.json").read_text())
    assert [run["run_number"] for run in summary["runs"]] == [1, 2, 3]
    for run in summary["runs"]:
        walls = run["baseline_duration"] + run["chimera_duration"]
        assert run["sequential_estimated_time"] == pytest.approx(walls)
        assert run["concurrency_speedup"] == pytest.approx(walls / run["concurrent_wall_time"])
        assert run["efficiency_percent"] == pytest.approx(50 * run["concurrency_speedup"])
        assert run["resource_contention_detected"] is False
        assert run["throughput_delta"] == pytest.approx(run["insight_throughput"] - run["collector_throughput"])
        assert run["gpu_memory_peak"] is None
    assert summary["aggregate"]["baseline_throughput"] == pytest.approx(12 / 0.11)
    assert summary["chimera_overrides"]["num_gpu"] == 80
    metrics = json.loads((folder / "run_2" / "metrics.json").read_text())
    calls = metrics["insight"]["llm_calls"]
    # The guide's TTFT is from the sending; that from when a call was due has a wait for its turn in it.
    assert all(call["ttft_ms"] == call["ttft_service_ms"] <= call["ttft_intended_ms"] for call in calls)
    assert [call["stage"] for call in calls] == ["analysis", "report"]
    assert calls[0]["eval_duration_ms"] == 110
    assert len(calls[1]["response"].split()) == TOKENS
    assert metrics["insight"]["aggregate_metrics"]["total_tokens_generated"] == 2 * TOKENS
    report = (folder / "comparison_report.md").read_text()
    for section in ("Executive summary", "Aggregate performance", "Run by run", "Configuration", "Conclusion"):
        assert f"## {section}" in report
    assert "excellent" in report


def test_no_text_is_kept_unless_asked_for(pair: Any, tmp_path: Path) -> None:
    assert went_well(measure(tmp_path / "run", pair.urls, runs=1))
    assert not (tmp_path / "run" / "artifacts").exists()


def test_a_sweep_takes_turns_and_has_a_directory_for_each_configuration(pair: Any, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    result = run_here(
        *("agents", "agents-30", "--phases", "3", "--url", pair.urls[0], "--url", pair.urls[1], "--runs", 2),
        *("--output-tokens", 6, "--workload", "micro", "--seed", 3, "--artifacts", "--json", "--out", out),
        "--no-progress",
    )
    assert went_well(result), result.err
    names = [f"phase_3_test_{number}" for number in (200, 201, 202)]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == names
    began = sorted((run["start_ns"], name, run["block"]) for name in names for run in manifest_of(out / name)["runs"])
    blocks = [block for _, _, block in began]
    assert blocks == [0] * 9 + [1] * 9  # every configuration's first block before any second one
    order = [name for _, name, _ in began][::3]
    assert order[3:] == order[:3][::-1]
    assert order == [f"phase_3_test_{one}" for _, one in json.loads((out / "matrix.json").read_text())["planned"]]
    summary = result.json()
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["missing"] == []
    assert [one["scenario"] for one in summary["configurations"]] == [
        "chimera_homo",
        "chimera_hetero",
        "baseline_vs_chimera",
    ]
    assert all(one["agents"]["speedup"]["value"] > 1.5 for one in summary["configurations"])
    suite = json.loads((out / "comprehensive_test_summary.json").read_text())
    assert suite["test_execution"]["successful_tests"] == 3
    assert suite["phase_breakdown"] == {"phase_3": {"total": 3, "successful": 3, "failed": 0}}
    hetero = suite["all_test_results"][1]["config"]
    assert (hetero["gpu_layers"], hetero["context"], hetero["gpu2_layers"], hetero["context2"]) == (80, 512, 80, 1024)


def test_the_thirty_configurations_are_those_of_the_guide() -> None:
    agents = load("agents-30").agents
    assert agents is not None
    listed = agents.configurations
    assert [one.id for one in listed] == [*range(1, 19), *range(100, 109), 200, 201, 202]
    assert [sum(one.phase == phase for one in listed) for phase in (1, 2, 3)] == [18, 9, 3]
    ninth = agents.configured(next(one for one in listed if one.id == 9)).crew
    assert [(m.options["num_gpu"], m.options["num_ctx"], m.options["temperature"]) for m in ninth] == [
        (80, 512, 0.8),
        (100, 1024, 0.6),
    ]
    first = agents.configured(listed[0]).crew
    assert first[0].options == {}


def test_the_scaling_profile_has_one_to_eight_agents_for_four_think_times() -> None:
    agents = load("agents-scaling").agents
    assert agents is not None
    crews = [agents.configured(one) for one in agents.configurations]
    assert [len(one.crew) for one in crews] == [*range(1, 9)] * 4
    assert sorted({one.think_ms for one in crews}) == [0, 100, 500, 2000]


@pytest.mark.alone
def test_a_sweep_tells_what_is_left_of_an_agents_speed_among_others(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    with spawn(Law(ttft_s=0.02, gap_s=0.01, batch_slope_s=0.01), presents="ollama") as server:
        result = run_here(
            *("agents", "agents-scaling", "--phases", "1", "--url", server.url, "--runs", 1, "--seed", 3),
            *("--output-tokens", 5, "--rounds", 2, "--cooldown", 0, "--out", out, "--no-progress"),
        )
    assert went_well(result), result.err
    (told,) = json.loads((out / "summary.json").read_text())["scaling"]
    # A call takes 20 ms and four steps of 10 ms for each agent.
    for n, eta in told["eta"].items():
        assert eta == pytest.approx(60 / (20 + 40 * int(n)), rel=0.1)
    assert told["halved_at"] == 3
    assert list(told["fairness"]) == list(told["eta"])
    assert min(told["fairness"].values()) == pytest.approx(1, abs=0.01)  # all were served alike
    assert "tok/s an agent" in result.out
    assert "below a half from 3 agents on" in result.out
    assert "least fairness 1 (Jain)" in " ".join(result.out.split())


def test_a_sweep_whose_server_dies_keeps_what_it_has_and_names_what_it_lacks(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    with spawn(Law(ttft_s=0.03, gap_s=0.01), presents="ollama", max_seconds=5) as mortal:
        result = run_here(
            *("agents", "agents-30", "--phases", "3", "--url", mortal.url, "--runs", 20, "--workload", "micro"),
            *("--output-tokens", 6, "--no-solo", "--out", out, "--no-progress"),
        )
    assert result.code == 5, result.err
    assert "3 of 3 configurations failed" in result.err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["missing"] == [200, 201, 202]
    assert all(one["concurrent_runs"] >= 1 for one in summary["configurations"])


def test_an_interrupted_sweep_keeps_what_it_has(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    with spawn(Law(ttft_s=0.1, gap_s=0.05), presents="ollama") as server:
        words = ("agents", "agents-30", "--url", server.url, "--output-tokens", 10, "--out", out, "--no-progress")
        process = subprocess.Popen(command(*words), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            while not list(out.glob("*/manifest.json")):
                assert process.poll() is None
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=LONGEST_S)
        finally:
            process.kill()
    assert process.returncode == 130, told
    assert "interrupted; what was measured is in" in told
    assert len(json.loads((out / "summary.json").read_text())["missing"]) == 30
    assert len([path for path in out.iterdir() if path.is_dir()]) <= 2


# --- prompts ---------------------------------------------------------------------------------------------------------


def test_the_listing_counts_and_names_at_most_five_of_each_type() -> None:
    names = sample_files()
    assert len(names) == 101
    text = describe_files(names)
    assert text.splitlines()[0] == "101 files"
    assert "csv: 48" in text
    assert "- and 43 more" in text
    assert text.count("\n- ") == 3 * 6
    assert describe_files(("a.csv",)) == "1 files\ncsv: 1\n- a.csv\njson: 0\nmd: 0"


def test_a_folder_is_listed_by_name_with_its_subfolders(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.csv", "b/a.json", "note.MD", "skip.txt"):
        (tmp_path / name).write_text("")
    assert files_in(tmp_path) == ("b/a.json", "note.MD", "z.csv")


def test_prompts_differ_between_runs_in_their_first_words_alone() -> None:
    work = AgentsWork("micro", ("collector", "insight"), output_tokens=5, seed=1)
    one, other = (work.for_run(run).ask(1).prompt or "" for run in (1, 2))
    assert one != other
    assert one.partition("\n\n")[2] == other.partition("\n\n")[2]
    assert len(one.split()) == len(other.split())

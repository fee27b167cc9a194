"""Learning the tokens of a word from usage, against an emulator that counts one token a word, and by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from loadgen.campaign.campaign import Campaign
from loadgen.campaign.measure import measure
from loadgen.campaign.prepare import prepare
from loadgen.emulator import Law, spawn
from loadgen.emulator.spawn import Emulator
from loadgen.probes import sizing
from loadgen.profile import load
from loadgen.record import SIZING_RUN, Outcome, Record

QUICK = Law(ttft_s=0.001, gap_s=0.0)


def record(input_tokens: int | None, outcome: Outcome = Outcome.OK, error: str | None = None) -> Record:
    return Record(0, 0, "one", 0, outcome, input_tokens=input_tokens, error=error)


@pytest.fixture
def emulator() -> Iterator[Any]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(spawn(QUICK, **options))


async def prepared(url: str, directory: Path, target: dict[str, Any] | None = None, **work: Any) -> Campaign:
    overrides = {
        "target": {"url": url, **(target or {})},
        "load": {"concurrency": 2, "requests": 6},
        "work": {"prompt_tokens": 40, "output_tokens": 3, **work},
        "seed": 7,
    }
    return await prepare(load(None, overrides), directory)


async def run(campaign: Campaign, wrong_ratio: float | None = 2.0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure; return the manifest's workload and the records. wrong_ratio: what to believe before the probes."""
    if wrong_ratio is not None:
        campaign.workload.learn(wrong_ratio)
    await measure(campaign, lambda tally: None, asyncio.Event())
    manifest = json.loads((campaign.directory / "manifest.json").read_text("utf-8"))
    return manifest["workload"], pq.read_table(campaign.directory / "records.parquet").to_pylist()


def test_template_around_the_prompts_cancels() -> None:
    learnt = sizing.ratio([record(16 * 2 + 11), record(116 * 2 + 11)], (16, 116))
    assert learnt.tokens_per_word == 2.0
    assert learnt.how.startswith("learnt from usage: 43 and 243 prompt tokens for 16 and 116 words")


def test_answer_without_text_tells_its_prompt_all_the_same() -> None:
    assert sizing.ratio([record(20, Outcome.EMPTY), record(120)], (10, 110)).tokens_per_word == 1.0


@pytest.mark.parametrize("counts", [(300, 300), (300, 20), (16, 16 + 40), (16, 100_000)])
def test_counts_that_cannot_be_teach_nothing_and_are_told(counts: tuple[int, int]) -> None:
    learnt = sizing.ratio([record(count) for count in counts], (16, 116))
    assert learnt.tokens_per_word is None
    assert learnt.how == (
        f"default: the server told {counts[0]} and {counts[1]} prompt tokens for 16 and 116 words, which cannot be"
    )


@pytest.mark.parametrize("presents", ["openai", "ollama", "lmstudio"])
async def test_prompts_get_their_length_from_usage(emulator: Any, tmp_path: Path, presents: str) -> None:
    server: Emulator = emulator(presents=presents)
    workload, records = await run(await prepared(server.url, tmp_path / "run"))
    assert workload["method"] == "ratio"
    assert workload["tokens_per_word"] == 1.0
    assert workload["ratio_from"].startswith("learnt from usage: 16 and 528 prompt tokens for 16 and 528 words")
    assert [(one["outcome"], one["input_tokens"], one["tokens_from"]) for one in records] == [("ok", 40, "usage")] * 6


async def test_probes_ask_for_one_token_each_and_are_in_no_record(emulator: Any, tmp_path: Path) -> None:
    server: Emulator = emulator(presents="openai")
    _, records = await run(await prepared(server.url, tmp_path / "run"))
    truth = server.truth()
    assert sorted(one["seq"] for one in records) == list(range(6))
    probes = [truth[f"{SIZING_RUN}-{seq}"] for seq in (0, 1)]
    assert [(len(one.token_ns), one.input_tokens) for one in probes] == [(1, sizing.SHORT), (1, sizing.LONG)]
    assert len(truth) == len(records) + 2


async def test_server_without_usage_leaves_the_default_and_the_manifest_says_so(emulator: Any, tmp_path: Path) -> None:
    server: Emulator = emulator(presents="openai")
    quiet = {"options": {"stream_options": {"include_usage": False}}}
    workload, records = await run(await prepared(server.url, tmp_path / "run", quiet), wrong_ratio=None)
    assert (workload["tokens_per_word"], workload["ratio_from"]) == (1.0, "default: the server tells no prompt tokens")
    assert {one["tokens_from"] for one in records} == {"events"}


async def test_failed_probe_is_told_and_the_run_goes_on(emulator: Any, tmp_path: Path) -> None:
    server: Emulator = emulator(presents="openai", max_model_len=sizing.LONG)
    workload, records = await run(await prepared(server.url, tmp_path / "run"))
    assert workload["tokens_per_word"] == 2.0
    assert workload["ratio_from"].startswith("default: a probe ended as http_error: ")
    assert str(sizing.LONG) in workload["ratio_from"]
    assert [one["outcome"] for one in records] == ["ok"] * 6


async def test_server_that_lends_its_tokenizer_is_not_probed(emulator: Any, tmp_path: Path) -> None:
    server: Emulator = emulator(presents="vllm")
    workload, records = await run(await prepared(server.url, tmp_path / "run"))
    assert workload["method"] == "server-tokenize"
    assert "ratio_from" not in workload
    assert len(server.truth()) == len(records)


async def test_dataset_is_sent_as_it_is_without_probes(emulator: Any, tmp_path: Path) -> None:
    server: Emulator = emulator(presents="openai")
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"prompt": "one two three"}\n' * 6, "utf-8")
    work: dict[str, Any] = {"dataset": str(lines), "prompt_tokens": None, "cache": "none"}
    workload, records = await run(await prepared(server.url, tmp_path / "run", **work), wrong_ratio=None)
    assert workload["ratio_from"] == "default"
    assert len(server.truth()) == len(records) == 6


async def test_interruption_during_the_probes_ends_the_campaign(emulator: Any, tmp_path: Path) -> None:
    server: Emulator = emulator(presents="openai", faults=("never-answer=1",))
    campaign = await prepared(server.url, tmp_path / "run")
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.2, stop.set)
    async with asyncio.timeout(30):
        finished = await measure(campaign, lambda tally: None, stop)
    assert finished.interrupted
    manifest = json.loads((campaign.directory / "manifest.json").read_text("utf-8"))
    assert manifest["workload"]["ratio_from"] == "default"

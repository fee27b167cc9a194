"""Every call goes the way of the requests: with a URL's query, through the proxy, by the same certificates."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import msgspec
import pytest
import trustme
from msgspec import UNSET

from loadgen.campaign.campaign import Campaign
from loadgen.campaign.measure import measure
from loadgen.campaign.prepare import prepare
from loadgen.emulator import Law, spawn
from loadgen.errors import Unreachable
from loadgen.manifest import TelemetryFacts
from loadgen.profile import TargetSpec, load
from loadgen.servers.discover import slots_of
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.isolation import clear
from loadgen.servers.resolve import resolve
from loadgen.servers.tokenizer import TOKENIZE_AT_ONCE
from loadgen.wire import Target
from loadgen.workload.text import WORDS
from tests.fakes.gateway import gateway
from tests.fakes.talker import Talk, talking

QUERY = "api-version=2024-10-21&tenant=b"


@pytest.mark.parametrize(
    ("presents", "asked"),
    [
        ("vllm", {"/v1/chat/completions", "/v1/models", "/tokenize", "/reset_prefix_cache", "/metrics"}),
        ("llamacpp", {"/v1/chat/completions", "/v1/models", "/tokenize", "/slots"}),
        ("ollama", {"/api/chat", "/api/generate", "/api/ps"}),
        ("lmstudio", {"/api/v1/chat", "/api/v1/models", "/api/v1/models/unload"}),
    ],
)
async def test_every_call_of_a_campaign_carries_the_query(presents: str, asked: set[str], tmp_path: Path) -> None:
    with spawn(Law(ttft_s=0.001, gap_s=0.0, prefix_cache=True), presents=presents) as emulator:
        async with gateway(emulator.url, QUERY) as between:
            given = {
                "target": {"url": f"{between.url}/?{QUERY}"},
                "load": {"concurrency": 1, "requests": 3},
                "work": {"prompt_tokens": 8, "output_tokens": 2},
                "runs": 2,
                "campaign": {"isolation": "unload"},
                "telemetry": {"interval_s": 0.05, "gpu": "off"},
            }
            campaign = await prepare(load(None, given), tmp_path / "run")
            finished = await measure(campaign, lambda tally: None, asyncio.Event())
            assert between.refused == {}
            assert set(between.passed) >= asked
    assert (finished.halted, finished.error, finished.missing) == (None, None, 0)
    telemetry = campaign.manifest.telemetry
    assert isinstance(telemetry, TelemetryFacts)
    assert "server" in {source["source"] for source in telemetry.sources}


async def test_slots_are_asked_for_with_the_query() -> None:
    with spawn(Law(slots=3), presents="llamacpp") as emulator:
        async with gateway(emulator.url, QUERY) as between:
            endpoint = await resolve(TargetSpec.model_validate({"url": f"{between.url}/v1?{QUERY}"}))
            told = await slots_of(endpoint)
            assert (told, between.refused) == ((3, "/props total_slots"), {})


async def test_a_control_call_that_fails_does_not_tell_the_query() -> None:
    def answer_nonsense(talk: Talk) -> None:
        talk.read_head()
        talk.sock.sendall(b"nonsense\r\n\r\n")

    with talking(answer_nonsense) as talker:
        url, target = f"http://127.0.0.1:{talker.port}", Target("ollama", "ollama", "m", "/api/chat")
        with pytest.raises(Unreachable) as failed:
            await clear(Endpoint("a", url, target, query="api-key=opensesame"))
    assert str(failed.value) == f"{url}: what answers there does not speak HTTP"


async def prepared(url: str, directory: Path, **more: object) -> Campaign:
    given = {"target": {"url": url}, "load": {"concurrency": 1, "requests": 3}, "work": {"prompt_tokens": 8}, **more}
    return await prepare(load(None, given), directory)


async def test_tokens_are_counted_by_the_certificates_of_the_target(tmp_path: Path) -> None:
    authority, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with spawn() as emulator:
        async with gateway(emulator.url, tls=tls) as between:
            target = {"url": between.url, "ca_file": str(tmp_path / "ca.pem")}
            campaign = await prepared("", tmp_path / "run", target=target)
            assert between.passed["/tokenize"]
    assert campaign.workload.describe().method == "server-tokenize"


async def test_tokens_are_counted_through_the_proxy(tmp_path: Path) -> None:
    with spawn() as emulator:
        async with gateway(emulator.url) as proxy:
            campaign = await prepared(emulator.url, tmp_path / "run", proxy=proxy.url)
            assert proxy.passed["/tokenize"]
    assert campaign.workload.describe().method == "server-tokenize"


async def test_a_server_is_asked_once_in_a_process_for_the_tokens_of_a_text(tmp_path: Path) -> None:
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"prompt": "one two three"}\n{"prompt": "four"}\n{"prompt": "one two three"}\n', "utf-8")
    with spawn() as emulator:
        async with gateway(emulator.url) as between:
            first = await prepared(between.url, tmp_path / "first")
            asked = between.passed["/tokenize"]
            assert asked > len(WORDS)
            assert len(between.connections["/tokenize"]) <= TOKENIZE_AT_ONCE
            again = await prepared(between.url, tmp_path / "again", seed=9)
            assert between.passed["/tokenize"] == asked
            await prepared(between.url, tmp_path / "dataset", work={"dataset": str(lines), "cache": "none"})
            assert between.passed["/tokenize"] == asked + 2
    facts, others = first.workload.describe(), again.workload.describe()
    assert msgspec.structs.replace(facts, seed=UNSET) == msgspec.structs.replace(others, seed=UNSET)
    assert (facts.method, facts.tokens_per_word) == ("server-tokenize", 1.0)


async def test_a_server_that_lends_no_tokenizer_after_all_is_asked_for_one_text(tmp_path: Path) -> None:
    with spawn() as emulator:
        async with gateway(emulator.url, lacking={"/tokenize"}) as between:
            campaign = await prepared(between.url, tmp_path / "run")
            assert between.refused == {"/tokenize": 1}
    assert campaign.workload.describe().method == "ratio"

"""`loadgen run` against real servers: what ends up in the run's directory, by the command line alone.

Each kind of load is offered once and checked by several tests. Where a server keeps counters of its own, they are
the independent witness that no token was lost or counted twice.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from loadgen.record import Kind

INPUT, OUTPUT = 64, 32  # tokens
CHAT, COMPLETIONS, NATIVE = "/v1/chat/completions", "/v1/completions", "/completion"
FLUSHED = 4  # events without a token of their own that llama_cpp.server ends an unfinished UTF-8 character with
LIMIT_S = 120  # of one command; a hung one must not hang the tests
OK, USAGE, VOID, UNREACHABLE = 0, 2, 4, 5  # exit codes

# How the server's own counters of prompt tokens it worked on, of those it had cached, and of answer tokens are called.
COUNTERS = {
    "vllm": ("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
    "llama-server": ("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total"),
}


@dataclass(frozen=True)
class Ran:
    """One `loadgen run`: how it ended, and its directory."""

    code: int
    stdout: str
    stderr: str
    directory: Path

    def _json(self, name: str) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.directory / name).read_text("utf-8"))
        return data

    @cached_property
    def summary(self) -> dict[str, Any]:
        return self._json("summary.json")

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return self._json("manifest.json")

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.directory / "records.parquet").to_pylist()
        return rows

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.records]


@dataclass(frozen=True)
class Load:
    server: str
    path: str
    requests: int
    rate: int | None = None  # None: closed loop, 8 in flight

    def __str__(self) -> str:
        return f"{self.server}{self.path}-{'closed' if self.rate is None else 'open'}"

    @property
    def arguments(self) -> list[str]:
        how = ["--concurrency", "8"] if self.rate is None else ["--rate", str(self.rate)]
        lengths = ["--input-tokens", str(INPUT), "--output-tokens", str(OUTPUT)]
        return ["--path", self.path, *how, "--requests", str(self.requests), *lengths, "--seed", "11"]


VLLM_CHAT, VLLM_TEXT = Load("vllm", CHAT, 200), Load("vllm", COMPLETIONS, 60, rate=20)
LLAMA_CHAT, LLAMA_TEXT = Load("llama-server", CHAT, 200), Load("llama-server", COMPLETIONS, 60, rate=20)
LLAMA_NATIVE = Load("llama-server", NATIVE, 60)
PYTHON_CHAT, PYTHON_TEXT = Load("llamacpp-python", CHAT, 100), Load("llamacpp-python", COMPLETIONS, 20, rate=5)
HF_CHAT, HF_TEXT = Load("transformers", CHAT, 16), Load("transformers", COMPLETIONS, 8, rate=2)
CHATS = [VLLM_CHAT, LLAMA_CHAT, PYTHON_CHAT, HF_CHAT]
TELLING_USAGE = [VLLM_CHAT, VLLM_TEXT, LLAMA_CHAT, LLAMA_TEXT, LLAMA_NATIVE, HF_CHAT, HF_TEXT]
ALL = [VLLM_CHAT, VLLM_TEXT, LLAMA_CHAT, LLAMA_TEXT, LLAMA_NATIVE, PYTHON_CHAT, PYTHON_TEXT, HF_CHAT, HF_TEXT]

each_load = pytest.mark.parametrize("load", ALL, ids=str)


def loadgen(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "loadgen", *arguments]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False)


@pytest.fixture(scope="session")
def url_of(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return a function that returns the address of the server of that name, started at first use."""

    def address(name: str) -> str:
        url: str = request.getfixturevalue(f"{name.replace('-', '_')}_url")
        return url

    return address


@pytest.fixture(scope="session")
def run_at(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ran]:
    """Return a function that runs `loadgen run` at a URL into a directory of its own."""

    def run(url: str, *arguments: str, profile: Path | None = None) -> Ran:
        out = tmp_path_factory.mktemp("run") / "out"
        before = [str(profile)] if profile else []
        target = [] if profile else ["--url", url]
        done = loadgen("run", *before, *target, *arguments, "--no-progress", "--out", str(out))
        return Ran(done.returncode, done.stdout, done.stderr, out)

    return run


@dataclass(frozen=True)
class Measured(Ran):
    """With what the server's own counters rose by, where it has some: prompt tokens and answer tokens."""

    counted: tuple[int, int] | None


@pytest.fixture(scope="session")
def measured(
    url_of: Callable[[str], str], run_at: Callable[..., Ran], model_name: Callable[[str, str], str]
) -> Callable[[Load], Measured]:
    """Return a function that offers a load, the first time it is asked for, and returns what came of it."""
    done: dict[Load, Measured] = {}

    def measure(load: Load) -> Measured:
        if load not in done:
            url = url_of(load.server)
            before = counters(load.server, url)
            ran = run_at(url, *load.arguments, "--model", model_name(load.server, "tiny"))
            after = counters(load.server, url)
            rose = (after[0] - before[0], after[1] - before[1]) if before and after else None
            done[load] = Measured(ran.code, ran.stdout, ran.stderr, ran.directory, rose)
        return done[load]

    return measure


def counters(server: str, url: str) -> tuple[int, int] | None:
    if server not in COUNTERS:
        return None
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    prompt, answered = (
        sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))
        for name in COUNTERS[server]
    )
    return round(prompt), round(answered)


def kinds(row: dict[str, Any]) -> list[Kind]:
    return [Kind(kind) for kind in row["event_kind"]]


def first_content(row: dict[str, Any]) -> int:
    return kinds(row).index(Kind.CONTENT)


@each_load
def test_every_request_is_ok(load: Load, measured: Callable[[Load], Measured]) -> None:
    ran = measured(load)
    assert [(row["outcome"], row["error"], row["status"]) for row in ran.records] == [("ok", None, 200)] * load.requests
    assert sorted(ran.column("seq")) == list(range(load.requests))
    assert (ran.summary["requests"]["completed"], ran.summary["requests"]["failed"]) == (load.requests, {})


@each_load
def test_kernel_stamped_every_read_and_the_exit_code_is_that_of_the_verdict(
    load: Load, measured: Callable[[Load], Measured]
) -> None:
    ran = measured(load)
    assert ran.summary["instrument"]["tier"] == "kernel"
    assert ran.manifest["instrument"]["unstamped_reads"] == 0
    # A machine that servers and tests share may well be too slow for us; then the verdict has to say so.
    assert (ran.code, ran.summary["verdict"]) in ((OK, "ok"), (VOID, "generator-limited"))


@pytest.mark.parametrize("load", TELLING_USAGE, ids=str)
def test_answers_have_the_tokens_that_were_asked_for_by_the_servers_own_count(
    load: Load, measured: Callable[[Load], Measured]
) -> None:
    ran = measured(load)
    assert set(ran.column("tokens_from")) == {"usage"}
    assert set(ran.column("output_tokens")) == {OUTPUT}
    assert set(ran.column("finish_reason")) == {"length"}


@pytest.mark.parametrize("load", [VLLM_CHAT, VLLM_TEXT, LLAMA_CHAT, LLAMA_TEXT, LLAMA_NATIVE], ids=str)
def test_tokens_add_up_to_what_the_servers_counters_rose_by(load: Load, measured: Callable[[Load], Measured]) -> None:
    ran = measured(load)
    cached = sum(tokens or 0 for tokens in ran.column("cached_tokens")) if load.server == "llama-server" else 0
    assert ran.counted == (sum(ran.column("input_tokens")) - cached, sum(ran.column("output_tokens")))


@pytest.mark.parametrize("load", [PYTHON_CHAT, PYTHON_TEXT], ids=str)
def test_server_that_tells_no_usage_has_its_events_counted_and_no_tokens_per_second(
    load: Load, measured: Callable[[Load], Measured]
) -> None:
    ran = measured(load)
    assert set(ran.column("tokens_from")) == {"events"}
    assert [row["output_tokens"] for row in ran.records] == [kinds(row).count(Kind.CONTENT) for row in ran.records]
    assert max(ran.column("output_tokens")) <= OUTPUT + FLUSHED
    assert ran.summary["metrics"]["output_tokens_per_s"]["value"] is None


@each_load
def test_events_bring_about_a_token_each(load: Load, measured: Callable[[Load], Measured]) -> None:
    # Below 1 where tokens are pieces of a UTF-8 character: it comes with the next one, or as an empty event.
    for row in measured(load).records:
        texts = kinds(row).count(Kind.CONTENT)
        assert OUTPUT / 2 <= texts <= OUTPUT + (FLUSHED if load.server == "llamacpp-python" else 0)
        assert set(kinds(row)) <= {Kind.ROLE, Kind.CONTENT, Kind.EMPTY, Kind.USAGE}
        if row["event_tokens"] is not None:
            assert sum(row["event_tokens"]) == row["output_tokens"]


@pytest.mark.parametrize("load", TELLING_USAGE, ids=str)
def test_usage_comes_once_and_last(load: Load, measured: Callable[[Load], Measured]) -> None:
    for row in measured(load).records:
        assert kinds(row)[-1] is Kind.USAGE
        assert kinds(row).count(Kind.USAGE) == 1


@pytest.mark.parametrize("load", CHATS, ids=str)
def test_first_token_is_the_first_text_and_not_the_role(load: Load, measured: Callable[[Load], Measured]) -> None:
    ran = measured(load)
    # llama-server leaves the role out where the first token is a piece of a character.
    opened = [row for row in ran.records if kinds(row)[0] is Kind.ROLE]
    assert len(opened) > load.requests / 2
    assert all(first_content(row) > 0 for row in opened)
    waits_ms = [(row["event_ns"][first_content(row)] - row["sent_ns"]) / 1e6 for row in ran.records]
    mean = ran.summary["metrics"]["ttft_service_ms"]["mean"]["value"]
    assert mean == pytest.approx(sum(waits_ms) / len(waits_ms), rel=1e-6)


@each_load
def test_instants_of_a_request_are_in_order(load: Load, measured: Callable[[Load], Measured]) -> None:
    for row in measured(load).records:
        instants = [row["sent_ns"], row["headers_ns"], *row["event_ns"], row["done_ns"]]
        assert instants == sorted(instants)
        assert row["intended_ns"] <= row["sent_ns"]


@pytest.mark.parametrize("load", [VLLM_TEXT, LLAMA_TEXT, LLAMA_NATIVE], ids=str)
def test_prompts_sized_by_the_servers_tokenizer_are_exactly_as_long_as_asked(
    load: Load, measured: Callable[[Load], Measured]
) -> None:
    ran = measured(load)
    assert ran.manifest["workload"]["method"] == "server-tokenize"
    assert set(ran.column("input_tokens")) == {INPUT}


@pytest.mark.parametrize("load", [VLLM_CHAT, LLAMA_CHAT], ids=str)
def test_chat_template_adds_the_same_few_tokens_to_every_prompt(
    load: Load, measured: Callable[[Load], Measured]
) -> None:
    [tokens] = set(measured(load).column("input_tokens"))
    assert INPUT < tokens < INPUT + 20


def test_llama_cpp_servers_tokenizer_is_borrowed_too(measured: Callable[[Load], Measured]) -> None:
    assert measured(PYTHON_TEXT).manifest["workload"]["method"] == "server-tokenize"


def test_transformers_teaches_the_length_of_a_word_by_its_usage(measured: Callable[[Load], Measured]) -> None:
    ran = measured(HF_TEXT)
    workload = ran.manifest["workload"]
    assert workload["method"] == "ratio"
    assert workload["ratio_from"].startswith("learnt from usage: ")
    # Words taken for one token each would miss by more: that is what the ratio of this model's tokenizer is for.
    assert workload["tokens_per_word"] > 1.15
    lengths = ran.column("input_tokens")
    assert sum(lengths) / len(lengths) == pytest.approx(INPUT, rel=0.1)


def test_what_vllm_tells_of_its_queue_and_cache_stands_beside_what_its_clients_saw(
    measured: Callable[[Load], Measured],
) -> None:
    ran = measured(VLLM_CHAT)
    (server,) = ran.summary["telemetry"]["servers"].values()
    assert server["queue_mean_ms"] is not None
    assert 0 <= server["kv_usage"]["mean"] <= 1
    assert server["server_ttft_mean_ms"] == pytest.approx(server["client_ttft_service_mean_ms"], rel=0.5)
    assert "KV cache" in (ran.directory / "report.html").read_text("utf-8")


def test_vllms_connections_are_kept(measured: Callable[[Load], Measured]) -> None:
    ran = measured(VLLM_CHAT)
    assert sum(row["connected_ns"] is not None for row in ran.records) == 8
    assert ran.summary["stale_connections"] == 0


def test_llama_servers_unannounced_closes_cost_no_request(measured: Callable[[Load], Measured]) -> None:
    ran = measured(LLAMA_CHAT)
    assert all(row["connected_ns"] is not None for row in ran.records)
    assert ran.summary["stale_connections"] == sum(ran.column("stale_connections"))
    # Three of them are enough to trust no connection of this server; others were then already on their way.
    assert ran.summary["stale_connections"] < 3 + 8


@pytest.mark.parametrize("load", [LLAMA_CHAT, LLAMA_TEXT, LLAMA_NATIVE], ids=str)
def test_llama_servers_own_timings_fit_into_the_request(load: Load, measured: Callable[[Load], Measured]) -> None:
    for row in measured(load).records:
        assert row["server_prompt_eval_ns"] > 0
        assert row["server_eval_ns"] > 0
        assert row["server_prompt_eval_ns"] + row["server_eval_ns"] < row["done_ns"] - row["sent_ns"]


@pytest.mark.parametrize(
    ("server", "kind", "models"),
    [
        ("vllm", "vllm", ["tiny"]),
        ("llama-server", "llamacpp", ["tiny"]),
        ("llamacpp-python", "llamacpp-python", ["tiny"]),
        ("transformers", "transformers", []),
    ],
)
def test_discover_names_the_server(server: str, kind: str, models: list[str], url_of: Callable[[str], str]) -> None:
    url = url_of(server)
    done = loadgen("discover", "--url", url, "--json")
    assert done.returncode == OK, done.stderr
    [row] = json.loads(done.stdout)
    assert (row["url"], row["kind"], row["api"], row["models"]) == (url, kind, "openai", models)


def test_wrong_model_is_refused_with_those_that_vllm_has(vllm_url: str, run_at: Callable[..., Ran]) -> None:
    ran = run_at(vllm_url, "--concurrency", "2", "--requests", "2", "--model", "nosuch")
    assert ran.code == USAGE
    [line] = ran.stderr.splitlines()
    assert "nosuch" in line
    assert "tiny" in line
    assert not ran.directory.exists()


def test_server_that_lists_no_model_wants_it_named(transformers_url: str, run_at: Callable[..., Ran]) -> None:
    ran = run_at(transformers_url, "--concurrency", "2", "--requests", "2")
    assert ran.code == USAGE
    [line] = ran.stderr.splitlines()
    assert "--model" in line


@pytest.mark.parametrize("server", ["vllm", "llama-server"])
def test_prompt_beyond_the_context_fails_with_the_servers_words(
    server: str, url_of: Callable[[str], str], run_at: Callable[..., Ran]
) -> None:
    ran = run_at(url_of(server), "--concurrency", "2", "--requests", "4", "--input-tokens", "6000")
    assert ran.code == UNREACHABLE
    assert ran.summary["verdict"] == "failed"
    assert ran.summary["requests"]["failed"] == {"http_error": 4}
    assert {(row["status"], row["output_tokens"]) for row in ran.records} == {(400, None)}
    assert all("4096 tokens" in row["error"] for row in ran.records)
    [line] = ran.stderr.splitlines()
    assert "4096 tokens" in line


def test_llama_cpp_servers_empty_stream_for_a_prompt_beyond_the_context_is_no_success(
    llamacpp_python_url: str, run_at: Callable[..., Ran]
) -> None:
    ran = run_at(llamacpp_python_url, "--concurrency", "2", "--requests", "2", "--input-tokens", "6000")
    assert ran.code == UNREACHABLE
    assert [(row["outcome"], row["status"]) for row in ran.records] == [("truncated", 200)] * 2


def test_answers_that_end_by_themselves_are_counted_as_long_as_they_are(
    real_server: Callable[..., str], run_at: Callable[..., Ran], tmp_path: Path
) -> None:
    url = real_server("llama-server", slots=1, model="tiny-eos")
    profile = tmp_path / "profile.yaml"
    options = "{temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0}"
    profile.write_text(
        f'target: {{url: "{url}", force_length: false, options: {options}}}\n'
        "load: {concurrency: 2, requests: 40}\n"
        "work: {prompt_tokens: 40, output_tokens: 1000}\n",
        "utf-8",
    )
    ran = run_at(url, profile=profile)
    assert set(ran.column("finish_reason")) == {"stop"}
    assert set(ran.column("tokens_from")) == {"usage"}
    lengths = ran.column("output_tokens")
    assert len(set(lengths)) > 10
    assert max(lengths) < 1000
    assert [row["outcome"] for row in ran.records] == ["ok" if tokens else "empty" for tokens in lengths]


def test_forced_length_outlasts_a_model_that_would_stop(
    real_server: Callable[..., str], run_at: Callable[..., Ran]
) -> None:
    url = real_server("llama-server", slots=1, model="tiny-eos")
    hot = [f"--option={option}" for option in ("temperature=1", "top_k=0", "top_p=1", "min_p=0")]
    ran = run_at(url, "--concurrency", "2", "--requests", "8", "--output-tokens", "200", *hot)
    assert [(row["outcome"], row["finish_reason"], row["output_tokens"]) for row in ran.records] == [
        ("ok", "length", 200)
    ] * 8

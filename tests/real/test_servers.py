"""What the real servers put on the wire, read with http.client alone.

These tests judge the servers, not loadgen: when one of them fails after an upgrade, a server has changed its
ways, and what loadgen assumes of it wants another look.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

TOKENS = 24


@dataclass(frozen=True, slots=True)
class Stream:
    """One streamed answer: its events in order, and whether `[DONE]` ended it."""

    status: int
    content_type: str
    events: list[dict[str, Any]]
    done: bool

    @property
    def text(self) -> str:
        return "".join(choice["delta"].get("content") or "" for choice in self.choices)

    @property
    def choices(self) -> list[dict[str, Any]]:
        return [choice for event in self.events for choice in event["choices"]]

    @property
    def finish_reasons(self) -> list[str]:
        return [reason for choice in self.choices if (reason := choice.get("finish_reason"))]

    @property
    def usages(self) -> list[dict[str, Any]]:
        return [usage for event in self.events if (usage := event.get("usage"))]


def chat(url: str, model: str, **fields: Any) -> Stream:
    """Send one streaming chat completion and read it to its end."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "Say something."}],
        "max_tokens": TOKENS,
        "stream": True,
    }
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body | fields), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        text = response.read().decode("utf-8")
    finally:
        connection.close()
    data = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
    events = [json.loads(one) for one in data if one != "[DONE]"]
    return Stream(response.status, response.headers.get_content_type(), events, data[-1:] == ["[DONE]"])


USAGE = {"stream_options": {"include_usage": True}}


def test_vllm_streams_an_answer_with_its_usage_last(vllm_url: str) -> None:
    answer = chat(vllm_url, "tiny", **USAGE)
    assert (answer.status, answer.content_type, answer.done) == (200, "text/event-stream", True)
    assert answer.text
    assert answer.finish_reasons == ["length"]
    assert answer.events[-1]["choices"] == []
    assert [usage["completion_tokens"] for usage in answer.usages] == [TOKENS]


def test_llama_server_streams_an_answer_with_its_usage_last(llama_server_url: str) -> None:
    answer = chat(llama_server_url, "tiny", **USAGE)
    assert (answer.status, answer.content_type, answer.done) == (200, "text/event-stream", True)
    assert answer.text
    assert answer.finish_reasons == ["length"]
    assert answer.events[-1]["choices"] == []
    assert [usage["completion_tokens"] for usage in answer.usages] == [TOKENS]


def test_llamacpp_python_streams_an_answer_without_usage_even_if_asked(llamacpp_python_url: str) -> None:
    answer = chat(llamacpp_python_url, "tiny", **USAGE)
    assert (answer.status, answer.content_type, answer.done) == (200, "text/event-stream", True)
    assert answer.text
    assert answer.finish_reasons == ["length"]
    assert answer.usages == []


def test_transformers_streams_an_answer_without_done_and_usage_beside_the_finish(
    transformers_url: str, model_name: Callable[[str, str], str]
) -> None:
    answer = chat(transformers_url, model_name("transformers", "tiny"))
    assert (answer.status, answer.content_type, answer.done) == (200, "text/event-stream", False)
    assert answer.text
    assert answer.finish_reasons == ["length"]
    assert answer.events[-1]["choices"]
    assert [usage["completion_tokens"] for usage in answer.usages] == [TOKENS]


@pytest.mark.parametrize(("model", "reason"), [("tiny", "length"), ("tiny-eos", "stop")])
def test_model_decides_whether_an_answer_ends_by_itself(
    real_server: Callable[..., str], model: str, reason: str
) -> None:
    url = real_server("llama-server", slots=1, model=model)
    answer = chat(url, "tiny", max_tokens=1000, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, **USAGE)
    assert answer.finish_reasons == [reason]
    assert (answer.usages[-1]["completion_tokens"] == 1000) == (reason == "length")

"""The official clients must be able to talk to the emulator, and to understand its errors."""

from __future__ import annotations

from collections.abc import Iterator

import ollama
import openai
import pytest
from ollama import Client

from loadgen.emulator.spawn import Emulator

MESSAGES = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def client(vllm: Emulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{vllm.url}/v1", api_key="none", max_retries=0, timeout=5) as client:
        yield client


def test_openai_streams_chat(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="emulated", messages=MESSAGES, max_tokens=4, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert len(text.split()) == 4
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4


def test_openai_chat_completions_and_models(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="emulated", messages=MESSAGES, max_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens == 3
    assert len(client.completions.create(model="emulated", prompt="a b", max_tokens=2).choices[0].text.split()) == 2
    assert [model.id for model in client.models.list()] == ["emulated"]


def test_openai_understands_the_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="other", messages=MESSAGES)
    for name, kind in (
        ("429", openai.RateLimitError),
        ("503", openai.InternalServerError),
        ("refuse", openai.APIConnectionError),
    ):
        with pytest.raises(kind):
            client.chat.completions.create(
                model="emulated", messages=MESSAGES, extra_headers={"X-Emulator-Fault": name}
            )
    stream = client.chat.completions.create(
        model="emulated", messages=MESSAGES, stream=True, extra_headers={"X-Emulator-Fault": "error-event"}
    )
    with pytest.raises(openai.APIError, match="told to fail"):
        list(stream)


@pytest.mark.parametrize("name", ["llamacpp_server", "lmstudio_server"])
def test_openai_talks_to_the_other_identities(name: str, request: pytest.FixtureRequest) -> None:
    server: Emulator = request.getfixturevalue(name)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=5) as client:
        for _ in range(2):
            stream = client.chat.completions.create(model="emulated", messages=MESSAGES, max_tokens=2, stream=True)
            assert len("".join(c.choices[0].delta.content or "" for c in stream).split()) == 2


@pytest.fixture
def native(ollama_server: Emulator) -> Iterator[Client]:
    client = Client(host=ollama_server.url, timeout=5)
    yield client
    client._client.close()


def test_ollama_chat_and_generate(native: Client) -> None:
    options = {"num_predict": 3}
    whole = native.chat(model="tiny:1b", messages=MESSAGES, options=options)
    assert len(whole.message.content.split()) == whole.eval_count == 3
    parts = list(native.generate(model="tiny:1b", prompt="one two", stream=True, options=options))
    assert len("".join(part.response for part in parts).split()) == 3
    assert parts[-1].done
    assert parts[-1].eval_duration == 4_000_000
    assert len(list(native.chat(model="tiny:1b", messages=MESSAGES, stream=True, options=options))) == 4


def test_ollama_models_and_errors(native: Client) -> None:
    assert native.list().models[0].model == "tiny:1b"
    assert native.ps().models[0].model == "tiny:1b"
    assert native.show("tiny:1b").details.format == "gguf"
    with pytest.raises(ollama.ResponseError, match="not found"):
        native.generate(model="no", prompt="x")


def test_openai_client_talks_to_ollama(ollama_server: Emulator) -> None:
    with openai.OpenAI(base_url=f"{ollama_server.url}/v1", api_key="none", max_retries=0, timeout=5) as client:
        stream = client.chat.completions.create(model="tiny:1b", messages=MESSAGES, max_tokens=2, stream=True)
        assert len("".join(c.choices[0].delta.content or "" for c in stream).split()) == 2

"""What a request asks of each kind of server: no field that it would refuse, and length forced where it can be."""

from __future__ import annotations

import orjson
import pytest

from loadgen.wire import Ask, Target, dialects, lmstudio, ollama, openai

CHAT, COMPLETIONS = openai.DEFAULT_PATH, openai.COMPLETIONS_PATH
PROMPT = Ask(prompt="hi", output_tokens=16)


def openai_body(kind, ask=PROMPT, path=CHAT, **how):
    return orjson.loads(openai.request_body(ask, Target("openai", kind, "m", path, **how)))


COMMON = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True, "temperature": 0}
USAGE = {"stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("vllm", {"ignore_eos": True, "min_tokens": 16, **USAGE}),
        ("sglang", {"ignore_eos": True, "min_tokens": 16, **USAGE}),
        ("llamacpp", {"ignore_eos": True, **USAGE}),
        ("llamacpp-python", {}),
        ("transformers", {}),
        ("ollama", USAGE),
        ("lmstudio", USAGE),
        ("openai", USAGE),
    ],
)
def test_each_kind_is_asked_only_what_it_takes(kind, more):
    assert openai_body(kind) == {**COMMON, "max_tokens": 16, **more}


def test_length_is_neither_forced_nor_capped_unless_asked():
    assert openai_body("vllm", force_length=False) == {**COMMON, "max_tokens": 16, **USAGE}
    assert openai_body("vllm", Ask(prompt="hi")) == {**COMMON, **USAGE}


def test_options_win_and_null_takes_a_field_out():
    body = openai_body("vllm", options={"temperature": 0.7, "ignore_eos": None, "cache_salt": "s", "min_tokens": 2})
    assert (body["temperature"], body["cache_salt"], body["min_tokens"]) == (0.7, "s", 2)
    assert "ignore_eos" not in body


def test_a_cap_in_the_options_replaces_ours():
    body = openai_body("openai", options={"max_completion_tokens": 99})
    assert body["max_completion_tokens"] == 99
    assert "max_tokens" not in body


@pytest.mark.parametrize(("kind", "asked"), [("vllm", True), ("sglang", True), ("llamacpp", False), ("ollama", False)])
def test_running_usage_is_asked_only_on_demand_and_where_it_exists(kind, asked):
    body = openai_body(kind, options={"continuous_usage_stats": True})
    assert body["stream_options"].get("continuous_usage_stats", False) is asked
    assert "continuous_usage_stats" not in body
    assert "continuous_usage_stats" not in openai_body(kind)["stream_options"]


def test_stream_options_go_away_with_streaming():
    assert "stream_options" not in openai_body("vllm", options={"stream": False})


def test_completions_take_text_or_token_ids():
    assert openai_body("vllm", path=COMPLETIONS)["prompt"] == "hi"
    assert openai_body("vllm", Ask(prompt_ids=[1, 2]), path=COMPLETIONS)["prompt"] == [1, 2]


def test_llamacpp_native_completion_has_its_own_cap():
    body = openai_body("llamacpp", path="/completion")
    assert (body["prompt"], body["n_predict"], body["ignore_eos"]) == ("hi", 16, True)
    assert not {"max_tokens", "stream_options", "cache_prompt"} & body.keys()


@pytest.mark.parametrize(
    ("ask", "kind", "path"),
    [
        (Ask(), "vllm", CHAT),
        (Ask(prompt="a", messages=[]), "vllm", CHAT),
        (Ask(prompt_ids=[1]), "vllm", CHAT),
        (Ask(messages=[{"role": "user", "content": "a"}]), "vllm", COMPLETIONS),
        (Ask(prompt_ids=[1]), "ollama", COMPLETIONS),
    ],
)
def test_what_a_route_cannot_take_is_refused_before_sending(ask, kind, path):
    with pytest.raises(ValueError, match=r"take|exactly one"):
        openai_body(kind, ask, path)


def test_ollama_options_go_into_options_but_for_the_few_beside():
    target = Target(
        "ollama", "ollama", "m", "/api/chat", {"num_ctx": 4096, "keep_alive": "10m", "think": False, "seed": 1}
    )
    assert orjson.loads(ollama.request_body(PROMPT, target)) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "keep_alive": "10m",
        "think": False,
        "options": {"temperature": 0, "num_predict": 16, "num_ctx": 4096, "seed": 1},
    }


def test_ollama_generate_takes_a_prompt_only():
    target = Target("ollama", "ollama", "m", "/api/generate", {"raw": True, "temperature": 0.5})
    body = orjson.loads(ollama.request_body(PROMPT, target))
    assert (body["prompt"], body["raw"], body["options"]) == ("hi", True, {"temperature": 0.5, "num_predict": 16})
    with pytest.raises(ValueError, match="not messages"):
        ollama.request_body(Ask(messages=[{"role": "user", "content": "a"}]), target)


def test_lmstudio_is_told_not_to_store():
    target = Target("lmstudio", "lmstudio", "m", "/api/v1/chat", {"reasoning": "off"})
    assert orjson.loads(lmstudio.request_body(PROMPT, target)) == {
        "model": "m",
        "input": "hi",
        "stream": True,
        "store": False,
        "temperature": 0,
        "max_output_tokens": 16,
        "reasoning": "off",
    }


def test_lmstudio_takes_messages_as_system_prompt_and_items():
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    target = Target("lmstudio", "lmstudio", "m", "/api/v1/chat")
    one = orjson.loads(lmstudio.request_body(Ask(messages=messages), target))
    assert (one["system_prompt"], one["input"]) == ("s", "a")
    image = {"type": "image_url", "image_url": {"url": "data:x"}}
    more = [*messages, {"role": "user", "content": [{"type": "text", "text": "b"}, image]}]
    many = orjson.loads(lmstudio.request_body(Ask(messages=more), target))
    assert many["input"] == [
        {"type": "message", "content": "a"},
        {"type": "message", "content": "b"},
        {"type": "image", "data_url": "data:x"},
    ]


@pytest.mark.parametrize(
    ("api", "path", "decode"),
    [
        ("openai", "/v1/chat/completions", openai.decode),
        ("ollama", "/api/chat", ollama.decode),
        ("ollama", "/v1/chat/completions", openai.decode),
        ("lmstudio", "/api/v1/chat", lmstudio.decode),
        ("lmstudio", "/api/v0/chat/completions", openai.decode),
        ("lmstudio", "/v1/completions", openai.decode),
        ("ollama", "", ollama.decode),
    ],
)
def test_the_dialect_follows_the_api_and_the_path(api, path, decode):
    assert dialects.dialect(api, path).decode is decode

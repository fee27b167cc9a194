"""Recognising look-alike messages must change nothing: with it and without it every stream decodes to the same."""

from __future__ import annotations

import json
from unittest.mock import patch

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loadgen.wire import answer as shared
from loadgen.wire import lmstudio, ollama, openai
from loadgen.wire import templates as alike
from loadgen.wire.ndjson import blocks as ndjson_blocks
from tests.wire.wire_streams import DONE, NDJSON, ROLE_CHUNK, answer, as_facts, chunk, named, ndjson, sse, tail, usage

TEXTS = [
    "a",
    " tok",
    "",
    "é",
    "\u2028",
    "\n",
    '"',
    "\\",
    '\\"',
    "\U0001f600",
    "content",
    '","content":"',
    "~other text~",
]
TEXTS += ["a" * 50, "}", "\x7f", "\ufffd", '"}', "null"]
# Bytes that a server should not send, put inside a string that it does: bad escapes, control characters, bad UTF-8.
BROKEN = [b"\\x", b"\t", b"\xff", b'"', b"\\", b'","x":"', b'"}},{"', b"\\ud800", b"\x01", b"\xe2\x80"]

text = st.sampled_from(TEXTS)
ensure_ascii = st.booleans()


def content_chunks(said):
    return [chunk({"content": part}) for part in said]


def chat_messages():
    plain = st.lists(text, max_size=30).map(content_chunks)
    reasoning = st.lists(text, max_size=20).map(lambda said: [chunk({"reasoning": part}) for part in said])
    older = st.lists(text, max_size=20).map(lambda said: [chunk({"reasoning_content": part}) for part in said])
    beside = st.lists(text, max_size=12).map(lambda said: [chunk({"content": "", "reasoning": part}) for part in said])
    both = st.lists(text, max_size=12).map(
        lambda said: [chunk({"reasoning": part, "reasoning_content": part}) for part in said]
    )
    role = st.lists(text, max_size=20).map(
        lambda said: [chunk({"role": "assistant", "content": part}) for part in said]
    )
    older_api = st.lists(text, max_size=20).map(
        lambda said: [{"choices": [{"text": part, "index": 0, "finish_reason": None}]} for part in said]
    )
    zero = st.lists(text, max_size=20).map(lambda said: [chunk({"content": p}, usage=usage(0, 0)) for p in said])
    running = st.lists(text, max_size=20).map(
        lambda said: [chunk({"content": part}, usage=usage(5, at + 1)) for at, part in enumerate(said)]
    )
    second = st.lists(text, max_size=12).map(lambda said: [chunk({"content": part}, index=1) for part in said])
    lone = st.sampled_from(
        [
            ROLE_CHUNK,
            chunk({}, "stop"),
            chunk({"content": "end"}, "length"),
            chunk({}, "stop", 1),
            tail(usage=usage(9, 3)),
            tail(usage=None),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
            chunk({"content": "x", "refusal": "no"}),
            {**chunk({"role": "assistant"}), "model": ""},
            {"error": {"message": "boom"}},
            tail(timings={"predicted_n": 4, "prompt_n": 3, "cache_n": 1, "prompt_ms": 1.5}),
            DONE,
        ]
    ).map(lambda message: [message])
    parts = st.one_of(plain, plain, plain, reasoning, older, beside, both, role, older_api, zero, running, second, lone)
    return st.lists(parts, max_size=6).map(lambda found: [message for part in found for message in part])


def ollama_lines():
    def line(said, at, where):
        inner = {"message": {"role": "assistant", **said}} if where else said
        return {"model": "m", "created_at": f"2026-08-21T10:00:00.{at}Z", **inner, "done": False}

    def lines(found):
        said, where, key = found
        field = ("content" if where else "response") if key else "thinking"
        rest = {} if key else {"content" if where else "response": ""}
        return [line({**rest, field: part}, at * 37, where) for at, part in enumerate(said)]

    runs = st.tuples(st.lists(text, max_size=30), st.booleans(), st.booleans()).map(lines)
    last = {"model": "m", "created_at": "x", "response": "", "done": True, "eval_count": 3, "total_duration": 9}
    lone = st.sampled_from([last, {"error": "boom"}, {"done": True}]).map(lambda message: [message])
    return st.lists(st.one_of(runs, runs, lone), max_size=4).map(
        lambda found: [line for part in found for line in part]
    )


def lmstudio_messages():
    runs = st.tuples(st.lists(text, max_size=30), st.sampled_from(["message", "reasoning", "tool_call"])).map(
        lambda found: [{"type": f"{found[1]}.delta", "content": part} for part in found[0]]
    )
    stats = {"input_tokens": 3, "total_output_tokens": 4}
    lone = [
        {"type": "chat.start"},
        {"type": "chat.end", "result": {"stats": stats}},
        {"type": "error", "error": "boom"},
    ]
    return st.lists(st.one_of(runs, runs, st.sampled_from(lone).map(lambda m: [m])), max_size=5).map(
        lambda found: [message for part in found for message in part]
    )


def written(messages, ascii_only):
    return [m if m == DONE else json.dumps(m, separators=(",", ":"), ensure_ascii=ascii_only) for m in messages]


def both_ways(decode, response, keep_text):
    fast = as_facts(decode(response, keep_text=keep_text))
    with patch.object(shared, "WORTH_A_CUT", 10**9):
        return fast, as_facts(decode(response, keep_text=keep_text))


def spoilt(body, where, junk):
    """The body with `junk` put in where a string of it begins."""
    marks = [at for at in range(len(body)) if body.startswith((b'content":"', b'response":"', b'_at":"'), at)]
    if junk is None or not marks:
        return body
    at = body.index(b'":"', marks[where % len(marks)]) + 3
    return body[:at] + junk + body[at:]


junk = st.none() | st.sampled_from(BROKEN)


@settings(max_examples=150)
@given(chat_messages(), ensure_ascii, st.integers(0, 200), junk, st.booleans(), st.booleans())
@example([chunk({"content": "a"}, index=1)] * 20, False, 0, None, True, False)
@example([chunk({"content": "a"}, usage=usage(5, 1))] * 20, False, 0, None, True, False)
@example([chunk({"content": part, "reasoning": "hm"}) for part in ["a", ""] * 10], False, 0, None, True, False)
@example([chunk({"reasoning": part, "reasoning_content": "hm"}) for part in ["a", ""] * 9], False, 0, None, True, False)
@example(content_chunks(["a"] * 20), False, 15, b"\xff", True, False)
@example(content_chunks(["a", "\\"] * 20), False, 11, b"\\", True, True)
def test_openai_streams_decode_the_same_with_and_without(messages, ascii_only, where, bad, keep_text, last):
    ends = [chunk({}, "stop"), tail(usage=usage(3, 5)), DONE] if last else []
    body = spoilt(sse(*written(messages + ends, ascii_only)), where, bad)
    fast, slow = both_ways(openai.decode, answer(body), keep_text)
    assert fast == slow


@settings(max_examples=100)
@given(ollama_lines(), ensure_ascii, st.integers(0, 200), junk, st.booleans())
def test_ollama_streams_decode_the_same_with_and_without(messages, ascii_only, where, bad, keep_text):
    body = spoilt(ndjson(*written(messages, ascii_only)), where, bad)
    fast, slow = both_ways(ollama.decode, answer(body, NDJSON), keep_text)
    assert fast == slow


@settings(max_examples=100)
@given(lmstudio_messages(), st.integers(0, 200), junk, st.booleans())
def test_lmstudio_streams_decode_the_same_with_and_without(messages, where, bad, keep_text):
    body = spoilt(named(*messages), where, bad)
    fast, slow = both_ways(lmstudio.decode, answer(body), keep_text)
    assert fast == slow


@pytest.mark.parametrize(
    ("decode", "body", "content_type"),
    [
        (openai.decode, sse(ROLE_CHUNK, *content_chunks(f"t{at}\n" for at in range(500)), DONE), "text/event-stream"),
        (
            ollama.decode,
            ndjson(*({"created_at": f"{at}", "response": "x", "done": False} for at in range(500))),
            NDJSON,
        ),
        (lmstudio.decode, named(*({"type": "message.delta", "content": "x"} for _ in range(500))), "text/event-stream"),
    ],
)
def test_a_long_run_of_look_alikes_is_parsed_a_few_times_only(decode, body, content_type):
    whole = []
    with patch.object(shared.orjson, "loads", lambda data: whole.append(data) or json.loads(data)):
        assert len(decode(answer(body, content_type)).event_kind) >= 500
    assert sum(data.startswith(b"{") for data in whole) < 10


@pytest.mark.parametrize(
    "message",
    [
        b'{"content":"a","content":"b"}',
        b'{"x":{"content":"a"},"content":"b"}',
        b'{"x":"\\"content\\":\\"","content":7}',
        b'{"content":"~other text~"}',
    ],
)
def test_a_string_that_cannot_be_found_beyond_doubt_is_not_cut(message):
    assert alike.cut(message, orjson.loads(message), (("content",),)) is None


def test_strings_are_cut_in_the_order_of_the_bytes():
    message = b'{"text": "a" ,"time":"b\\"","z":1}'
    parts, hole = alike.cut(message, orjson.loads(message), (("time",), ("text",)))
    assert (parts, hole) == ([b'{"text": "', b'" ,"time":"', b'","z":1}'], 0)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 300])
@pytest.mark.parametrize(
    "stranger",
    [
        b'{"a":"x","b":2}',
        b'{"a":"',
        b"",
        b'{"a":"x"}"}',
        b'{"a":"\\"}',
        b'{"a":"\x01"}',
        b'{"a":"}',
        b'{"a":"x?}',
        b'["a":"x"}',
    ],
)
def test_a_run_stops_at_the_first_stranger(size, stranger):
    body = b"\n".join([*(b'{"a":"t%d"}' % at for at in range(size)), stranger, b'{"a":"t"}', b""])
    assert alike.run(ndjson_blocks(body), 0, [b'{"a":"', b'"}'], 0) == [b"t%d" % at for at in range(size)]


@pytest.mark.parametrize(
    "stranger", [b'{"t":"x"}', b'{"t":"\x01","a":"x"}', b'{"t":"x","a":"x","a":"x"}', b'{"t":"x","b":"x"}']
)
def test_a_run_with_two_strings_needs_both(stranger):
    lines = [b'{"t":"%d","a":"t%d"}' % (at, at) for at in range(20)]
    body = b"\n".join([*lines, stranger, *lines, b""])
    found = alike.run(ndjson_blocks(body), 0, [b'{"t":"', b'","a":"', b'"}'], 1)
    assert found == [b"t%d" % at for at in range(20)]

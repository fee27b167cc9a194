"""Ollama's own API: lines, the last line's counts and durations, errors."""

from __future__ import annotations

import json

import pytest

from loadgen.record import Outcome, TokensFrom
from loadgen.wire import ollama
from tests.wire.wire_streams import JSON, NDJSON, answer, dumps, kinds, ndjson, tokens

LAST = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 900_000_000,
    "load_duration": 20_000_000,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 130_000_000,
    "eval_count": 2,
    "eval_duration": 700_000_000,
}


def chat(text="", at=0, **more):
    inner = {"role": "assistant", "content": text, **more.pop("inner", {})}
    return {"model": "m:1b", "created_at": f"2026-08-21T10:00:00.{at}Z", "message": inner, "done": False, **more}


def generate(text="", at=0, **more):
    return {"model": "m:1b", "created_at": f"2026-08-21T10:00:00.{at}Z", "response": text, "done": False, **more}


def decode(*messages, **how):
    return ollama.decode(answer(ndjson(*messages), NDJSON, **how), keep_text=True)


@pytest.mark.parametrize("line", [chat, generate])
def test_a_stream_ends_with_done_and_its_counts(line):
    got = decode(line("Hel", 1), line("lo", 22), line("", 3, **LAST))
    assert (got.outcome, got.finish_reason, got.text) == (Outcome.OK, "stop", "Hello")
    assert (kinds(got), tokens(got)) == (["content", "content", "usage"], [1, 1, 0])
    assert (got.input_tokens, got.output_tokens, got.tokens_from) == (26, 2, TokensFrom.USAGE)


def test_durations_are_taken_and_the_rest_of_the_total_is_the_queue():
    got = decode(chat("a"), chat(**LAST))
    assert (got.server_load_ns, got.server_prompt_eval_ns, got.server_eval_ns) == (20_000_000, 130_000_000, 700_000_000)
    assert got.server_queue_ns == 50_000_000


def test_parts_that_exceed_the_total_leave_no_queue():
    assert decode(chat("a"), chat(**{**LAST, "total_duration": 800_000_000})).server_queue_ns is None


def test_counts_and_durations_left_out_because_zero_are_unknown():
    got = decode(chat("a"), chat(done=True, done_reason="length", total_duration=5, eval_count=1))
    assert (got.outcome, got.input_tokens, got.server_load_ns, got.server_queue_ns) == (Outcome.OK, None, None, 5)


def test_the_last_line_may_carry_text():
    got = decode(chat("a"), chat("b", **LAST))
    assert (kinds(got), got.text, tokens(got)) == (["content", "content"], "ab", [1, 1])


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (chat(inner={"thinking": "hm"}), "reasoning"),
        (generate(thinking="hm"), "reasoning"),
        (chat(inner={"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}), "tool"),
        (chat(""), "empty"),
        (generate(""), "empty"),
    ],
)
def test_what_a_line_carries(line, kind):
    assert kinds(decode(line, chat("a"), chat(**LAST)))[0] == kind


def test_an_error_line_is_a_server_error_and_lines_before_it_are_kept():
    got = decode(chat("a"), {"error": "an error was encountered"})
    assert (got.outcome, got.error, kinds(got)) == (Outcome.SERVER_ERROR, "an error was encountered", ["content"])


def test_no_done_line_is_truncated():
    got = decode(chat("a"), chat("b"))
    assert (got.outcome, got.output_tokens, got.tokens_from) == (Outcome.TRUNCATED, 2, TokensFrom.EVENTS)


def test_a_line_cut_in_the_middle_is_truncated():
    whole = ndjson(chat("a"), chat(**LAST))
    assert ollama.decode(answer(whole[:-20], NDJSON, complete=False)).outcome == Outcome.TRUNCATED


def test_done_without_a_token_is_empty():
    assert decode(chat(done=True, done_reason="load")).outcome == Outcome.EMPTY


@pytest.mark.parametrize("indent", [None, 2])
def test_a_reply_that_was_not_streamed_is_one_event(indent):
    body = json.dumps(generate("Hello", **LAST), indent=indent).encode()
    got = ollama.decode(answer(body, JSON), keep_text=True)
    assert (got.outcome, got.text, kinds(got), tokens(got)) == (Outcome.OK, "Hello", ["content"], [2])


@pytest.mark.parametrize(
    ("status", "body", "content_type", "outcome", "error"),
    [
        (404, '{"error":"model \'x\' not found"}', JSON, "http_error", "model 'x' not found (HTTP 404)"),
        (
            503,
            '{"error":"server busy, please try again.  maximum pending requests exceeded"}',
            JSON,
            "http_error",
            "server busy, please try again. maximum pending requests exceeded (HTTP 503)",
        ),
        (200, '{"error":"boom"}', JSON, "server_error", "boom"),
        (
            200,
            "<html><title>Login</title>",
            "text/html",
            "protocol",
            "Login (expected application/x-ndjson, got text/html)",
        ),
        (200, 'data: {"a":1}\n\n', "text/event-stream", "protocol", 'not a JSON object: data: {"a":1}'),
        (200, "", NDJSON, "truncated", "the answer ended with no event"),
    ],
)
def test_other_answers_are_named_for_what_they_are(status, body, content_type, outcome, error):
    got = ollama.decode(answer(body.encode(), content_type, status=status))
    assert (got.outcome, got.error) == (outcome, error)


@pytest.mark.parametrize("count", [2, 100])
def test_a_line_belongs_to_the_read_that_brought_its_lf(count):
    parts = [chat(f"t{at}", at) for at in range(count)]
    ends = [len(ndjson(*parts[: at + 1])) for at in range(count)]
    got = ollama.decode(answer(ndjson(*parts), NDJSON, reads=ends))
    assert got.event_read.tolist() == list(range(count))


def test_large_context_in_the_last_line_is_no_obstacle():
    last = dumps(generate(**LAST, context=list(range(200_000))))
    assert decode(generate("a"), last).outcome == Outcome.OK

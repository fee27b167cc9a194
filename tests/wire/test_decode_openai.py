"""The OpenAI shape as each server sends it: how streams end, what events carry, where counts and times come from."""

from __future__ import annotations

import pytest

from loadgen.record import Outcome, TokensFrom
from loadgen.wire import openai
from tests.wire.wire_streams import DONE, JSON, ROLE_CHUNK, answer, chunk, dumps, kinds, sse, tail, tokens, usage

HELLO = [ROLE_CHUNK, chunk({"content": "Hel"}), chunk({"content": "lo"})]
FINISH = chunk({}, "stop")


def decode(*messages, **how):
    return openai.decode(answer(sse(*messages), **how), keep_text=True)


# --- what each server sends -------------------------------------------------------------------------------------------


def test_vllm_chat_with_usage():
    got = decode(*HELLO, chunk({"content": ""}, "length", stop_reason=None), tail(usage=usage(9, 2)), DONE)
    assert (got.outcome, got.finish_reason, got.text) == (Outcome.OK, "length", "Hello")
    assert kinds(got) == ["role", "content", "content", "empty", "usage"]
    assert tokens(got) == [0, 1, 1, 0, 0]
    assert (got.input_tokens, got.output_tokens, got.tokens_from) == (9, 2, TokensFrom.USAGE)


def test_vllm_last_content_and_finish_reason_share_an_event():
    got = decode(ROLE_CHUNK, chunk({"content": "a"}), chunk({"content": "b"}, "length"), tail(usage=usage(9, 2)), DONE)
    assert kinds(got) == ["role", "content", "content", "usage"]
    assert (got.outcome, got.text, tokens(got)) == (Outcome.OK, "ab", [0, 1, 1, 0])


def test_vllm_empty_content_while_a_character_is_incomplete_is_not_a_token():
    got = decode(ROLE_CHUNK, chunk({"content": ""}), chunk({"content": "é"}), FINISH, tail(usage=usage(9, 2)), DONE)
    assert kinds(got) == ["role", "empty", "content", "empty", "usage"]
    assert (got.output_tokens, tokens(got)) == (2, None)


def test_vllm_per_request_metrics_become_durations():
    metrics = {"queue_time_ms": 1.5, "time_to_first_token_ms": 20, "generation_time_ms": 300.25, "mean_itl_ms": None}
    got = decode(*HELLO, FINISH, tail(usage=usage(9, 2), metrics=metrics), DONE)
    assert got.server_queue_ns == 1_500_000
    assert got.server_prompt_eval_ns == 20_000_000
    assert got.server_eval_ns == 300_250_000


def test_vllm_cached_tokens_come_from_usage_details():
    told = usage(64, 2, prompt_tokens_details={"cached_tokens": 48})
    assert decode(*HELLO, FINISH, tail(usage=told), DONE).cached_tokens == 48


def test_vllm_token_ids_count_tokens_per_event_and_prompt_ids_do_not():
    def ids(text, listed, finish=None):
        made = chunk({"content": text}, finish)
        made["choices"][0]["token_ids"] = listed
        return made

    role = {**ROLE_CHUNK, "prompt_token_ids": [1, 2, 3]}
    got = decode(role, ids("", [5]), ids("é", [6, 7]), ids("b", [8], "length"), tail(usage=usage(3, 4)), DONE)
    assert kinds(got) == ["role", "empty", "content", "content", "usage"]
    assert tokens(got) == [0, 1, 2, 1, 0]
    assert (got.output_tokens, got.tokens_from) == (4, TokensFrom.USAGE)


def test_sglang_separate_finish_extension_chunk_and_reasoning_content():
    extension = tail(sglext={"x": 1})
    thought = chunk({"reasoning_content": "hm", "content": None})
    got = decode(ROLE_CHUNK, thought, chunk({"content": "a"}), FINISH, extension, tail(usage=usage(5, 2)), DONE)
    assert kinds(got) == ["role", "reasoning", "content", "empty", "empty", "usage"]
    assert (got.outcome, got.text) == (Outcome.OK, "a")


def test_llamacpp_null_content_role_finish_without_delta_and_timings():
    timings = {"cache_n": 3, "prompt_n": 6, "prompt_ms": 12.5, "predicted_n": 1, "predicted_ms": 7.0}
    role = chunk({"role": "assistant", "content": None})
    got = decode(role, chunk({"content": "\ufffd"}), FINISH, tail(usage=usage(9, 1), timings=timings), DONE)
    assert kinds(got) == ["role", "content", "empty", "usage"]
    assert (got.cached_tokens, got.input_tokens, got.output_tokens) == (3, 9, 1)
    assert (got.server_prompt_eval_ns, got.server_eval_ns) == (12_500_000, 7_000_000)


def test_llamacpp_timings_stand_in_for_missing_usage():
    timings = {"cache_n": 3, "prompt_n": 6, "predicted_n": 2}
    got = decode(*HELLO, {**FINISH, "timings": timings}, DONE)
    assert (got.input_tokens, got.output_tokens, got.tokens_from) == (9, 2, TokensFrom.USAGE)
    assert kinds(got)[-1] == "usage"


def test_llamacpp_timings_per_token_count_each_event():
    def timed(text, count):
        return chunk({"content": text}, timings={"predicted_n": count})

    got = decode(ROLE_CHUNK, timed("a", 1), timed("bc", 3), {**FINISH, "timings": {"predicted_n": 3}}, DONE)
    assert tokens(got) == [0, 1, 2, 0]


def test_llamacpp_prompt_progress_is_no_token():
    progress = chunk({"role": "assistant", "content": None}, prompt_progress={"total": 9, "processed": 4})
    assert kinds(decode(progress, *HELLO[1:], FINISH, DONE))[0] == "role"


def test_llamacpp_native_completion_ends_with_stop_and_no_done():
    parts = [
        {"index": 0, "content": text, "tokens": [], "stop": False, "tokens_predicted": count, "tokens_evaluated": 7}
        for text, count in [("a", 1), ("bc", 3)]
    ]
    timings = {"cache_n": 0, "prompt_n": 7, "prompt_ms": 1.0, "predicted_n": 3, "predicted_ms": 2.0}
    last = {"content": "", "stop": True, "stop_type": "limit", "tokens_predicted": 3, "tokens_evaluated": 7}
    got = decode(*parts, {**last, "timings": timings})
    assert (got.outcome, got.finish_reason, got.text) == (Outcome.OK, "length", "abc")
    assert (kinds(got), tokens(got)) == (["content", "content", "usage"], [1, 2, 0])
    assert (got.input_tokens, got.output_tokens, got.server_eval_ns) == (7, 3, 2_000_000)


def test_llamacpp_python_sends_crlf_pings_and_no_usage():
    body = sse(*HELLO, end="\r\n") + b": ping - 2026-11-21 10:00:00\r\n\r\n" + sse(FINISH, DONE, end="\r\n")
    got = openai.decode(answer(body))
    assert (got.outcome, kinds(got)) == (Outcome.OK, ["role", "content", "content", "empty"])
    assert (got.output_tokens, got.tokens_from, tokens(got)) == (2, TokensFrom.EVENTS, None)


def test_transformers_has_usage_in_the_finish_event_and_no_done():
    def bare(delta, **more):
        return {"object": "chat.completion.chunk", "choices": [{"delta": delta, "index": 0, **more}], "model": "m@main"}

    last = {**bare({}, finish_reason="length"), "usage": usage(4, 1)}
    got = decode(bare({"role": "assistant"}), bare({"content": "a"}), last)
    assert (got.outcome, got.finish_reason) == (Outcome.OK, "length")
    assert (kinds(got), tokens(got)) == (["role", "content", "usage"], [0, 1, 0])


def test_ollama_v1_role_comes_with_the_first_token_and_reasoning_beside_empty_content():
    first = chunk({"role": "assistant", "content": "", "reasoning": "hm"})
    got = decode(first, chunk({"role": "assistant", "content": "a"}), FINISH, tail(usage=usage(3, 2)), DONE)
    assert (kinds(got), got.text) == (["reasoning", "content", "empty", "usage"], "a")


def test_ollama_v1_completions_zero_usage_on_each_chunk_is_no_count():
    def text(said, finish=None, counts=None):
        choice = {"text": said, "index": 0, "finish_reason": finish}
        return {"object": "text_completion", "choices": [choice], "usage": counts or usage(0, 0)}

    got = decode(text("a"), text("bc"), text("", "stop"), {"choices": [], "usage": usage(5, 3)}, DONE)
    assert kinds(got) == ["content", "content", "empty", "usage"]
    assert (got.input_tokens, got.output_tokens, got.tokens_from, tokens(got)) == (5, 3, TokensFrom.USAGE, None)


def test_lmstudio_repeats_the_role_and_its_first_chunk_is_a_token():
    parts = [chunk({"role": "assistant", "content": text}) for text in ("a", "", "b")]
    assert kinds(decode(*parts, FINISH, DONE)) == ["content", "role", "content", "empty"]


def test_lmstudio_v0_stats_become_durations():
    stats = {"tokens_per_second": 50.0, "time_to_first_token": 0.11, "generation_time": 0.5, "stop_reason": "eosFound"}
    got = decode(*HELLO, {**FINISH, "stats": stats, "usage": usage(9, 2)}, DONE)
    assert (got.server_prompt_eval_ns, got.server_eval_ns) == (110_000_000, 500_000_000)


def test_both_names_for_reasoning_in_one_chunk_are_one_event():
    thought = chunk({"reasoning": "hm", "reasoning_content": "hm"})
    got = decode(ROLE_CHUNK, thought, chunk({"content": "a"}), FINISH, tail(usage=usage(3, 2)), DONE)
    assert tokens(got) == [0, 1, 1, 0, 0]


@pytest.mark.parametrize(
    "delta",
    [
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"function_call": {"arguments": "{}"}},
    ],
)
def test_pieces_of_tool_calls_bear_tokens(delta):
    got = decode(ROLE_CHUNK, chunk(delta), chunk({}, "tool_calls"), DONE)
    assert (got.outcome, kinds(got)) == (Outcome.OK, ["role", "tool", "empty"])


def test_content_parts_and_refusals_are_content():
    parts = chunk({"content": [{"type": "text", "text": "a"}]})
    got = decode(parts, chunk({"refusal": "no"}), FINISH, DONE)
    assert (kinds(got), got.text) == (["content", "content", "empty"], "ano")


def test_a_reply_that_was_not_streamed_is_one_event():
    message = {"role": "assistant", "content": "Hello", "reasoning": None}
    reply = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    got = openai.decode(answer(dumps({**reply, "usage": usage(4, 7)}).encode(), JSON), keep_text=True)
    assert (got.outcome, got.text, kinds(got), tokens(got)) == (Outcome.OK, "Hello", ["content"], [7])


# --- how streams end --------------------------------------------------------------------------------------------------

FAILURES = {
    "vllm in the stream, then [DONE]": (
        [{"error": {"message": "boom", "type": "X", "param": None, "code": 500}}, DONE]
    ),
    "llama.cpp in the stream, no [DONE]": [{"error": {"code": 500, "message": "boom", "type": "server_error"}}],
    "transformers in the stream": [{"error": "boom"}],
    "gateway with error_message": [{"choices": None, "error_type": "x", "error_message": "boom"}],
    "flat error object": [{"object": "error", "message": "boom", "type": "X", "param": None, "code": 400}, DONE],
    "finish_reason beside an error": [{**chunk({}, "error"), "error": {"message": "boom", "code": 502}}],
}


@pytest.mark.parametrize("rest", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("before", [[], HELLO, HELLO + [chunk({"content": "x"})] * 20], ids=["first", "early", "late"])
def test_an_error_told_in_the_stream_is_a_server_error_and_events_before_it_are_kept(before, rest):
    got = decode(*before, *rest)
    assert (got.outcome, got.error) == (Outcome.SERVER_ERROR, "boom")
    assert len(got.event_kind) == len(got.event_read) == len(before)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'event: error\ndata: {"message":"boom"}\n\n', "boom"),
        (b"event: error\ndata: out of memory\n\n", "out of memory"),
        (b'error: {"code":500,"message":"boom"}\n\n', "boom"),
    ],
)
def test_an_event_named_error_is_a_server_error(body, error):
    got = openai.decode(answer(sse(*HELLO) + body + sse(DONE)))
    assert (got.outcome, got.error, len(got.event_kind)) == (Outcome.SERVER_ERROR, error, 3)


@pytest.mark.parametrize(
    ("body", "content_type", "outcome", "error"),
    [
        (
            b'{"error":"Unexpected endpoint or method. (POST /x)"}',
            JSON,
            "server_error",
            "Unexpected endpoint or method.",
        ),
        (b'{"error":{"message":"boom"}}', "text/event-stream", "server_error", "boom"),
        (b"<html><head><title>502 Bad Gateway</title></head></html>", "text/html", "protocol", "502 Bad Gateway"),
        (b"<!doctype html><p>Log in</p>", "text/html; charset=utf-8", "protocol", "Log in"),
        (b"hello", "text/plain", "protocol", "hello"),
        (sse(*HELLO, FINISH), "text/html", "protocol", ""),
        (b"data: hello\n\n", "text/event-stream", "protocol", "not a JSON object: hello"),
        (b"data: [1]\n\n", "text/event-stream", "protocol", "not a JSON object"),
        (b"", "text/event-stream", "truncated", "the answer ended with no event"),
        (b"data: [DONE]\n\n", "text/event-stream", "truncated", "the answer ended with no event"),
    ],
)
def test_a_200_that_is_no_answer_is_named_for_what_it_is(body, content_type, outcome, error):
    got = openai.decode(answer(body, content_type))
    assert got.outcome == outcome
    assert got.error is not None
    assert got.error.startswith(error)
    assert len(got.event_kind) == 0


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, b'{"error":{"message":"too\\nlong","type":"BadRequestError","code":400}}', "too long (HTTP 400)"),
        (400, b'{"object":"error","message":"too long","type":"BadRequest","code":400}', "too long (HTTP 400)"),
        (400, b'{"error":"too long"}', "too long (HTTP 400)"),
        (401, b'{"error":"Unauthorized"}', "Unauthorized (HTTP 401)"),
        (
            404,
            b'{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}',
            "File Not Found (HTTP 404)",
        ),
        (422, b'{"detail":"Unsupported fields: ignore_eos"}', "Unsupported fields: ignore_eos (HTTP 422)"),
        (422, b'{"detail":[{"loc":["body","n"],"msg":"not an int"}]}', "not an int (body.n) (HTTP 422)"),
        (500, b"Internal Server Error", "Internal Server Error (HTTP 500)"),
        (502, b"<html><title>Bad Gateway</title><body>x</body></html>", "Bad Gateway (HTTP 502)"),
        (503, b"", "HTTP 503"),
        (302, b"", "HTTP 302"),
    ],
)
def test_a_status_other_than_2xx_is_an_http_error_in_the_servers_words(status, body, error):
    got = openai.decode(answer(body, JSON, status=status))
    assert (got.outcome, got.error) == (Outcome.HTTP_ERROR, error)


@pytest.mark.parametrize("end", [[], [DONE]], ids=["cut", "done"])
@pytest.mark.parametrize("complete", [True, False])
def test_a_stream_without_a_terminal_marker_is_truncated_even_with_done(end, complete):
    got = decode(*HELLO, *end, complete=complete)
    assert (got.outcome, kinds(got)) == (Outcome.TRUNCATED, ["role", "content", "content"])
    assert got.error == f"the {'answer' if complete else 'connection'} ended without a terminal marker"
    assert (got.output_tokens, got.tokens_from) == (2, TokensFrom.EVENTS)


def test_a_stream_cut_inside_an_event_keeps_what_was_whole():
    got = openai.decode(answer(sse(*HELLO) + b'data: {"choices":[{"del', complete=False))
    assert (got.outcome, len(got.event_kind)) == (Outcome.TRUNCATED, 3)


def test_ollama_v1_loses_the_error_and_the_empty_model_tells():
    got = decode(*HELLO, {**chunk({"role": "assistant", "content": ""}), "model": ""})
    assert got.outcome == Outcome.TRUNCATED
    assert "Ollama" in got.error


def test_a_terminal_marker_is_enough_when_the_connection_breaks_after_it():
    assert decode(*HELLO, FINISH, complete=False).outcome == Outcome.OK


def test_an_error_after_every_choice_finished_does_not_undo_the_answer():
    assert decode(*HELLO, FINISH, {"error": "late"}).outcome == Outcome.OK


def test_with_two_choices_each_needs_its_finish():
    both = [chunk({"content": "a"}), chunk({"content": "b"}, index=1), FINISH]
    assert decode(*both, DONE).outcome == Outcome.TRUNCATED
    got = decode(*both, chunk({}, "length", index=1), DONE)
    assert (got.outcome, got.finish_reason, got.text) == (Outcome.OK, "stop", "a")


@pytest.mark.parametrize("end", [[DONE], [tail(usage=usage(9, 0)), DONE]])
def test_a_terminal_marker_without_any_token_is_empty(end):
    assert decode(ROLE_CHUNK, FINISH, *end).outcome == Outcome.EMPTY


def test_tokens_counted_but_without_text_are_not_empty():
    assert decode(ROLE_CHUNK, FINISH, tail(usage=usage(9, 1)), DONE).outcome == Outcome.OK


def test_data_after_done_is_not_read():
    assert decode(*HELLO, FINISH, DONE, {"error": "x"}, "nonsense").outcome == Outcome.OK


def test_blank_payloads_and_comments_are_no_events():
    body = sse(HELLO[0]) + b": ping\n\ndata: \n\n" + sse(*HELLO[1:], FINISH, tail(usage=usage(1, 2)), DONE)
    got = openai.decode(answer(body))
    assert (got.outcome, tokens(got)) == (Outcome.OK, [0, 1, 1, 0, 0])
    assert len(got.event_read) == len(got.event_kind) == 5


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": [None]},
        {"choices": [{"index": [], "delta": "x", "finish_reason": None}]},
        {"choices": [{"delta": {"content": 7, "tool_calls": 3, "function_call": []}}]},
        {"choices": "x", "usage": [1], "timings": 3, "metrics": "x", "stats": []},
        {"choices": [], "usage": {"prompt_tokens": "9", "completion_tokens": True}},
        {"choices": [], "timings": {"cache_n": -1, "prompt_n": None, "predicted_ms": "x"}},
    ],
)
def test_odd_shapes_never_raise_and_carry_nothing(odd):
    got = decode(*HELLO, odd, FINISH, DONE)
    assert (got.outcome, got.output_tokens, got.tokens_from) == (Outcome.OK, 2, TokensFrom.EVENTS)
    assert (got.input_tokens, got.cached_tokens, got.server_eval_ns) == (None, None, None)


def test_bytes_that_are_no_utf8_become_replacement_characters():
    body = sse(ROLE_CHUNK, chunk({"content": "a?"}), FINISH, DONE).replace(b"?", b"\xff")
    got = openai.decode(answer(body), keep_text=True)
    assert (got.outcome, got.text) == (Outcome.OK, "a\ufffd")


def test_a_finish_event_that_repeats_the_role_is_empty():
    assert kinds(decode(*HELLO, chunk({"role": "assistant", "content": ""}, "stop"), DONE))[-1] == "empty"


# --- counting ---------------------------------------------------------------------------------------------------------


def test_usage_repeated_or_null_is_counted_once():
    messages = [chunk({"content": "a"}, usage=None), {**FINISH, "usage": usage(3, 1)}, tail(usage=usage(3, 1)), DONE]
    got = decode(*messages)
    assert (got.output_tokens, tokens(got), kinds(got)) == (1, [1, 0, 0], ["content", "usage", "usage"])


def test_continuous_usage_counts_each_event_and_the_role_chunk_has_none():
    running = [{**ROLE_CHUNK, "usage": usage(3, 0)}]
    running += [chunk({"content": text}, usage=usage(3, count)) for text, count in [("a", 1), ("bc", 3)]]
    got = decode(*running, {**FINISH, "usage": usage(3, 4)}, tail(usage=usage(3, 4)), DONE)
    assert tokens(got) == [0, 1, 2, 1, 0]
    assert (got.output_tokens, got.tokens_from) == (4, TokensFrom.USAGE)
    cut = decode(*running)
    assert (cut.output_tokens, cut.tokens_from, tokens(cut)) == (3, TokensFrom.IDS, [0, 1, 2])


def test_ids_count_when_no_usage_came():
    made = [chunk({"content": text}) for text in ("a", "bc")]
    for message, listed in zip(made, ([5], [6, 7]), strict=True):
        message["choices"][0]["token_ids"] = listed
    got = decode(ROLE_CHUNK, *made, FINISH, DONE)
    assert (got.output_tokens, got.tokens_from, tokens(got)) == (3, TokensFrom.IDS, [0, 1, 2, 0])


def test_ids_know_better_than_running_usage_of_the_same_event():
    message = chunk({"content": "ab"}, usage=usage(3, 1))
    message["choices"][0]["token_ids"] = [5, 6]
    assert tokens(decode(ROLE_CHUNK, message, FINISH, tail(usage=usage(3, 2)), DONE)) == [0, 2, 0, 0]


@pytest.mark.parametrize(("running", "final"), [((0, 0), 3), ((2, 4), 3), ((2, 1), 3)])
def test_running_counts_that_cannot_be_true_are_not_believed(running, final):
    parts = [chunk({"content": "a"}, usage=usage(3, count)) for count in running]
    got = decode(*parts, FINISH, tail(usage=usage(3, final)), DONE)
    assert (got.output_tokens, tokens(got)) == (final, None)


def test_usage_that_disagrees_with_the_number_of_events_leaves_them_uncounted():
    got = decode(*HELLO, FINISH, tail(usage=usage(9, 5)), DONE)
    assert (got.output_tokens, tokens(got)) == (5, None)


# --- reads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 100])
def test_an_event_belongs_to_the_read_that_brought_its_last_byte(count):
    parts = [ROLE_CHUNK, *[chunk({"content": f"t{at}"}) for at in range(count)], FINISH]
    body, ends = sse(*parts, DONE), []
    for at in range(len(parts)):
        ends.append(len(sse(*parts[: at + 1])))
    whole = openai.decode(answer(body, reads=[0, *ends, len(body)]))
    assert whole.event_read.tolist() == list(range(1, len(parts) + 1))
    late = openai.decode(answer(body, reads=[end - 1 for end in ends] + [len(body)]))
    assert late.event_read.tolist() == list(range(1, len(parts) + 1))
    pairs = openai.decode(answer(body, reads=[*ends[1::2], len(body)]))
    assert pairs.event_read.tolist() == [at // 2 for at in range(len(parts))]
    assert openai.decode(answer(body)).event_read.tolist() == [0] * len(parts)

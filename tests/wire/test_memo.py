"""A remembered decoding is the decoding, for answers alike, almost alike, and made to deceive; requests likewise."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.wire import Ask, Decoded, Response, Target, lmstudio, ollama, openai
from loadgen.wire.dialects import dialect
from loadgen.wire.memo import remembering, repeating

HEADERS = {"content-type": "text/event-stream"}
TEXTS = st.one_of(
    st.sampled_from(["", " word", 'a"b', "back\\", 'x","finish_reason":"stop', "é", "\n", '"}}],"id":"']),
    st.text(max_size=6),
)


def answer(ident: str, created: int, text: str, prompt_tokens: int, finish: str | None, *, ascii_: bool) -> bytes:
    chunk: dict[str, Any] = {"id": ident, "created": created, "choices": [{"index": 0, "delta": {"content": text}}]}
    chunk["choices"][0]["finish_reason"] = finish
    usage = {"id": ident, "choices": [], "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 1}}
    return (
        b"".join(
            b"data: " + json.dumps(one, ensure_ascii=ascii_, separators=(",", ":")).encode() + b"\n\n"
            for one in (chunk, usage)
        )
        + b"data: [DONE]\n\n"
    )


def response(body: bytes) -> Response:
    return Response(200, HEADERS, body, np.array([len(body)], np.int64), True)


def plain(decoded: Decoded) -> dict[str, Any]:
    return {
        field.name: value.tolist() if isinstance(value := getattr(decoded, field.name), np.ndarray) else value
        for field in dataclasses.fields(decoded)
    }


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "chatcmpl-77", 'q"', ""]),
            st.integers(0, 10**10),
            TEXTS,
            st.integers(1, 3),
            st.sampled_from([None, "stop", "length"]),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_what_is_remembered_is_what_decoding_again_gives(answers: list[tuple[Any, ...]]) -> None:
    remembered = remembering(openai.decode)
    for *given_, ascii_ in answers:
        body = answer(*given_, ascii_=ascii_)
        assert plain(remembered(response(body))) == plain(openai.decode(response(body)))


def test_answers_of_one_shape_are_decoded_once() -> None:
    calls = []

    def counting(one: Response) -> Decoded:
        calls.append(one)
        return openai.decode(one)

    remembered = remembering(counting)
    for number in range(50):
        remembered(response(answer(f"id-{number}", number, f" w{number}", 7, "stop", ascii_=True)))
    assert len(calls) == 1


def test_an_answer_cut_short_is_not_taken_for_a_whole_one() -> None:
    remembered = remembering(openai.decode)
    body = answer("a", 1, " word", 7, "stop", ascii_=True)
    remembered(response(body))
    for length in range(len(body)):
        short = response(body[:length])
        assert plain(remembered(short)) == plain(openai.decode(short))


def test_shapes_that_never_come_back_are_no_longer_looked_for() -> None:
    remembered = remembering(openai.decode)
    for number in range(600):
        body = answer("a", 1, " word", number, "stop", ascii_=True)
        assert remembered(response(body)).input_tokens == number


TARGETS = [
    Target(api, kind, "m", path, {} if options is None else options)
    for api, kind, path in [
        ("openai", "vllm", openai.DEFAULT_PATH),
        ("openai", "llamacpp", openai.COMPLETIONS_PATH),
        ("ollama", "ollama", ollama.DEFAULT_PATH),
        ("ollama", "ollama", ollama.GENERATE_PATH),
        ("lmstudio", "lmstudio", lmstudio.DEFAULT_PATH),
    ]
    for options in (
        None,
        {"temperature": 0.5, "stop": ["}"]},
        # These take the place of the prompt.
        {"messages": [], "prompt": "p", "input": "i"},
    )
]
ASKS = st.one_of(
    st.builds(Ask, prompt=TEXTS, output_tokens=st.sampled_from([None, 1, 2])),
    st.builds(Ask, messages=st.just([{"role": "user", "content": "a"}]), output_tokens=st.sampled_from([None, 1])),
)


@given(st.sampled_from(TARGETS), st.lists(ASKS, max_size=8))
def test_a_repeated_request_is_the_request(target: Target, asks: list[Ask]) -> None:
    request_body = dialect(target.api, target.path).request_body
    body = repeating(request_body, target)
    for ask in asks:
        try:
            expected = request_body(ask, target)
        except ValueError:
            with pytest.raises(ValueError, match="prompt"):
                body(ask)
        else:
            assert body(ask) == expected

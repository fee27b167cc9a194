"""HTTP framing: the same response whatever the pieces it comes in, and its end seen exactly where it is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.wire.http import BadHttp, Framing, request_bytes, request_head

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
# What a chunk may hold, with everything that looks like framing and is none.
CHUNKS = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=30),
        st.sampled_from([b'data: {"a":1}\n\n', b"data: 10\r\n\r\n", b"0\r\n\r\n", b"x0\r\n\r\n", b"\r\n", b"\n"]),
    ),
    max_size=8,
)


def chunked(chunks: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    return b"".join(b"%x%b\r\n%b\r\n" % (len(c), extension, c) for c in chunks) + b"0\r\n" + trailer + b"\r\n"


def split(raw: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted({cut for cut in cuts if 0 < cut < len(raw)}), len(raw)]
    return [raw[a:b] for a, b in pairwise(at)]


def fed(*reads: bytes) -> Framing:
    framing = Framing()
    for read in reads:
        framing.feed(read)
    return framing


@given(CHUNKS, st.lists(st.integers(0, 600)), st.booleans(), st.booleans())
def test_a_chunked_body_does_not_depend_on_how_the_bytes_arrive(
    chunks: list[bytes], cuts: list[int], extension: bool, trailer: bool
) -> None:
    marks = b";a=b" if extension else b""
    raw = CHUNKED + chunked(chunks, marks, b"X: y\r\n" if trailer else b"")
    reads = split(raw, cuts)
    framing = Framing()
    ends = [framing.feed(read) for read in reads]
    assert ends == [False] * (len(reads) - 1) + [True]
    assert framing.keep_alive
    response = framing.response()
    assert response.body == b"".join(chunks)
    positions, at = [], len(CHUNKED)
    for chunk in chunks:
        at += len(b"%x%b\r\n" % (len(chunk), marks))
        positions += range(at, at + len(chunk))
        at += len(chunk) + 2
    read_ends = np.cumsum([len(read) for read in reads])
    assert response.read_ends.tolist() == [sum(position < end for position in positions) for end in read_ends]


@given(st.binary(max_size=40), st.lists(st.integers(0, 120)))
def test_a_body_of_told_length_ends_with_its_last_byte(body: bytes, cuts: list[int]) -> None:
    raw = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    reads = split(raw, cuts)
    framing = Framing()
    assert [framing.feed(read) for read in reads] == [False] * (len(reads) - 1) + [True]
    assert framing.response().body == body
    assert framing.response().read_ends[-1] == len(body)


def test_a_body_without_length_ends_where_the_connection_does() -> None:
    framing = fed(HEAD + b"\r\n", b"some", b" text")
    assert not framing.complete
    assert framing.eof()
    assert framing.response().body == b"some text"
    assert not framing.keep_alive


def test_a_chunked_body_that_is_cut_short_says_so_and_keeps_what_came() -> None:
    framing = fed(CHUNKED + b"5\r\nhello\r\n", b"6\r\nwor")
    assert not framing.eof()
    response = framing.response()
    assert (response.body, response.complete) == (b"hellowor", False)
    assert response.read_ends.tolist() == [5, 8]


def test_interim_answers_are_passed_over() -> None:
    framing = fed(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", HEAD, b"Content-Length: 0\r\n\r\n"
    )
    assert framing.complete
    assert framing.response().status == 200
    assert framing.head_read == 2


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive", True),
        (b"HTTP/1.1 204 No Content", True),
        (b"HTTP/1.1 200 OK", False),
    ],
)
def test_the_connection_is_kept_as_the_head_says(head: bytes, keeps: bool) -> None:
    framing = fed(head + b"\r\n\r\n")
    framing.eof()
    assert framing.keep_alive is keeps


def test_bytes_after_the_end_cost_the_connection() -> None:
    framing = fed(HEAD + b"Content-Length: 2\r\n\r\nokHTTP")
    assert framing.complete
    assert framing.response().body == b"ok"
    assert not framing.keep_alive


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"<html>\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 20\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 2\xb20 OK\r\n\r\n",  # a digit to str.isdigit, and none to int
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1" + b"0" * 5_000 + b"\r\n\r\n",
        CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"-6\r\nhello\r\n0\r\n\r\n",  # led backwards to itself, for ever
        CHUNKED + b"f_f\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_told_by_what_it_said(raw: bytes) -> None:
    with pytest.raises(BadHttp):
        fed(raw)


@pytest.mark.parametrize("cut", range(1, len(HEAD)))
def test_a_head_may_be_split_anywhere(cut: int) -> None:
    framing = fed(HEAD[:cut], HEAD[cut:] + b"Content-Length: 2\r\n\r\nok")
    assert framing.complete
    assert (framing.head_read, framing.response().body) == (1, b"ok")


@pytest.mark.parametrize("after", [b"0\r\n\r\n", b"4\r\nmore\r\n0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_bytes_after_a_chunked_end_cost_the_connection_but_not_the_body(after: bytes) -> None:
    framing = fed(CHUNKED + chunked([b"ok"]) + after)
    assert framing.complete
    assert framing.response().body == b"ok"
    assert not framing.keep_alive


def test_chunk_sizes_may_have_leading_zeros_blanks_and_either_case() -> None:
    framing = fed(CHUNKED + b"00A\r\n0123456789\r\n0b ;x=y\r\n0123456789a\r\n000\r\n\r\n")
    assert framing.complete
    assert framing.response().body == b"01234567890123456789a"


def test_a_head_without_end_is_given_up() -> None:
    lines = [b"X: " + b"y" * 1021 + b"\r\n"] * 300
    with pytest.raises(BadHttp, match="no end of the response head"):
        fed(b"HTTP/1.1 200 OK\r\n", *lines)


def test_a_request_is_its_head_its_id_and_its_body() -> None:
    head = request_head("POST", "/v1/x", "host:1", {"A": "b"})
    assert request_bytes(head, "0-7", b"{}") == (
        b"POST /v1/x HTTP/1.1\r\nHost: host:1\r\nA: b\r\nX-Request-Id: 0-7\r\nContent-Length: 2\r\n\r\n{}"
    )


def test_a_header_cannot_break_out_of_its_line() -> None:
    with pytest.raises(ValueError, match="line break"):
        request_head("POST", "/v1/x", "host", {"A": "b\r\nX: y"})

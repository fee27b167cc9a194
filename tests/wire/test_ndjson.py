"""NDJSON: LF and nothing else ends a line; any split of the bytes; the bulk path beside the decoder."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.wire import blocks, ndjson
from tests.wire.oracles import LineStream, lines

BOM = b"\xef\xbb\xbf"
PIECES = [
    b"{}",
    b'{"a":1}',
    b"\n",
    b"\r\n",
    b"\n\n",
    b" ",
    b"\t",
    b"x",
    BOM,
    "\u2028\u0085".encode(),
    b"\r",
    b"[",
    b"7",
]


def decoded(body: bytes, cuts: list[int] | None = None) -> list[tuple[bytes, int]]:
    stream, found, bounds = LineStream(), [], sorted({0, *(cuts or []), len(body)})
    for start, stop in pairwise(bounds):
        found += stream.feed(body[start:stop])
    return [tuple(line) for line in found + stream.close()]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":1}\n{"b":2}\n', [(b'{"a":1}', 8), (b'{"b":2}', 16)]),
        (b'{"a":1}\r\n\r\n\n{"b":2}\r\n', [(b'{"a":1}', 9), (b'{"b":2}', 21)]),
        (b'{"a":1}\n{"b":2}', [(b'{"a":1}', 8), (b'{"b":2}', 15)]),
        (b'{"a":1}\n{"b":', [(b'{"a":1}', 8)]),
        (BOM + b"{}\n{}\n", [(b"{}", 6), (b"{}", 9)]),
        (BOM + b"{}", [(b"{}", 5)]),
        ('{"a":"\u2028\u0085"}\n'.encode(), [('{"a":"\u2028\u0085"}'.encode(), 14)]),
        (b"", []),
    ],
)
def test_lines_end_at_lf_only_and_end_just_past_it(body, expected):
    assert decoded(body) == expected
    data, ends = lines(body)
    assert list(zip(data, ends.tolist(), strict=True)) == expected


@given(
    st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join),
    st.lists(st.integers(0, 100)),
    st.sampled_from([0, ndjson.LARGE]),
)
def test_bulk_path_and_decoder_agree_on_any_bytes_in_any_pieces(body, cuts, large):
    with patch.object(ndjson, "LARGE", large), patch.object(blocks, "WINDOW", 7):
        data, ends = lines(body)
    found = decoded(body, [cut for cut in cuts if cut <= len(body)])
    assert list(zip(data, ends.tolist(), strict=True)) == found


@pytest.mark.parametrize("count", [31, 32, 500])
def test_bulk_path_and_decoder_agree_on_streams_of_any_length(count):
    body = b"".join(b'{"n":%d}\n' % at for at in range(count))
    data, ends = lines(body)
    assert list(zip(data, ends.tolist(), strict=True)) == decoded(body)


def test_a_line_beyond_any_reader_limit_is_one_line():
    body = b'{"context":[' + b"1," * 300_000 + b"1]}\n"
    assert lines(body)[1].tolist() == [len(body)]

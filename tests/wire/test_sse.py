"""Server-sent events: the standard's rules one by one, any split of the bytes, and the bulk path beside the decoder."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.wire import blocks, sse
from loadgen.wire.sse import Event, EventStream
from tests.wire.oracles import events

BOM = b"\xef\xbb\xbf"
WIRE = (
    BOM
    + b': ping\n\ndata: {"a":"\xe2\x80\xa8 \xc2\x85"}\r\n\r\ndata:one\rdata: two\r\rid: 7\nevent: x\ndata:  spaced\n\n'
    + b"event: lost\n\nretry: 10\ndata\n\ndata: last\nunknown\n\n"
)
PIECES = [
    b"data: ",
    b"data:",
    b"event: x",
    b"id: 1",
    b": c",
    b"\n",
    b"\n\n",
    b"\r\n",
    b"\r",
    b"{}",
    b" ",
    b"[DONE]",
    BOM,
]
PIECES += [b"error: {}", b"data: {}\n\n", b"data: {}\r\n\r\n", b"event: e\ndata: {}\n\n", b"\xff", b"x"]


def decoded(body: bytes, cuts: list[int] | None = None) -> list[Event]:
    stream, found, bounds = EventStream(), [], sorted({0, *(cuts or []), len(body)})
    for start, stop in pairwise(bounds):
        found += stream.feed(body[start:stop])
    return found + stream.close()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: a\n\n", [(b"a", 9, "")]),
        (b"data:a\n\n", [(b"a", 8, "")]),
        (b"data:  a\n\n", [(b" a", 10, "")]),
        (b"data: a\ndata: b\n\n", [(b"a\nb", 17, "")]),
        (b"data\n\n", [(b"", 6, "")]),
        (b": comment\n\n", []),
        (b"event: e\n\ndata: a\n\n", [(b"a", 19, "")]),
        (b"event: e\ndata: a\n\ndata: b\n\n", [(b"a", 18, "e"), (b"b", 27, "")]),
        (BOM + b"data: a\n\n", [(b"a", 12, "")]),
        (b"data: a\n\n" + BOM + b"data: b\n\n", [(b"a", 9, "")]),
        (b"data: a\r\rdata: b\r\n\r\n", [(b"a", 9, ""), (b"b", 19, "")]),
        (b"data: a\xe2\x80\xa8b\xc2\x85c\n\n", [(b"a\xe2\x80\xa8b\xc2\x85c", 16, "")]),
        (b"nonsense: a\ndata: b\n\n", [(b"b", 21, "")]),
        (b'error: {"code":500}\n\n', [(b'{"code":500}', 21, "error")]),
        (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n", [(b"a", 12, ""), (b"b", 24, "")]),
    ],
)
def test_each_rule_of_the_standard_holds_in_both_paths(body, expected):
    assert [event[:3] for event in decoded(body)] == expected
    data, ends, names = events(body)
    assert list(zip(data, ends.tolist(), names or [""] * len(data), strict=True)) == expected


def test_id_persists_and_one_with_nul_is_ignored():
    found = decoded(b"id: 1\ndata: a\n\nid: \0\ndata: b\n\n")
    assert [event.id for event in found] == ["1", "1"]


def test_an_event_with_crlf_is_known_at_the_cr_of_its_blank_line():
    stream = EventStream()
    assert [event.end for event in stream.feed(b"data: a\r\n\r")] == [10]
    assert stream.feed(b"\n") == []
    assert events(b"data: a\r\n\r\n")[1].tolist() == [10]


@pytest.mark.parametrize(
    ("rest", "kept"),
    [
        (b'data: {"a":1}', [b'{"a":1}']),
        (b'data: {"a":1}\n', [b'{"a":1}']),
        (b"data: [DONE]", [b"[DONE]"]),
        (b'data: {"a":', []),
        (b"data: 12", []),
        (b": ping", []),
    ],
)
@pytest.mark.parametrize("before", [b"", b"data: {}\n\n", b"event: e\ndata: {}\n\n", b"data: {}\r\n\r\n"])
def test_the_unfinished_rest_counts_only_if_it_is_done_or_complete_json(before, rest, kept):
    expected = ([b"{}"] if before else []) + kept
    assert [event.data for event in decoded(before + rest)] == expected
    assert events(before + rest)[0] == expected


@given(st.lists(st.integers(0, len(WIRE))))
def test_events_do_not_depend_on_how_the_bytes_arrive(cuts):
    assert decoded(WIRE, cuts) == decoded(WIRE)


@given(
    st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join),
    st.lists(st.integers(0, 200)),
    st.sampled_from([0, sse.LARGE]),
)
def test_bulk_path_and_decoder_agree_on_any_bytes_in_any_pieces(body, cuts, large):
    found = decoded(body, [cut for cut in cuts if cut <= len(body)])
    with patch.object(sse, "LARGE", large), patch.object(blocks, "WINDOW", 7):
        data, ends, names = events(body)
    assert list(zip(data, ends.tolist(), names or [""] * len(data), strict=True)) == [event[:3] for event in found]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("lead", [b"data: ", b"data:", b"event: e\ndata: "])
@pytest.mark.parametrize("count", [1, 31, 32, 2000])
def test_bulk_path_and_decoder_agree_on_ordinary_streams_of_any_length(lead, line_end, count):
    lead = lead.replace(b"\n", line_end)
    body = b"".join(lead + b'{"n":%d}' % at + line_end * 2 for at in range(count))
    data, ends, names = events(body)
    assert list(zip(data, ends.tolist(), names or [""] * count, strict=True)) == [event[:3] for event in decoded(body)]


def test_a_long_event_fed_a_byte_at_a_time_is_scanned_once():
    stream, body = EventStream(), b"data: " + b"x" * 200_000 + b"\n\n"
    found = [event for at in range(len(body)) for event in stream.feed(body[at : at + 1])]
    assert [(len(event.data), event.end) for event in found] == [(200_000, len(body))]

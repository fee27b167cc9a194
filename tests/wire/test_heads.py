"""Response heads against h11: what it refuses is refused here, and what both take is read the same.

The heads come from a seeded generator: valid ones, valid ones with one or two mutations (near-valid), and rubbish made
of the same pieces. Both sides get the same bytes through their front doors: a whole answer, then the end of the
connection. So "read the same" is judged by what came out: status, fields, body, how the body ended, and whether the
connection may be used again.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import islice

import h11
import pytest

from loadgen.wire.http import UNTIL_CLOSE, BadHttp, Framing

HEADS = 10_000
BODY = b"5\r\nhello\r\n0\r\n\r\n"  # of five bytes when chunked, and some body under every other framing
FRAMING_FIELDS = ("content-length", "transfer-encoding")  # compared by what they do: h11 rewrites them
# What h11 takes and we refuse: how our error begins, and what the head must hold for that to be the reason.
STRICTER = {
    "a header folded over two lines": rb"\n[ \t]",
    "a line of the head ends in LF alone": rb"(?<!\r)\n",
    "a control character in a header": rb"[\x01-\x08\x0e-\x1f\x7f]",  # RFC 9110, 5.5: invalid, and MAY be retained
    "not an HTTP/1.1 answer": rb"^HTTP/[02-9]\.|^[^\r\n]*[\x01-\x08\x0e-\x1f\x7f]",  # another major version; the same
    "Transfer-Encoding in an HTTP/1.0 answer": rb"^HTTP/1\.0 ",  # RFC 9112, 6.1: "as if the framing is faulty"
}


@dataclass(frozen=True)
class Reading:
    """One answer as one side read it."""

    status: int
    fields: dict[str, str]
    body: bytes
    end: str  # of the body: "framing", "close", or "missing" if the connection ended before
    reusable: bool | None  # the connection, by what the head says; None if the body is not all there


class Refused(Exception):
    """The side took the head for none. The message is its reason."""


def read_by_h11(raw: bytes) -> Reading:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    try:
        connection.receive_data(raw)
        while isinstance(head := connection.next_event(), h11.InformationalResponse):
            pass
    except h11.RemoteProtocolError as error:
        raise Refused(str(error)) from error
    if not isinstance(head, h11.Response):
        raise Refused("the head has no end")
    body, end = b"", "framing"
    try:
        while type(event := connection.next_event()) is not h11.EndOfMessage:
            if event is h11.NEED_DATA:
                end = "close"
                connection.receive_data(b"")
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
    except h11.RemoteProtocolError:
        end = "missing"
    fields: dict[str, str] = {}
    for name, value in ((name.decode(), value.decode("latin-1")) for name, value in head.headers):
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    reusable = {"framing": connection.their_state is h11.DONE, "close": False, "missing": None}[end]
    if end == "missing":
        body = b""  # how much of it each side saw is not what heads are about
    if head.http_version == b"1.0" and reusable is False and end == "framing":
        # h11 never keeps a connection of HTTP/1.0. RFC 9112, 9.3 does if the server offers it.
        options = [option.strip() for option in fields.get("connection", "").lower().split(",")]
        reusable = "keep-alive" in options and "close" not in options
    return Reading(head.status_code, fields, body, end, reusable)


def read_by_us(raw: bytes) -> Reading:
    framing, sound = Framing(), True
    try:
        framing.feed(raw)
    except BadHttp as error:
        sound = False  # a fault in the body, unless there is no head
        reason = str(error)
    else:
        reason = "the head has no end"
    if framing.head is None:
        raise Refused(reason)
    head = framing.head
    if not sound or not (framing.complete or framing.eof()):
        return Reading(head.status, head.headers, b"", "missing", None)
    return Reading(
        head.status,
        head.headers,
        framing.response().body,
        "close" if head.length == UNTIL_CLOSE else "framing",
        head.keep_alive,
    )


# --- the generator ---------------------------------------------------------------------------------------------------

STATUS_LINES = (
    *(b"HTTP/1.1 200 OK",) * 6,
    *(b"HTTP/1.1 200 ", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified"),
    *(
        b"HTTP/1.1 404 Not Found",
        b"HTTP/1.1 429 Too\tMany  Requests",
        b"HTTP/1.1 503 \xc3\x9cberlast",
        b"HTTP/1.2 299 X",
    ),
)
LENGTHS = (b"0", b"2", b"15", b"16", b"007", b"2, 2", b"12345678901234567890")
CODINGS = (
    *(b"chunked", b"xchunked", b"gzip", b"gzip, chunked", b"chunked, gzip", b"identity", b"chunked, chunked", b""),
    *(b"chunked;q=1", b"chunked,", b'"chunked"', b"\x0bchunked", b"chunked\xa0"),
)
OPTIONS = (b"close", b"keep-alive", b"Close", b"Keep-Alive, X", b"keep-alive, close", b"disclose", b"close-not", b"")
OTHERS = (
    *(b"Content-Type: text/event-stream; charset=utf-8", b"content-type: application/json", b"Server: uvicorn"),
    *(b"Date: Sat, 21 Nov 2026 10:00:00 GMT", b"X-Empty:", b"X-Blanks: \t ", b"X:y", b"!#$%&'*+-.^_`|~1: odd"),
    *(b"X-Latin: caf\xe9", b"X-Colon: a:b: c", b"X-Inner: a  b\tc", b"Set-Cookie: a=b", b"Vary: x", b"Vary: y"),
)


def valid(rng: random.Random) -> list[bytes]:
    """The lines of a head that RFC 9112 allows."""
    lines = [rng.choice(OTHERS) for _ in range(rng.randrange(5))]
    framing = rng.randrange(4)
    if framing in (0, 1):
        lines.append(b"Content-Length: " + rng.choice(LENGTHS))
    if framing in (1, 2) and rng.random() < 0.9:
        lines.append(b"Transfer-Encoding: " + rng.choice([b"chunked", b"Chunked", b"CHUNKED", b"chunked \t"]))
    lines += [b"Connection: " + rng.choice(OPTIONS) for _ in range(rng.choice([0, 0, 1, 1, 2]))]
    rng.shuffle(lines)
    return [rng.choice(STATUS_LINES), *(swapped(line, rng) if rng.random() < 0.2 else line for line in lines)]


def swapped(line: bytes, rng: random.Random) -> bytes:
    name, _, value = line.partition(b":")
    return rng.choice([name.lower(), name.upper(), name.swapcase()]) + b":" + value


def place(rng: random.Random, lines: list[bytes]) -> int:
    return rng.randrange(len(lines))


def put_byte(rng: random.Random, lines: list[bytes]) -> None:
    at = place(rng, lines)
    cut, byte = (
        rng.randrange(len(lines[at]) + 1),
        rng.choice(b'\x00\x01\x08\t\n\x0b\x0c\r "(),/09:;=@Az\\{\x7f\x80\x85\xa0\xff'),
    )
    lines[at] = lines[at][:cut] + bytes([byte]) + lines[at][cut + rng.randrange(2) :]


def drop_byte(rng: random.Random, lines: list[bytes]) -> None:
    at = place(rng, lines)
    cut = rng.randrange(len(lines[at]) + 1)
    lines[at] = lines[at][:cut] + lines[at][cut + 1 :]


def add_line(*choices: bytes) -> Callable[[random.Random, list[bytes]], None]:
    def mutate(rng: random.Random, lines: list[bytes]) -> None:
        lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(choices))

    return mutate


def blank_before_colon(rng: random.Random, lines: list[bytes]) -> None:
    at = place(rng, lines)
    lines[at] = lines[at].replace(b":", rng.choice([b" :", b"\t:"]), 1)


def fold(rng: random.Random, lines: list[bytes]) -> None:
    at = place(rng, lines)
    cut = rng.randrange(len(lines[at]) + 1)
    lines[at] = lines[at][:cut] + rng.choice([b"\r\n ", b"\r\n\t", b"\n "]) + lines[at][cut:]


def lone_feed(rng: random.Random, lines: list[bytes]) -> None:
    at = place(rng, lines)
    lines[at : at + 2] = [rng.choice([b"\n", b"\r", b"\r\r\n", b"\n\r\n"]).join(lines[at : at + 2])]


def repeat_line(rng: random.Random, lines: list[bytes]) -> None:
    lines.append(lines[place(rng, lines)])


def other_status_line(rng: random.Random, lines: list[bytes]) -> None:
    lines[0] = rng.choice(
        [
            *(b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1 200OK", b"HTTP/1.1\t200 OK"),
            *(b"HTTP/11 200 OK", b"HTTP/1 200 OK", b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.10 200 OK"),
            *(b"http/1.1 200 OK", b" HTTP/1.1 200 OK", b"HTTP/1.1 099 X", b"HTTP/1.1 000 X", b"HTTP/1.1 999 X"),
            *(
                b"HTTP/1.1 101 Switching",
                b"HTTP/1.1 100 Continue",
                b"HTTP/1.1 +20 X",
                b"HTTP/1.1 2\xb20 X",
                b"200 OK",
                b"",
            ),
        ]
    )


MUTATIONS = (
    *(put_byte, put_byte, put_byte, drop_byte, blank_before_colon, fold, lone_feed, repeat_line, other_status_line),
    add_line(*(b"Content-Length: " + value for value in (*LENGTHS, b"5, 6", b"+5", b"-1", b"5_0", b"0x5", b"5."))),
    add_line(*(b"Content-Length: " + value for value in (b"", b"5,", b"2,\t2", b"2 2", b"\xb2", b"9" * 21, b'"2"'))),
    add_line(*(b"Transfer-Encoding: " + coding for coding in CODINGS)),
    add_line(*(b"Connection: " + option for option in (b"CLOSE", b", close", b"close;q=1", b"xclose", b"clo se"))),
    add_line(b"no colon here", b": no name", b"na me: x", b"n\xe4me: x", b'"name": x', b" X: y", b"X", b"name\x00: x"),
)
PIECES = (
    *STATUS_LINES,
    *OTHERS,
    b"",
    b" ",
    b":",
    b"\x00",
    b"HTTP/1.1",
    b"200",
    b"Content-Length",
    b"chunked",
    b"\n\n",
    b"<html>",
)


def near_valid(rng: random.Random) -> bytes:
    """A valid head with one or two mutations."""
    while True:
        lines = valid(rng)
        before = b"\r\n".join(lines)
        for _ in range(rng.choice([1, 1, 2])):
            rng.choice(MUTATIONS)(rng, lines)
        if b"\r\n".join(lines) != before:
            return b"\r\n".join(lines)


def rubbish(rng: random.Random) -> bytes:
    return rng.choice([b"\r\n", b"\r\n", b"\n", b""]).join(rng.choices(PIECES, k=rng.randrange(1, 6)))


@cache
def heads() -> list[tuple[str, bytes]]:
    """HEADS heads with their kind, the same ones in every run."""
    rng = random.Random(9112)
    makers: dict[str, Callable[[random.Random], bytes]] = {
        "valid": lambda rng: b"\r\n".join(valid(rng)),
        "near-valid": near_valid,
        "rubbish": rubbish,
    }
    kinds = rng.choices(list(makers), weights=[25, 65, 10], k=HEADS)
    return [(kind, makers[kind](rng)) for kind in kinds]


def attempt(read: Callable[[bytes], Reading], head: bytes) -> Reading | str:
    """What `read` makes of an answer with that head, or the reason for which it refuses."""
    interim = re.match(rb"HTTP/1\.1 10[0-9] ", head) is not None
    try:
        return read(head + b"\r\n\r\n" + (b"HTTP/1.1 200 OK\r\n\r\n" if interim else b"") + BODY)
    except Refused as refusal:
        return str(refusal)


@cache
def judged() -> list[tuple[bytes, Reading | str, Reading | str]]:
    """Each head with h11's reading and ours."""
    return [(head, attempt(read_by_h11, head), attempt(read_by_us, head)) for _, head in heads()]


def few(heads: list[object]) -> list[object]:
    return list(islice(heads, 5))


# --- the tests -------------------------------------------------------------------------------------------------------


def test_the_generated_heads_are_worth_the_comparison() -> None:
    kinds = Counter(kind for kind, _ in heads())
    assert sum(kinds.values()) == HEADS
    assert kinds["near-valid"] >= 0.4 * HEADS
    taken = sum(isinstance(theirs, Reading) for _, theirs, _ in judged())
    assert 0.3 * HEADS < taken < 0.7 * HEADS
    ends = Counter(theirs.end for _, theirs, _ in judged() if isinstance(theirs, Reading))
    assert min(ends["framing"], ends["close"], ends["missing"]) > 200, ends
    assert all(
        not isinstance(theirs, str)
        for (kind, _), (_, theirs, _) in zip(heads(), judged(), strict=True)
        if kind == "valid"
    )


def test_what_h11_refuses_is_refused() -> None:
    assert (
        few(
            [(head, theirs) for head, theirs, ours in judged() if isinstance(theirs, str) and not isinstance(ours, str)]
        )
        == []
    )


def test_what_is_refused_beyond_h11_stands_in_the_list() -> None:
    stricter = [
        (head, ours) for head, theirs, ours in judged() if isinstance(theirs, Reading) and isinstance(ours, str)
    ]
    reasons = Counter(next((reason for reason in STRICTER if ours.startswith(reason)), "") for _, ours in stricter)
    assert few([(head, ours) for head, ours in stricter if not any(map(ours.startswith, STRICTER))]) == []
    assert set(reasons) == set(STRICTER)
    for head, ours in stricter:
        reason = next(reason for reason in STRICTER if ours.startswith(reason))
        assert re.search(STRICTER[reason], head), (head, ours)


def test_what_both_take_is_read_the_same() -> None:
    differing = []
    for head, theirs, ours in judged():
        if isinstance(theirs, Reading) and isinstance(ours, Reading) and comparable(theirs) != comparable(ours):
            differing.append((head, theirs, ours))
    assert few(differing) == []


def comparable(reading: Reading) -> tuple[object, ...]:
    fields = {name: value for name, value in reading.fields.items() if name not in FRAMING_FIELDS}
    return reading.status, fields, reading.body, reading.end, reading.reusable


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        (b"Content-Length: 5\r\nContent-Length: 6", "Content-Lengths that differ: '5, 6'"),
        (b"Content-Length: 5, 6", "Content-Lengths that differ: '5, 6'"),
        (b"Content-Length : 5", "a blank before the colon of a header: 'Content-Length : 5'"),
        (b"Content-Length\t: 5", "a blank before the colon of a header: 'Content-Length\\t: 5'"),
        (b"Transfer-Encoding: xchunked", "Transfer-Encoding is not chunked alone: 'xchunked'"),
        (b"Transfer-Encoding: gzip, chunked", "Transfer-Encoding is not chunked alone: 'gzip, chunked'"),
        (b"Transfer-Encoding: chunked, gzip", "Transfer-Encoding is not chunked alone: 'chunked, gzip'"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding is not chunked alone"),
        (b"X-Long: a\r\n b", "a header folded over two lines: ' b'"),
        (b"na me: x", "not the name of a header: 'na me: x'"),
        (b": x", "not the name of a header: ': x'"),
        (b"X: a\rb", "a control character in a header: 'X: a\\rb'"),
        (b"X: a\x00b", "a control character in a header: 'X: a\\x00b'"),
        (b"X: a\nY: b", "a line of the head ends in LF alone: 'X: a\\nY: b'"),
        (b"nothing", "not a header line: 'nothing'"),
    ],
)
def test_a_refusal_names_what_is_wrong(fields: bytes, error: str) -> None:
    with pytest.raises(BadHttp, match=re.escape(error)):
        Framing().feed(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n")


def test_a_head_whose_lines_end_in_lf_alone_is_refused_without_waiting_for_its_end() -> None:
    with pytest.raises(BadHttp, match="a line of the head ends in LF alone"):
        Framing().feed(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok")


def test_a_switch_of_protocols_is_refused() -> None:
    with pytest.raises(BadHttp, match="switched to another protocol"):
        Framing().feed(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")


@pytest.mark.parametrize(
    ("option", "keeps"),
    [
        (b"Connection: disclose", True),
        (b"Connection: keep-alive, close", False),
        (b"Connection: keep-alive\r\nConnection: CLOSE", False),
        (b"Connection: close\r\nConnection: keep-alive", False),
        (b"Connection: close-not", True),
    ],
)
def test_connection_options_are_read_as_tokens(option: bytes, keeps: bool) -> None:
    framing = Framing()
    assert framing.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + option + b"\r\n\r\nok")
    assert framing.keep_alive is keeps


@pytest.mark.parametrize("size", [b"+5", b" 5", b"0x5", b"\t5", b"5_", b"\x0b5"])
def test_a_chunk_size_is_hex_digits_alone(size: bytes) -> None:
    framing = Framing()
    with pytest.raises(BadHttp, match="not a chunk size"):
        framing.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n")

"""The promise of the kernel tier, held against the emulator's own log: a late client does not hurt its stamps."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
import pytest

from loadgen.clock import NS_PER_MS
from loadgen.emulator import Law, spawn
from loadgen.emulator.spawn import Emulator
from loadgen.engine.client import Client
from loadgen.record import TOKEN_KINDS, Int64, Outcome, Record
from loadgen.transport import Answer, Limits
from loadgen.transport.kernel import SELF_TESTS, stamping_works
from loadgen.wire import Ask, Target
from loadgen.wire.dialects import dialect
from loadgen.wire.http import Framing
from tests.fakes.peer import EVENT_STREAM
from tests.transport.conftest import Side, post

STREAMS, TOKENS = 6, 20
TOKEN = b'b\r\ndata: "x"\n\n\r\n'
STALL_S, EVERY_S = 0.05, 0.1


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with spawn(Law(ttft_s=0.02, gap_s=0.03)) as emulator:
        yield emulator


def record_streams(side: Side, emulator: Emulator, run: int, *, stalls: bool, **headers: str) -> list[Record]:
    """Send STREAMS requests at once, the loop blocked now and then if it is to be; return their records."""
    target = Target("openai", "vllm", "emulated", "/v1/chat/completions")
    fields = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}

    async def main(side: Side) -> list[Record]:
        client = Client(
            "emulator", target, dialect(target.api, target.path), side.transport(emulator.port, headers=fields)
        )
        loop = asyncio.get_running_loop()

        def stall() -> None:
            time.sleep(STALL_S)
            loop.call_later(EVERY_S - STALL_S, stall)

        if stalls:
            loop.call_later(0.03, stall)

        async def one(seq: int) -> Record:
            ask = Ask(prompt="one two three", output_tokens=TOKENS)
            answer, body = await client.send(ask, f"{run}-{seq}")
            return client.record(ask, body, answer, run=run, seq=seq, intended_ns=0, zero_ns=0)

        return await asyncio.gather(*(one(seq) for seq in range(STREAMS)))

    records = side.run(main)
    assert [record.outcome for record in records] == [Outcome.OK] * STREAMS
    return records


@pytest.fixture(scope="module", params=["kernel-uvloop", "kernel-asyncio", "callback-uvloop", "callback-asyncio"])
def calm(request: pytest.FixtureRequest, emulator: Emulator) -> list[Record]:
    """What each tier on each loop records when nothing disturbs it."""
    return record_streams(Side(*request.param.split("-")), emulator, 100 + request.param_index, stalls=False)


def errors_ms(records: list[Record], emulator: Emulator) -> Int64:
    """Stamp minus truth of each token that was the last of its read, in ms."""
    truth = emulator.truth()
    errors = []
    for record in records:
        true = truth[f"{record.run}-{record.seq}"]
        bearing = np.isin(record.event_kind, TOKEN_KINDS)
        assert bearing.sum() == len(true.token_ns) == TOKENS
        stamps, reads = record.event_ns[bearing], record.event_read[bearing]
        last = np.append(np.diff(reads) > 0, True)
        errors.append((stamps - np.array(true.token_ns, np.int64))[last])
    return np.concatenate(errors) / NS_PER_MS


def test_stamps_agree_with_what_the_server_did(calm: list[Record], emulator: Emulator) -> None:
    errors = errors_ms(calm, emulator)
    assert errors.min() > -1  # nothing arrives before it is sent
    assert np.median(errors) < 1


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_late_client_does_not_hurt_kernel_stamps(loop: str, emulator: Emulator) -> None:
    # Blocked half of the time, the callback tier stamps half of all tokens late, by up to the length of a stall.
    kernel = errors_ms(record_streams(Side("kernel", loop), emulator, 2, stalls=True), emulator)
    callback = errors_ms(record_streams(Side("callback", loop), emulator, 3, stalls=True), emulator)
    assert np.median(kernel) < 1
    assert np.quantile(callback, 0.75) > 10 * np.quantile(np.abs(kernel), 0.75)
    assert np.quantile(callback, 0.9) > 1000 * STALL_S / 4


def test_the_first_token_is_timed_from_a_sending_that_the_server_confirms(
    calm: list[Record], emulator: Emulator
) -> None:
    truth = emulator.truth()
    for record in calm:
        true = truth[f"{record.run}-{record.seq}"]
        assert record.sent_ns is not None
        assert record.sent_ns <= true.arrived_ns
        assert record.headers_ns is not None
        assert true.head_ns is not None
        assert record.headers_ns > true.head_ns - NS_PER_MS
    delays = [truth[f"{r.run}-{r.seq}"].arrived_ns - (r.sent_ns or 0) for r in calm]
    assert np.median(delays) < 20 * NS_PER_MS


def test_events_that_arrive_together_are_told_to_be_of_one_read(either: Side, emulator: Emulator) -> None:
    for record in record_streams(either, emulator, 5, stalls=False, X_Emulator_Fault="one-write"):
        assert len(np.unique(record.event_read)) <= 2  # the head may come by itself
        tokens = np.isin(record.event_kind, TOKEN_KINDS)
        assert len(np.unique(record.event_ns[tokens])) == 1


def test_events_that_arrive_apart_are_told_to_be_of_different_reads(calm: list[Record]) -> None:
    for record in calm:
        tokens = np.isin(record.event_kind, TOKEN_KINDS)
        assert len(np.unique(record.event_read[tokens])) > TOKENS / 2
        assert (np.diff(record.event_ns) >= 0).all()


class SlowToSee(Framing):
    """Takes two milliseconds to see whether an answer is complete, as one of several thousand tokens may."""

    made: ClassVar[list[SlowToSee]] = []
    looks: ClassVar[list[SlowToSee]] = []

    def __init__(self) -> None:
        super().__init__()
        self.made.append(self)

    def _chunks_complete(self) -> bool:
        self.looks.append(self)
        until = time.monotonic() + 0.002
        while time.monotonic() < until:
            pass
        return super()._chunks_complete()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_answers_that_end_together_do_not_keep_the_tokens_of_others_waiting(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server shares the client's loop, so that turns of the loop are counted and no time is measured."""
    monkeypatch.setattr("loadgen.transport.connection.Framing", SlowToSee)
    SlowToSee.made.clear()
    SlowToSee.looks.clear()
    short, all_have_heads = 150, asyncio.Event()
    patient = Limits(connect_s=100, first_token_s=100, between_tokens_s=100, total_s=100)

    async def turns_while(condition: Callable[[], bool], each: Callable[[], None] = lambda: None) -> None:
        while condition():
            each()
            await asyncio.sleep(0)

    def some_have_no_head() -> bool:
        return len(SlowToSee.made) <= short or any(framing.head is None for framing in SlowToSee.made)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(EVENT_STREAM + TOKEN)
        if b"X-Request-Id: 0-0\r" in head:
            await turns_while(some_have_no_head)
            all_have_heads.set()
            await turns_while(lambda: len(SlowToSee.looks) < short, lambda: writer.write(TOKEN))
        await all_have_heads.wait()
        writer.write(b"0\r\n\r\n")
        await reader.read()  # until the client has closed
        writer.close()

    async def main(side: Side) -> list[Answer]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            transport = side.transport(server.sockets[0].getsockname()[1], patient)
            answers = await asyncio.gather(*(post(transport, request_id=f"0-{seq}") for seq in range(short + 1)))
            await transport.close()
            await turns_while(lambda: len(asyncio.all_tasks()) > 1)
            return answers

    answers = Side("kernel", loop).run(main)
    assert {answer.failure for answer in answers} == {None}
    # A client that checks all the ends first finds the tokens that came meanwhile in one piece.
    assert len(answers[0].stamps_ns) > short / 4


# --- the self-test ---------------------------------------------------------------------------------------------------


def test_this_host_stamps() -> None:
    assert stamping_works() is None


def test_fresh_processes_stamp_from_the_start() -> None:
    # Stamping is switched on by a work queue: up to a third of fresh processes looked too early and fell a tier.
    ask = "from loadgen.transport.kernel import SELF_TESTS, stamping_works; print(stamping_works())"
    said = [subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True) for _ in range(8)]
    assert [process.stdout.strip() for process in said] == ["None"] * 8


class Strips(socket.socket):
    """Takes the option and brings no stamps, as some sandboxes do."""

    def recvmsg(self, *args: int) -> tuple:
        data, _, flags, address = super().recvmsg(*args)
        return data, [], flags, address


class StampsLater(socket.socket):
    """Brings no stamp with the first reads, as Linux does until its work queue has switched stamping on."""

    def __init__(self, *args: int, **more: int) -> None:
        super().__init__(*args, **more)
        self.unstamped = 20

    def recvmsg(self, *args: int) -> tuple:
        data, ancillary, flags, address = super().recvmsg(*args)
        self.unstamped -= 1
        return data, [] if self.unstamped >= 0 else ancillary, flags, address


class Late(socket.socket):
    """Brings stamps that are no arrival times: those of the reading."""

    def recvmsg(self, *args: int) -> tuple:
        data, ancillary, flags, address = super().recvmsg(*args)
        level, kind, _ = ancillary[0]
        now = time.clock_gettime_ns(time.CLOCK_REALTIME)
        stamp = b"".join(part.to_bytes(8, "little") for part in divmod(now, 1_000_000_000))
        return data, [(level, kind, stamp)], flags, address


def accept_as(kinds: list[type[socket.socket]], monkeypatch: pytest.MonkeyPatch) -> list[type[socket.socket]]:
    """Make accepted sockets of `kinds` in turn, the last one for ever; the list returned names those made."""
    accept, made = socket.socket.accept, []

    def accepted(self: socket.socket) -> tuple[socket.socket, object]:
        sock, address = accept(self)
        made.append(kinds[min(len(made), len(kinds) - 1)])
        return made[-1](fileno=sock.detach()), address

    monkeypatch.setattr(socket.socket, "accept", accepted)
    return made


@pytest.mark.parametrize(("kind", "reason"), [(Strips, "recvmsg brings no stamp"), (Late, "ms off")])
def test_a_host_that_does_not_stamp_is_told_why(
    monkeypatch: pytest.MonkeyPatch, kind: type[socket.socket], reason: str
) -> None:
    monkeypatch.setattr("loadgen.transport.kernel.FIRST_STAMP_NS", 30_000_000)
    made = accept_as([kind], monkeypatch)
    assert reason in (stamping_works() or "")
    assert len(made) == SELF_TESTS


def test_a_host_that_refuses_the_option_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, *args: object) -> None:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    monkeypatch.setattr("loadgen.transport.kernel._stamping_sockets", [])
    monkeypatch.setattr(socket.socket, "setsockopt", refuse)
    assert stamping_works() == "SO_TIMESTAMPNS is refused: Protocol not available"


def test_the_first_reads_without_a_stamp_cost_no_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    made = accept_as([StampsLater], monkeypatch)
    assert stamping_works() is None
    assert len(made) == 1


def test_one_failure_costs_no_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    made = accept_as([Late, socket.socket], monkeypatch)
    assert stamping_works() is None
    assert len(made) == 2

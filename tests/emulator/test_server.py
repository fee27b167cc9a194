"""The server on real sockets: its truth against kernel stamps, its order under slow readers, its life and end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

from loadgen.emulator import Law, read_truth, spawn
from loadgen.emulator.options import Options, OptionsError, arguments, parse
from loadgen.emulator.spawn import Emulator

from .conftest import Seen, ask, build, chat, chat_body, dial, receive

WIDE_S = 0.25  # other work shares the cores


def offset_ns() -> int:
    pairs = []
    for _ in range(100):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        pairs.append((after - before, wall - (before + after) // 2))
    return min(pairs)[1]


def test_truth_agrees_with_the_kernel_stamps_of_a_raw_client(vllm: Emulator) -> None:
    streams = []
    for i in range(6):
        sock = dial(vllm.port)
        asked = time.monotonic_ns()
        sock.sendall(build("/v1/chat/completions", chat_body(20), X_Request_Id=f"truth-{i}"))
        streams.append((i, asked, time.monotonic_ns(), receive(sock)))
        sock.close()
    offset, truth, errors = offset_ns(), vllm.truth(), []
    for i, asked, sent, seen in streams:
        true = truth[f"truth-{i}"]
        assert asked <= true.arrived_ns <= sent + WIDE_S * 1e9
        assert true.first_due_ns == true.arrived_ns + 10_000_000
        assert true.last_due_ns == true.first_due_ns + 19 * 2_000_000
        assert len(true.token_ns) == true.output_tokens == 20
        assert list(true.token_ns) == sorted(true.token_ns)
        assert true.token_ns[0] >= true.first_due_ns
        assert (true.input_tokens, true.complete, true.fault, true.status) == (3, True, None, 200)
        assert true.head_ns is not None
        assert true.arrived_ns < true.head_ns <= true.token_ns[0] < true.done_ns
        stamps = [stamp - offset for stamp, data in seen.reads if data.count(b'"content":" ') == 1]
        if len(stamps) == 20:  # each token came in a read of its own
            errors += [seen_ns - true_ns for seen_ns, true_ns in zip(stamps, true.token_ns, strict=True)]
    assert errors
    assert min(errors) > -1e6
    assert median(errors) < 1e6  # tens of microseconds when nothing else runs


def test_truth_of_an_abandoned_request(vllm: Emulator) -> None:
    with dial(vllm.port) as sock:
        sock.sendall(build("/v1/chat/completions", chat_body(5000), X_Request_Id="abandoned"))
        while b'"content":" ' not in sock.recv(65536):
            pass
    deadline = time.monotonic() + 5
    while "abandoned" not in vllm.truth():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    true = vllm.truth()["abandoned"]
    assert not true.complete
    assert 0 < true.output_tokens < 5000


def read_all(sock: socket.socket) -> Seen:
    """Read a long chunked answer; `receive` would look through all of it after each read."""
    data = bytearray()
    sock.settimeout(10)
    while not data.endswith(b"\r\n0\r\n\r\n"):
        data += sock.recv(1 << 20)
    return Seen(bytes(data))


def test_flood_reaches_a_slow_reader_whole_and_in_order() -> None:
    with spawn(Law(ttft_s=0, gap_s=0)) as emulator:
        request = build("/v1/chat/completions", chat_body(20_000, stream_options={"include_usage": True}))
        with dial(emulator.port) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            sock.sendall(request)
            time.sleep(0.1)
            events = read_all(sock).events()
        texts = [e["choices"][0]["delta"].get("content", "") for e in events if e["choices"]]
        assert len(texts) == 20_001
        assert events[-1]["usage"]["completion_tokens"] == 20_000
        assert texts[1:4] == texts[257:260]  # the vocabulary has 256 words
        assert next(iter(emulator.truth().values())).output_tokens == 20_000


def test_paced_stream_outgrows_the_socket_and_loses_nothing() -> None:
    # 20 us a token into a socket that is not read: the send buffer fills, the rest waits in the emulator.
    with spawn(Law(ttft_s=0, gap_s=20e-6)) as emulator, dial(emulator.port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.sendall(build("/v1/chat/completions", chat_body(20_000)))
        time.sleep(1.0)
        assert read_all(sock).body.count(b'"content":" ') == 20_000


def test_slots_queue_on_the_wire() -> None:
    with spawn(Law(ttft_s=0.03, gap_s=0.001, slots=1)) as emulator:
        socks = [dial(emulator.port) for _ in range(3)]
        for i, sock in enumerate(socks):
            sock.sendall(build("/v1/chat/completions", chat_body(2), X_Request_Id=f"q{i}"))
            time.sleep(0.002)
        for sock in socks:
            assert receive(sock).status == 200
            sock.close()
        truth = emulator.truth()
        for a, b in (("q0", "q1"), ("q1", "q2")):
            assert truth[b].arrived_ns + truth[b].queue_ns == truth[a].last_due_ns


def test_each_instance_counts_for_itself() -> None:
    with spawn(Law(ttft_s=0.001, gap_s=0, instances=2)) as emulator:
        chat(emulator.port, 3)
        pages = [ask(port, build("/metrics")).body.decode() for port in emulator.ports]
    told = [next(line for line in page.splitlines() if "generation_tokens_total{" in line) for page in pages]
    assert [line.rsplit(" ", 1)[1] for line in told] == ["3", "0"]


def test_instances_listen_side_by_side() -> None:
    with spawn(Law(ttft_s=0.001, gap_s=0, instances=2)) as emulator:
        assert len(set(emulator.ports)) == 2
        for i, port in enumerate(emulator.ports):
            assert chat(port, 1, X_Request_Id=f"i{i}").status == 200
        assert [emulator.truth()[f"i{i}"].instance for i in range(2)] == [0, 1]


def test_prefix_cache_shortens_prefill_and_is_reported() -> None:
    with spawn(Law(ttft_s=0, gap_s=0, prefill_tokens_per_s=10_000, prefix_cache=True)) as emulator:
        body = {"model": "emulated", "prompt": " ".join(map(str, range(100))), "max_tokens": 1}
        for name in ("cold", "warm"):
            seen = ask(emulator.port, build("/v1/completions", body, X_Request_Id=name))
        assert b'"cached_tokens":96' in seen.body
        truth = emulator.truth()
        assert (truth["cold"].prefill_ns, truth["warm"].prefill_ns) == (10_000_000, 400_000)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "loadgen.emulator", *words]


ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(number: int, tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    process = subprocess.Popen(command("--port", "0", "--truth", str(log)), stdout=subprocess.PIPE, env=ENV)
    assert process.stdout is not None
    port = int(process.stdout.readline().split()[-1].rpartition(b":")[2])
    assert chat(port, 1, X_Request_Id="last").status == 200
    process.send_signal(number)
    assert process.wait(5) == 0
    process.stdout.close()
    assert read_truth(log)["last"].complete


def test_it_ends_after_max_seconds_or_with_its_parent() -> None:
    timed = subprocess.run(command("--port", "0", "--max-seconds", "0.2"), env=ENV, capture_output=True, timeout=10)
    assert timed.returncode == 0
    orphan = subprocess.Popen(
        command("--port", "0", "--spawned"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENV
    )
    assert orphan.stdin is not None
    assert orphan.stdout is not None
    orphan.stdout.readline()
    orphan.stdin.close()  # what the kernel does when the parent dies
    assert orphan.wait(5) == 0
    orphan.stdout.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "--allow-remote"),
        (["--fault", "gremlins=1"], "no fault is called"),
        (["--slots", "0"], "slots must be > 0"),
        (["--port", "65535", "--instances", "2"], "--port 65535"),
    ],
)
def test_bad_options_are_one_line_and_exit_2(words: list[str], said: str) -> None:
    result = subprocess.run(command(*words), env=ENV, capture_output=True, text=True, timeout=10)
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_port_in_use_is_one_line_and_exit_2(vllm: Emulator) -> None:
    result = subprocess.run(command("--port", str(vllm.port)), env=ENV, capture_output=True, text=True, timeout=10)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "in use" in result.stderr
    with pytest.raises(RuntimeError, match="did not start"), spawn(port=vllm.port):
        pass


def test_options_survive_the_command_line() -> None:
    law = Law(ttft_s=0.0123, gap_s=0.001, slots=3, mm1_rate=2.5, prefix_cache=True, seed=9, instances=2)
    options = Options(law=law, port=0, presents="ollama", faults=("cut=0.1", "503=1/2"), truth=Path("a b"), cpu=1)
    assert parse(arguments(options)) == options
    with pytest.raises(OptionsError, match="--as"):
        Options(presents="gremlin")


def test_it_starts_without_heavy_imports() -> None:
    code = "import sys, loadgen.emulator.server; print([m for m in ('numpy','pydantic','typer') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, timeout=20)
    assert result.stdout.strip() == "[]"

"""What a scrape says, through the real server and Prometheus' own parsers."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import numpy as np
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from loadgen.engine.tally import Tally
from loadgen.exporter import METRICS, AgentFigures, Exporter, ExportError, names, push, remote_write, serve
from loadgen.manifest import InstrumentFacts, Manifest
from loadgen.record import Kind, Outcome, Record
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.resolve import describe_endpoint
from loadgen.telemetry import Look, Value, labelled
from loadgen.wire import Target

MS = 1_000_000
TARGET = Target(api="openai", kind="vllm", model="m", path="/v1/chat/completions")
MANIFEST = Manifest(
    loadgen="1.2.3",
    instrument=InstrumentFacts(tier="kernel"),
    targets=(describe_endpoint(Endpoint("a:1", "http://a:1", TARGET, label="vLLM 0.9")),),
)


def record(seq: int, *, outcome: Outcome = Outcome.OK, agent: str = "", ttft_ms: int = 40) -> Record:
    made = Record(0, seq, "a:1", 0, outcome, agent=agent, sent_ns=MS, input_tokens=7, output_tokens=3)
    made.event_ns = np.array([ttft_ms * MS, (ttft_ms + 20) * MS, (ttft_ms + 40) * MS], np.int64)
    made.event_kind, made.event_read = np.full(3, Kind.CONTENT, np.uint8), np.arange(3, dtype=np.int32)
    return made


@pytest.fixture
def exporter() -> Exporter:
    made = Exporter("open-loop", "runs/1")
    tally = Tally({("a:1", ""): 5}, due=12, begun=9, loop_lag_ns=2 * MS, send_lag_ns=3 * MS, cpu_ns=1_500 * MS)
    for seq in range(3):
        tally.add(record(seq))
    tally.add(record(3, outcome=Outcome.STALLED))
    tally.add(record(4, agent="x", ttft_ms=900_000))
    made.describe(MANIFEST)
    made.count_runs(1, 5)
    made.show(tally)
    return made


@pytest.fixture
def url(exporter: Exporter) -> Iterator[str]:
    server = serve(exporter, 0)
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()


def fetch(url: str, accept: str = "text/plain") -> str:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as response:
        text: str = response.read().decode()
    return text


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def parse_openmetrics(text: str) -> list[Any]:
    return list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def labels(**given: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(given.items()))


def test_counts_are_those_shown(url: str) -> None:
    got = samples(fetch(url))
    here = {"endpoint": "a:1", "agent": ""}
    assert got["loadgen_requests_total", labels(outcome="ok", **here)] == 3
    assert got["loadgen_requests_total", labels(outcome="stalled", **here)] == 1
    assert got["loadgen_requests_total", labels(outcome="ok", endpoint="a:1", agent="x")] == 1
    assert got["loadgen_output_tokens_total", labels(**here)] == 9
    assert got["loadgen_in_flight", labels(**here)] == 5
    assert got["loadgen_requests_offered_total", ()] == 12
    assert got["loadgen_waiting", ()] == 3
    assert got["loadgen_cpu_seconds_total", ()] == 1.5
    assert got["loadgen_loop_lag_seconds", ()] == 0.002
    assert got["loadgen_send_lag_seconds", ()] == 0.003
    assert got["loadgen_verdict", labels(verdict="running")] == 1
    assert got["loadgen_runs_planned", ()] == 5
    assert got[
        "loadgen_target_info", labels(endpoint="a:1", url="http://a:1", api="openai", model="m", server="vLLM 0.9")
    ]


def test_histograms_hold_each_duration_once_below_its_bound(url: str) -> None:
    got = samples(fetch(url))
    here = {"endpoint": "a:1", "agent": ""}
    assert got["loadgen_ttft_seconds_bucket", labels(le="0.03", **here)] == 0
    assert got["loadgen_ttft_seconds_bucket", labels(le="0.05", **here)] == 3
    assert got["loadgen_ttft_seconds_count", labels(**here)] == 3
    assert got["loadgen_ttft_seconds_sum", labels(**here)] == pytest.approx(0.12)
    assert got["loadgen_event_gap_seconds_count", labels(**here)] == 6
    late = {"endpoint": "a:1", "agent": "x"}
    assert got["loadgen_ttft_seconds_bucket", labels(le="500", **late)] == 0
    assert got["loadgen_ttft_seconds_bucket", labels(le="+Inf", **late)] == 1


def test_every_series_is_declared_and_every_declared_family_is_there(exporter: Exporter, url: str) -> None:
    exporter.show_agents(AgentFigures((1.8, 1.7, 1.9), (0.9, None, None), 0.95, "contention"))
    gpu, core = labelled(gpu=0), labelled(core="all")
    exporter.show_look("host", Look(0, [Value(name, core, 0.5) for name in ("cpu_busy_ratio", "cpu_steal_ratio")]))
    exporter.show_look(
        "nvml",
        Look(0, [Value("gpu_power_watts", gpu, 90.0), Value("gpu_energy_joules_total", gpu, 7.0, counter=True)]),
    )
    exporter.show_look("server", Look(0, [Value("vllm:num_requests_running", "{}", 3.0)]))
    text = fetch(url)
    assert {name for name, _ in samples(text)} <= names()
    assert {family.name for family in parse_openmetrics(fetch(url, "application/openmetrics-text; version=1.0.0"))} == {
        *(name for name in METRICS if not name.startswith(("loadgen_host_", "loadgen_gpu_"))),
        *("loadgen_host_cpu_busy_ratio", "loadgen_host_cpu_steal_ratio"),
        *("loadgen_gpu_power_watts", "loadgen_gpu_energy_joules"),
    }
    got = samples(text)
    assert got["loadgen_speedup", labels(bound="low")] == 1.7
    assert ("loadgen_efficiency", labels(bound="low")) not in got
    assert got["loadgen_contention", labels(verdict="contention")] == 1
    assert got["loadgen_contention", labels(verdict="none")] == 0
    assert got["loadgen_gpu_energy_joules_total", labels(gpu="0")] == 7


def test_openmetrics_tells_which_request_was_slow(url: str) -> None:
    families = {f.name: f for f in parse_openmetrics(fetch(url, "application/openmetrics-text; version=1.0.0"))}
    found = [
        s.exemplar for s in families["loadgen_ttft_seconds"].samples if s.labels.get("agent") == "x" and s.exemplar
    ]
    assert [(one.labels, one.value) for one in found] == [({"request": "0-4"}, 900.0)]


def test_native_histograms_go_to_scrapers_that_take_them(url: str) -> None:
    accept = "application/openmetrics-text; version=2.0.0"
    text = fetch(url, accept)
    line = next(line for line in text.splitlines() if line.startswith('loadgen_ttft_seconds{agent=""'))
    assert "schema:5" in line
    # 40 ms lie in bucket ceil(log2(0.04) * 32) = -148 of the schema: three of them, alone.
    assert "positive_spans:[-148:1],positive_deltas:[3]" in line
    assert "{count:" not in fetch(url, "application/openmetrics-text; version=1.0.0")
    assert "loadgen_ttft_seconds{" not in fetch(url)


def test_the_last_scrape_is_one_after_the_end(exporter: Exporter, url: str) -> None:
    fetch(url)
    assert not exporter.wait_for_last_scrape(0)
    exporter.conclude("ok")
    text = fetch(url)
    assert exporter.wait_for_last_scrape(10)
    assert samples(text)["loadgen_verdict", labels(verdict="ok")] == 1


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ExportError, match=rf"--prometheus-port {port}: Address already in use; name a free port"):
            serve(Exporter(), port)


class _Gateway(BaseHTTPRequestHandler):
    bodies: ClassVar[list[tuple[str, bytes]]] = []
    status: ClassVar[int] = 200

    def do_PUT(self) -> None:
        self.bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        self.end_headers()

    do_POST = do_PUT

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(_Gateway, "bodies", [])
    monkeypatch.setattr(_Gateway, "status", 200)
    server = HTTPServer(("127.0.0.1", 0), _Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_push_holds_what_a_scrape_would(exporter: Exporter, gateway: str) -> None:
    push(exporter, gateway, "one")
    path, body = _Gateway.bodies[0]
    assert path == "/metrics/job/loadgen/instance/one"
    assert samples(body.decode())["loadgen_requests_total", labels(outcome="ok", endpoint="a:1", agent="")] == 3


def test_a_gateway_that_refuses_is_one_line(exporter: Exporter, gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Gateway, "status", 500)
    with pytest.raises(ExportError, match=r"--push-gateway 127\.0\.0\.1"):
        push(exporter, gateway, "one")
    with pytest.raises(ExportError, match=r"--push-gateway 127\.0\.0\.1:1: .*refused"):
        push(exporter, "http://127.0.0.1:1", "one")


def test_remote_write_sends_every_series(exporter: Exporter, gateway: str) -> None:
    pytest.importorskip("prometheus_remote_writer", reason="needs the remote-write extra")
    import snappy
    from prometheus_remote_writer.proto.remote_pb2 import WriteRequest

    remote_write(exporter, f"{gateway}/api/v1/write", "one")
    message = WriteRequest()
    message.ParseFromString(snappy.uncompress(_Gateway.bodies[0][1]))
    written = {
        (
            named.pop("__name__"),
            labels(**{k: v for k, v in named.items() if k not in ("job", "instance")}),
        ): one.samples[0].value
        for one in message.timeseries
        for named in [{label.name: label.value for label in one.labels}]
    }
    assert written["loadgen_requests_total", labels(outcome="ok", endpoint="a:1", agent="")] == 3
    assert written["loadgen_ttft_seconds_bucket", labels(le="+Inf", endpoint="a:1", agent="x")] == 1


def test_a_refused_write_is_told_without_what_its_url_holds(
    exporter: Exporter, gateway: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("prometheus_remote_writer", reason="needs the remote-write extra")
    monkeypatch.setattr(_Gateway, "status", 401)
    at = gateway.removeprefix("http://")
    with pytest.raises(ExportError, match=f"^--remote-write {at}: HTTP 401$"):
        remote_write(exporter, f"http://me:hunter2@{at}/api/v1/write?token=sesame", "one")
    with pytest.raises(ExportError, match=r"^--remote-write 127\.0\.0\.1:1: .*refused") as refused:
        remote_write(exporter, "http://me:hunter2@127.0.0.1:1/api/v1/write?token=sesame", "one")
    assert "hunter2" not in str(refused.value)
    assert "sesame" not in str(refused.value)

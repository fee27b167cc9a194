"""Live counters from the command line: faults of the outlets, the last scrape, and a scrape under overload."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from loadgen.cli import exporting as cli_exporting
from loadgen.exporter import Exporter
from tests.grafana.prometheus import free_port

SMALL = ["run", "--emulator", "--concurrency", "2", "--requests", "6", "--output-tokens", "3"]


def loadgen(*words: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadgen", *words, "--no-progress"]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "loadgen", *words, "--no-progress"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process


def scrape(port: int, timeout: float = 30) -> dict[str, float]:
    """Return each series' sum over its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=timeout) as response:
        text = response.read().decode()
    sums: dict[str, float] = {}
    for family in parse(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def test_a_port_in_use_is_one_line_and_nothing_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = loadgen(*SMALL, "--prometheus-port", port, "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr == f"loadgen: --prometheus-port {port}: Address already in use; name a free port\n"
    assert not (tmp_path / "run").exists()


def test_an_address_that_is_not_ours_is_told_as_that(tmp_path: Path) -> None:
    for host in ("no.such.host.invalid", "192.0.2.1"):
        done = loadgen(
            *SMALL, "--prometheus-port", "0", "--prometheus-host", host, "--out", str(tmp_path / "run"), "--quiet"
        )
        assert done.returncode == 2
        assert done.stderr.startswith(f"loadgen: --prometheus-host {host}: ")
        assert done.stderr.endswith("; name an address of this machine\n")


@pytest.mark.parametrize(
    ("option", "url", "told"),
    [
        ("--push-gateway", "not a url", "must start with http:// or https:// and name a host, got 'not a url'"),
        ("--push-gateway", "http://me:hunter2@127.0.0.1", "must not hold credentials, for they cannot be sent"),
        ("--remote-write", "ftp://me:hunter2@127.0.0.1", "must start with http:// or https:// and name a host"),
    ],
)
def test_an_outlet_that_can_never_work_is_told_before_anything_starts(
    option: str, url: str, told: str, tmp_path: Path
) -> None:
    done = loadgen(*SMALL, option, url, "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr == f"loadgen: {option}: {told}\n"
    assert not (tmp_path / "run").exists()


def test_a_gateway_that_is_not_there_is_told_and_the_run_is_kept(tmp_path: Path) -> None:
    done = loadgen(*SMALL, "--push-gateway", "http://127.0.0.1:1", "--out", str(tmp_path / "run"))
    assert done.returncode in (0, 4)  # 4: on a busy machine
    lines = [line for line in done.stderr.splitlines() if "--push-gateway" in line]
    assert lines == ["loadgen: --push-gateway 127.0.0.1:1: [Errno 111] Connection refused"]
    assert (tmp_path / "run" / "summary.json").exists()


def test_the_port_stays_until_the_final_counts_are_scraped(tmp_path: Path) -> None:
    port = free_port()
    with started(*SMALL, "--prometheus-port", str(port), "--out", str(tmp_path / "run")) as process:
        assert process.stderr is not None
        told = ""
        while "final counts" not in told:
            told = process.stderr.readline()
            assert told, "it ended without waiting"
        last = scrape(port)
        process.wait(20)  # less than it would have stayed
    assert last["loadgen_requests_total"] == 6
    assert last["loadgen_output_tokens_total"] == 18
    assert last["loadgen_in_flight"] == 0


def test_without_a_scrape_it_stays_only_so_long() -> None:
    exporter = Exporter()
    exporter.conclude("ok")
    began = time.monotonic()
    assert not exporter.wait_for_last_scrape(0.2)
    assert time.monotonic() - began >= 0.2
    assert cli_exporting.LINGER_S > 15  # Prometheus's usual interval


def test_a_scrape_is_answered_in_the_middle_of_overload(tmp_path: Path) -> None:
    port = free_port()
    words = ["run", "--emulator", "--concurrency", "200", "--duration", "6", "--output-tokens", "400"]
    seen: list[dict[str, float]] = []
    with started(*words, "--prometheus-port", str(port), "--out", str(tmp_path / "run")) as process:
        drained = threading.Thread(target=process.communicate)
        drained.start()
        while process.poll() is None:  # a scrape after its end lets it go
            with suppress(OSError):
                seen.append(scrape(port, timeout=5))
            time.sleep(0.3)
        drained.join(60)
    busy = [one for one in seen if one.get("loadgen_in_flight", 0) >= 150]
    assert len(busy) >= 5  # of about twenty asked for
    assert (tmp_path / "run" / "summary.json").exists()

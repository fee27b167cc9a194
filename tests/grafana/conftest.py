"""One scraped campaign of agents for all tests of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.grafana.prometheus import Prometheus, free_port, running, tool
from tests.telemetry.conftest import fake_nvml

__all__ = ["fake_nvml"]

SHIPPED = Path(__file__).parents[2] / "grafana"


@dataclass(frozen=True)
class Scraped:
    """What Prometheus holds of a run that is over."""

    prometheus: Prometheus
    directory: Path
    began: float  # wall time in s
    ended: float
    page: str  # /metrics in the middle


@pytest.fixture(scope="session")
def promtool() -> Path:
    found = tool("promtool")
    if isinstance(found, str):
        pytest.skip(found)
    return found


def scrape(folder: Path, words: list[str], environment: dict[str, str]) -> Iterator[Scraped]:
    program = tool("prometheus")
    if isinstance(program, str):
        pytest.skip(program)
    port = free_port()
    with running(program, SHIPPED, folder, f"localhost:{port}") as prometheus:
        began = time.time()
        directory, page = folder / "run", ""
        command = [sys.executable, "-m", "loadgen", *words, "--out", str(directory), "--prometheus-port", str(port)]
        with subprocess.Popen([*command, "--quiet"], env=os.environ | environment, stderr=subprocess.PIPE) as process:
            # Not once it is over: the last scrape is Prometheus's.
            while process.poll() is None and not page:
                time.sleep(0.5)
                with suppress(OSError), urllib.request.urlopen(f"http://localhost:{port}/metrics", timeout=10) as got:
                    text = got.read().decode()
                    page = text if "loadgen_requests_total{" in text else ""
            process.wait(120)
            assert process.stderr is not None
            # 4: on a machine this busy the load was not the one asked for. It was exported all the same.
            assert process.returncode in (0, 4), process.stderr.read().decode()
        time.sleep(3)  # rules are evaluated once a second
        yield Scraped(prometheus, directory, began, time.time(), page)


@pytest.fixture(scope="session")
def agents(tmp_path_factory: pytest.TempPathFactory, fake_nvml: Callable[..., dict[str, str]]) -> Iterator[Scraped]:
    words = ["agents", "--scenario", "chimera_homo", "--workload", "micro", "--emulator", "--runs", "4"]
    words += ["--rounds", "3", "--output-tokens", "30", "--telemetry-interval", "0.5"]
    yield from scrape(tmp_path_factory.mktemp("agents"), words, fake_nvml())


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    words = ["run", "--emulator", "--concurrency", "8", "--duration", "3", "--output-tokens", "12"]
    yield from scrape(tmp_path_factory.mktemp("short"), words, {})

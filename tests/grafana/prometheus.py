"""A real Prometheus for the tests: the one on PATH, else Debian's package, unpacked into a cache."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "loadgen-real" / "prometheus"
READY_S = 30.0


def tool(name: str) -> Path | str:
    """The path of `name` (prometheus, promtool) is; or, as text, why there is none."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    unpacked = CACHE / "usr" / "bin" / name
    if not unpacked.exists():
        if shutil.which("apt-get") is None:
            return f"no {name} on PATH, and this is no Debian to fetch its package from"
        CACHE.mkdir(parents=True, exist_ok=True)
        with contextlib.chdir(CACHE):
            fetched = subprocess.run(["apt-get", "download", "-qq", "prometheus"], capture_output=True, text=True)
            packages = sorted(CACHE.glob("prometheus_*.deb"))
            if not packages:
                return f"no {name} on PATH, and apt-get download says: {fetched.stderr.strip()[:200]}"
            subprocess.run(["dpkg", "-x", packages[-1].name, "."], check=True)
        if not unpacked.exists():
            return f"no {name} on PATH, nor in {packages[-1].name}"
    return unpacked


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@dataclass(frozen=True)
class Prometheus:
    url: str

    def ask(self, route: str, **arguments: object) -> Any:
        """Return the data of an API answer. Raises AssertionError with what Prometheus says is wrong."""
        query = urllib.parse.urlencode({name: str(value) for name, value in arguments.items()})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{route}?{query}", timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{arguments}: {error.read().decode()}") from None

    def series(self, expression: str, begin: float, end: float) -> list[dict[str, Any]]:
        return list(self.ask("query_range", query=expression, start=begin, end=end, step=1)["result"])

    def latest(self, expression: str, at: float) -> dict[tuple[tuple[str, str], ...], float]:
        """Return label pairs (without job and instance) to the value at an instant."""
        found = self.ask("query", query=expression, time=at)["result"]
        return {
            tuple(sorted((k, v) for k, v in one["metric"].items() if k not in ("job", "instance", "__name__"))): float(
                one["value"][1]
            )
            for one in found
        }


@contextlib.contextmanager
def running(program: Path, shipped: Path, folder: Path, target: str) -> Iterator[Prometheus]:
    """Run Prometheus with the shipped configuration, except for the targets it scrapes."""
    configuration = folder / "grafana"
    shutil.copytree(shipped, configuration)
    (configuration / "targets" / "loadgen.yml").write_text(json.dumps([{"targets": [target]}]))
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        str(program),
        f"--config.file={configuration / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _until_ready(url, process, folder / "prometheus.log")
            yield Prometheus(url)
        finally:
            process.terminate()


def _until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + READY_S
    while time.monotonic() < give_up:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()  # not yet
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.1)
    raise AssertionError(f"Prometheus is not ready: {log.read_text()[-2000:]}")

"""How servers.py starts and ends processes, tried on Python's own http.server: nothing is installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import servers


def http_server(options: servers.Options) -> list[str]:
    return [sys.executable, "-m", "http.server", "--bind", servers.HOST, str(options.port)]


pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("timeout") is None, reason="needs Linux and coreutils' timeout"
)

FAKE = servers.Spec(
    name="fake",
    port=0,
    slots=1,
    serial=True,
    health="/",
    healthy_within_s=20,
    recipe="",
    build=lambda: None,
    command=http_server,
    environment=dict,
    model_name=str,
)


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Put the fake server into an empty home and yield the port that it should use."""
    monkeypatch.setenv("LOADGEN_REAL_HOME", str(tmp_path))
    monkeypatch.setitem(servers.SPECS, "fake", FAKE)
    (tmp_path / "run").mkdir()
    port = servers.free_port()
    yield port
    servers.stop("fake", port=port)


def wait_until_gone(running: servers.Running) -> None:
    deadline_s = time.monotonic() + 20
    while servers.find(running.name, port=running.port):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_started_server_answers_and_is_gone_once_stopped(fake: int) -> None:
    running = servers.start("fake", port=fake)
    assert servers.find("fake", port=fake) == running
    with urllib.request.urlopen(running.url) as response:
        assert response.status == 200
    assert servers.stop("fake", port=fake)
    assert servers.find("fake", port=fake) is None
    assert not servers.stop("fake", port=fake)


def test_server_ends_by_itself_when_its_life_is_over(fake: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "LIFE_S", 3)
    running = servers.start("fake", port=fake)
    assert servers.find("fake", port=fake) == running
    wait_until_gone(running)
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(running.url)


def test_server_that_dies_is_told_with_the_end_of_its_log(fake: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = [sys.executable, "-c", "raise SystemExit('no such model')"]
    monkeypatch.setitem(servers.SPECS, "fake", replace(FAKE, command=lambda options: dying))
    with pytest.raises(servers.StartError, match="exit code 1:\nno such model"):
        servers.start("fake", port=fake)


def test_server_that_never_gets_healthy_is_stopped(fake: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(servers.SPECS, "fake", replace(FAKE, health="/missing", healthy_within_s=1))
    with pytest.raises(servers.StartError, match="not healthy after 1 s"):
        servers.start("fake", port=fake)
    assert servers.find("fake", port=fake) is None
    assert servers.free_port(fake) == fake


def test_port_of_somebody_else_is_refused(fake: int) -> None:
    servers.start("fake", port=fake)
    with pytest.raises(servers.StartError, match=f"port {fake} is taken"):
        servers.start("fake", port=fake)


def test_process_that_inherited_the_number_is_left_alone(fake: int) -> None:
    with subprocess.Popen(["sleep", "30"], start_new_session=True) as somebody:
        old = servers.Running("fake", fake, somebody.pid, born_ticks=1, command=())
        servers.remember(old)
        assert servers.find("fake", port=fake) is None
        assert not servers.stop("fake", port=fake)
        assert somebody.poll() is None
        os.kill(somebody.pid, 9)


def test_serial_server_refuses_more_slots(fake: int) -> None:
    with pytest.raises(ValueError, match="one answer at a time"):
        servers.start("fake", port=fake, slots=2)


def test_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(servers.Unavailable, match="llama-server: no C"):
        servers.SPECS["llama-server"].build()


def test_recipe_is_followed_once_and_again_when_it_changes() -> None:
    made: list[str] = []
    for recipe in ("one", "one", "two"):
        servers.make_once("thing", recipe, partial(made.append, recipe))
    assert made == ["one", "two"]


def test_failed_step_is_unavailable_with_the_end_of_its_log_and_is_tried_again() -> None:
    def fail() -> None:
        servers.run_step("thing", sys.executable, "-c", "raise SystemExit('no network')", what="pip install")

    for _ in range(2):
        with pytest.raises(servers.Unavailable, match=r"thing: pip install failed(.|\n)*no network"):
            servers.make_once("thing", "recipe", fail)

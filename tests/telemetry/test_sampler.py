"""The sampler beside an emulator: what reaches the disk, on which clock, and what stops it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.server
import itertools
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from loadgen.campaign.measure import measure
from loadgen.campaign.prepare import prepare
from loadgen.clock import NS_PER_S, now_ns
from loadgen.emulator import spawn
from loadgen.profile import Telemetry, load
from loadgen.servers.endpoint import Endpoint
from loadgen.telemetry import Look, Source, Value
from loadgen.telemetry.log import SCHEMA, Log, close_log, reopen_log
from loadgen.telemetry.sampler import Looks, start_sampler
from loadgen.wire import Target
from tests.fakes.virtual import START_NS, VirtualLoop, run_virtually


def settings(**others: object) -> Telemetry:
    return Telemetry.model_validate({"interval_s": 0.05, "gpu": "off", **others})


def endpoint(url: str) -> Endpoint:
    return Endpoint("a", url, Target(api="openai", kind="vllm", model="m", path="/v1/chat/completions"))


def look(time_ns: int, value: float = 1.0, name: str = "x") -> Look:
    return Look(time_ns, [Value(name, "{}", value), Value(f"{name}_total", "{}", value, counter=True)])


def test_times_count_from_the_zero_of_the_run_that_was_announced(tmp_path: Path):
    log = Log(tmp_path / "log")
    log.append("host", look(1_000))  # before anybody knew when the first run would begin
    log.flush()
    log.begin(0, 5_000)
    log.append("host", look(4_000))
    log.flush()
    log.append("host", look(6_000))
    log.append("host", look(90_000))  # run 0 is over, run 1 not announced
    log.begin(1, 100_000)
    log.append("host", look(99_000))
    log.append("host", look(101_000))
    log.flush()
    assert close_log(tmp_path / "log", tmp_path / "telemetry.parquet") == 12
    rows = [row for row in pq.read_table(tmp_path / "telemetry.parquet").to_pylist() if row["kind"] == "gauge"]
    assert [(row["run"], row["time"]) for row in rows] == [
        *((0, -4_000), (0, -1_000), (0, 1_000), (0, 85_000)),
        *((1, -1_000), (1, 1_000)),
    ]
    assert not (tmp_path / "log").exists()


def test_what_was_flushed_survives_and_what_was_being_written_is_no_segment(tmp_path: Path):
    log = Log(tmp_path / "log")
    log.begin(0, 0)
    log.append("host", look(1))
    log.flush()
    (tmp_path / "log" / "000001.tmp").write_bytes(b"PAR1 cut here")
    assert close_log(tmp_path / "log", tmp_path / "telemetry.parquet") == 2
    table = pq.read_table(tmp_path / "telemetry.parquet")
    assert table.schema.equals(SCHEMA)
    assert table["kind"].to_pylist() == ["gauge", "counter"]


def test_without_a_sample_there_is_no_file(tmp_path: Path):
    Log(tmp_path / "log")
    assert close_log(tmp_path / "log", tmp_path / "telemetry.parquet") == 0
    assert list(tmp_path.iterdir()) == []


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that the sampler's thread does sooner or later."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (the condition is of another thread)
            await asyncio.sleep(0.01)


async def test_samples_lie_on_the_clock_of_the_run_at_the_rate_asked_for(tmp_path: Path):
    looks: Counter[str] = Counter()
    with spawn() as emulator:
        sampler = await start_sampler(
            settings(), [endpoint(emulator.url)], tmp_path / "log", on_look=lambda source, _: looks.update([source])
        )
        assert sampler is not None
        zero_ns = now_ns()
        sampler.begin(3, zero_ns)
        before = looks["server"]
        await until(lambda: looks["server"] >= before + 5)
        told = await sampler.stop()
        lasted_ns = now_ns() - zero_ns
    close_log(tmp_path / "log", tmp_path / "telemetry.parquet")
    rows = pq.read_table(tmp_path / "telemetry.parquet").to_pylist()
    assert {row["run"] for row in rows} == {3}
    assert {row["source"] for row in rows} == {"host", "process", "server"}
    waiting = [row for row in rows if row["name"] == "vllm:num_requests_waiting"]
    assert {row["value"] for row in waiting} == {0.0}
    assert json.loads(waiting[0]["labels"])["endpoint"] == "a"
    times = [row["time"] for row in waiting]
    assert times == sorted(times)
    assert times[0] < 0  # read before the run began
    assert times[-1] <= lasted_ns
    # One look a place of the grid at most, and one when it is stopped.
    assert 4 <= sum(time >= 0 for time in times) <= lasted_ns / (0.05 * NS_PER_S) + 2
    assert [source["source"] for source in told.sources] == ["host", "process", "server"]
    assert told.interval_s == 0.05
    assert told.absent == told.notes == ()


def looked_at(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    plan: Callable[[Looks], Awaitable[None]],
    takes_s: Sequence[float] = (),
    name: str = "x",
    **facts: float,
) -> list[float]:
    """When one source is read every 0.25 s while `plan` runs, in seconds of virtual time from the start.

    takes_s: how long the first looks take; those that follow take no time.
    """
    begun: list[float] = []
    takes = iter(takes_s)

    async def main(loop: VirtualLoop) -> None:
        async def read() -> Look:
            begun.append((loop.now_ns() - START_NS) / NS_PER_S)
            await asyncio.sleep(next(takes, 0))
            return Look(loop.now_ns(), [])

        looks = Looks(0.25, Log(folder))
        running = asyncio.create_task(looks.run([Source(name, read, **facts)], lambda: None))
        await plan(looks)
        looks.stop()
        await running

    run_virtually(monkeypatch, main)
    return begun


async def a_second(looks: Looks) -> None:
    await asyncio.sleep(1.12)


def test_looks_keep_to_a_grid_and_a_last_one_ends_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert looked_at(monkeypatch, tmp_path, a_second) == [0, 0.25, 0.5, 0.75, 1.0, 1.12]
    tenths = [at / 10 for at in range(12)]
    assert looked_at(monkeypatch, tmp_path, a_second, name="nvml") == pytest.approx([*tenths, 1.12])
    assert looked_at(monkeypatch, tmp_path, a_second, at_most_every_s=0.5) == [0, 0.5, 1.0, 1.12]


def test_a_slow_look_leaves_places_of_the_grid_out_and_none_is_made_up_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    assert looked_at(monkeypatch, tmp_path, a_second, takes_s=[0.6]) == [0, 0.75, 1.0, 1.12]


def test_nothing_is_looked_at_while_another_campaign_has_its_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    async def plan(looks: Looks) -> None:
        await asyncio.sleep(0.3)
        looks.paused = True
        await asyncio.sleep(0.5)
        looks.paused = False
        await asyncio.sleep(0.3)

    assert looked_at(monkeypatch, tmp_path, plan) == [0, 0.25, 1.0, 1.1]


async def test_nothing_is_sampled_when_the_profile_says_so(tmp_path: Path):
    assert await start_sampler(settings(interval_s=0.0), [], tmp_path / "log") is None
    assert not (tmp_path / "log").exists()


async def test_what_is_absent_is_told_once_and_the_rest_is_sampled(tmp_path: Path):
    sampler = await start_sampler(settings(gpu="amdgpu"), [endpoint("http://127.0.0.1:1")], tmp_path / "log")
    assert sampler is not None
    sampler.begin(0, now_ns())
    await until(lambda: bool(sampler.describe().notes))
    told = await sampler.stop()
    if "amdgpu" in [source["source"] for source in told.sources]:
        pytest.skip("this machine has an AMD GPU")
    assert [one["source"] for one in told.absent] == ["amdgpu"]
    assert len(told.notes) == 1  # however often it was asked
    assert told.notes[0].startswith("a: ")
    assert told.notes[0].endswith("looks without an answer (connection refused)")


async def test_stopping_leaves_no_thread_and_an_unused_sampler_can_be_stopped(tmp_path: Path):
    before = set(threading.enumerate())
    sampler = await start_sampler(settings(), [], tmp_path / "log")
    assert sampler is not None
    await sampler.stop()
    assert not sampler.thread.is_alive()
    # The loop's executor keeps those in which it was waited for.
    assert {thread.name.partition("_")[0] for thread in set(threading.enumerate()) - before} <= {"asyncio"}
    assert close_log(tmp_path / "log", tmp_path / "telemetry.parquet") == 0  # no run, so no time to write down


async def test_disk_that_takes_no_more_is_a_note_and_no_failure(tmp_path: Path):
    sampler = await start_sampler(settings(), [], tmp_path / "log")
    assert sampler is not None
    sampler.begin(0, now_ns() + NS_PER_S)
    (tmp_path / "log").rmdir()
    told = await sampler.stop()
    assert told.notes == ("samples are missing: No such file or directory",)


def run(directory: Path, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadgen", "run", "--emulator", "--rate", "20", "--duration", "1"]
    command += ["--output-tokens", "4", "--seed", "1", "--no-progress", "--out", str(directory), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)


def test_gpu_is_sampled_beside_a_run_and_joined_in_its_report(fake_nvml: Callable[..., dict[str, str]], tmp_path: Path):
    done = run(tmp_path / "run", fake_nvml(), "--objective", "error_rate=0.5")
    text = " ".join(done.stdout.split())
    assert "GPU 0: 75% busy; 12.0 of 16.0 GiB; 200 W; SM clock 1980 MHz" in text
    assert "held down by sw_power_cap (100% of the time), hw_thermal_slowdown (100% of the time)" in text
    assert "no J per output token: a window of 1 s: energy needs 10 s or more" in text
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["energy"]["method"] == "energy counter"
    assert summary["telemetry"]["sources"]["nvml"]["sampling_gap_s"]["p50"] < 0.5  # a GPU's own rate, not one a second
    assert summary["telemetry"]["servers"]
    verified = subprocess.run(
        [sys.executable, "-m", "loadgen", "verify", str(tmp_path / "run")], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")


def test_exporter_that_shows_a_page_for_people_is_one_line_and_the_run_goes_on(tmp_path: Path):
    with http_page(b"<html>hello</html>", "text/html") as url:
        done = run(tmp_path / "run", dict(os.environ), "--telemetry-url", url)
    assert done.returncode in (0, 4)  # 4: this machine was too busy to keep to the schedule
    said = [line for line in done.stderr.splitlines() if "metrics" in line]
    assert said == [f"not sampled: {url}/metrics: a web page, not metrics"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["requests"]["completed"] > 0


@contextlib.contextmanager
def http_page(body: bytes, content_type: str) -> Iterator[str]:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_samples_of_runs_that_are_made_again_are_dropped_when_a_log_is_reopened(tmp_path: Path):
    log = Log(tmp_path / "log")
    for number in (0, 1):
        log.begin(number, 0)
        log.append("host", look(5, number))
        log.flush()
    close_log(tmp_path / "log", tmp_path / "telemetry.parquet")
    reopen_log(tmp_path / "log", tmp_path / "telemetry.parquet", {0})
    again = Log(tmp_path / "log")
    again.begin(1, 0)
    again.append("host", look(7, 10))
    again.flush()
    assert close_log(tmp_path / "log", tmp_path / "telemetry.parquet") == 4
    rows = pq.read_table(tmp_path / "telemetry.parquet").to_pylist()
    assert [(row["run"], row["time"], row["value"]) for row in rows if row["kind"] == "gauge"] == [
        (0, 5, 0.0),
        (1, 7, 10.0),
    ]


class Killed(BaseException):
    """What nothing on the way catches."""


@pytest.mark.parametrize("closed", [False, True])
def test_being_killed_at_any_step_of_reopening_a_log_loses_no_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: bool
):
    def steps_until(last: int, work: Callable[[], object]) -> bool:
        """Do `work` until the step number `last` that names or removes a file; return whether it came so far."""
        taken = 0

        def counted(step: Callable[..., object]) -> Callable[..., object]:
            def taking(*arguments: object, **others: object) -> object:
                nonlocal taken
                if taken == last:
                    raise Killed
                taken += 1
                return step(*arguments, **others)

            return taking

        with monkeypatch.context() as patch:
            for name in ("replace", "unlink", "rmdir"):
                patch.setattr(os, name, counted(getattr(os, name)))
            try:
                work()
            except Killed:
                return True
        return False

    for last in itertools.count():
        folder, file = tmp_path / f"{last}" / "log", tmp_path / f"{last}" / "telemetry.parquet"
        log = Log(folder)
        for number in (0, 1, 2):
            log.begin(number, 0)
            log.append("host", look(5, number))
            log.flush()
        if closed:
            close_log(folder, file)
        killed = steps_until(last, functools.partial(reopen_log, folder, file, {0, 2}))
        reopen_log(folder, file, {0, 2})
        assert close_log(folder, file) == 4
        assert set(pq.read_table(file)["run"].to_pylist()) == {0, 2}
        if not killed:
            break
    assert last >= (2 if closed else 5)  # or nothing was cut short


def test_segments_left_beside_a_closed_log_count_no_more(tmp_path: Path):
    """Closing was killed while it removed them: those that are left are not all."""
    log = Log(tmp_path / "log")
    log.begin(0, 0)
    for value in (1.0, 2.0):
        log.append("host", look(5, value))
        log.flush()
    segment = (tmp_path / "log" / "000001.parquet").read_bytes()
    close_log(tmp_path / "log", tmp_path / "telemetry.parquet")
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "000001.parquet").write_bytes(segment)
    reopen_log(tmp_path / "log", tmp_path / "telemetry.parquet", {0})
    assert close_log(tmp_path / "log", tmp_path / "telemetry.parquet") == 4


async def test_a_fault_of_ours_in_the_sampler_is_raised_once_the_records_are_safe(tmp_path: Path):
    def broken(source: str, seen: Look) -> None:
        raise RuntimeError("a bug of ours")

    with spawn() as emulator:
        overrides = {"target": {"url": emulator.url}, "load": {"concurrency": 1, "requests": 3}}
        campaign = await prepare(load(None, {**overrides, "work": {"output_tokens": 2}}), tmp_path / "run")
        campaign.on_look = broken
        with pytest.raises(ExceptionGroup, match="unhandled errors") as raised:
            await measure(campaign, lambda tally: None, asyncio.Event())
    assert raised.group_contains(RuntimeError, match="a bug of ours")
    assert pq.read_table(tmp_path / "run" / "records.parquet").num_rows == 3
    assert (tmp_path / "run" / "summary.json").exists()

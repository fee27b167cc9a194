"""The sampler beside an emulator: what reaches the disk, on which clock, and what stops it."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from loadgen.clock import NS_PER_S, now_ns
from loadgen.emulator import spawn
from loadgen.fleet import Endpoint
from loadgen.profile import Telemetry
from loadgen.telemetry import Look, Value
from loadgen.telemetry.log import SCHEMA, Log, close_log
from loadgen.telemetry.sampler import start_sampler
from loadgen.wire import Target


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


async def test_samples_lie_on_the_clock_of_the_run_at_the_rate_asked_for(tmp_path: Path):
    with spawn() as emulator:
        sampler = await start_sampler(settings(), [endpoint(emulator.url)], tmp_path / "log")
        assert sampler is not None
        zero_ns = now_ns()
        sampler.begin(3, zero_ns)
        await asyncio.sleep(1.0)
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
    assert times[0] < 0  # looked at before the run began
    assert times[-1] <= lasted_ns
    assert 4 <= sum(time >= 0 for time in times) <= 22
    assert [source["source"] for source in told["sources"]] == ["host", "process", "server"]
    assert told["interval_s"] == 0.05
    assert told["absent"] == told["notes"] == []


async def test_nothing_is_sampled_when_the_profile_says_so(tmp_path: Path):
    assert await start_sampler(settings(interval_s=0.0), [], tmp_path / "log") is None
    assert not (tmp_path / "log").exists()


async def test_what_is_absent_is_told_once_and_the_rest_is_sampled(tmp_path: Path):
    sampler = await start_sampler(settings(gpu="amdgpu"), [endpoint("http://127.0.0.1:1")], tmp_path / "log")
    assert sampler is not None
    sampler.begin(0, now_ns())
    await asyncio.sleep(0.3)
    told = await sampler.stop()
    if "amdgpu" in [source["source"] for source in told["sources"]]:
        pytest.skip("this machine has an AMD GPU")
    assert [one["source"] for one in told["absent"]] == ["amdgpu"]
    assert len(told["notes"]) == 1  # however often it was asked
    assert told["notes"][0].startswith("a: ")
    assert told["notes"][0].endswith("looks without an answer (connection refused)")


async def test_stopping_leaves_no_thread_and_an_unused_sampler_can_be_stopped(tmp_path: Path):
    before = threading.active_count()
    sampler = await start_sampler(settings(), [], tmp_path / "log")
    assert sampler is not None
    await sampler.stop()
    assert not sampler.thread.is_alive()
    assert threading.active_count() <= before + 1  # the executor's, in which it was waited for
    assert close_log(tmp_path / "log", tmp_path / "telemetry.parquet") == 0  # no run, so no time to write down


async def test_disk_that_takes_no_more_is_a_note_and_no_failure(tmp_path: Path):
    sampler = await start_sampler(settings(), [], tmp_path / "log")
    assert sampler is not None
    sampler.begin(0, now_ns() + NS_PER_S)
    (tmp_path / "log").rmdir()
    told = await sampler.stop()
    assert told["notes"] == ["samples are missing: No such file or directory"]

"""The host and our own process, on the machine the tests run on; cpufreq and TCP from files made here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from loadgen.telemetry import Look
from loadgen.telemetry.host import open_host, open_process


def by_name(look: Look) -> dict[str, dict[str, float]]:
    """Return {name: {labels: value}}."""
    found: dict[str, dict[str, float]] = {}
    for value in look.values:
        found.setdefault(value.name, {})[value.labels] = value.value
    return found


async def burn(seconds_of_cpu: float) -> None:
    spent = psutil.Process().cpu_times()
    while sum(psutil.Process().cpu_times()[:2]) - sum(spent[:2]) < seconds_of_cpu:
        sum(range(10_000))


async def test_busy_shares_are_told_a_core_and_over_all():
    source = open_host()
    await burn(0.3)
    told = by_name(await source.read())
    shares = told["cpu_busy_ratio"]
    overall = shares.pop('{"core": "all"}')
    assert {json.loads(labels)["core"] for labels in shares} <= {str(core) for core in range(psutil.cpu_count() or 1)}
    assert all(0 <= share <= 1 for share in (*shares.values(), overall))
    assert min(shares.values()) - 0.01 <= overall <= max(shares.values()) + 0.01
    assert overall > 0
    assert 0 <= told["cpu_steal_ratio"]['{"core": "all"}'] <= 1
    assert 0 < told["memory_available_bytes"]["{}"] < psutil.virtual_memory().total


async def test_frequency_and_governor_are_those_of_cpufreq(tmp_path: Path):
    for core, khz, governor in ((0, 3_400_000, "performance"), (1, 800_000, "powersave"), (10, 3_400_000, "powersave")):
        (tmp_path / f"policy{core}").mkdir()
        (tmp_path / f"policy{core}" / "scaling_cur_freq").write_text(f"{khz}\n")
        (tmp_path / f"policy{core}" / "scaling_governor").write_text(f"{governor}\n")
    told = by_name(await open_host(cpufreq=tmp_path).read())
    assert told["cpu_frequency_hertz"] == {'{"core": "0"}': 3.4e9, '{"core": "1"}': 8e8, '{"core": "10"}': 3.4e9}
    assert told["cpu_governor"] == {'{"governor": "performance"}': 1, '{"governor": "powersave"}': 2}


async def test_machine_without_cpufreq_tells_no_frequency(tmp_path: Path):
    source = open_host(cpufreq=tmp_path)
    assert not {"cpu_frequency_hertz", "cpu_governor"} & by_name(await source.read()).keys()
    assert source.facts["frequency"] is False


async def test_segments_sent_again_are_counted(tmp_path: Path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "snmp").write_text(
        "Ip: Forwarding DefaultTTL\nIp: 1 64\n"
        "Tcp: RtoAlgorithm InSegs OutSegs RetransSegs InErrs OutRsts\nTcp: 1 1000 2000 17 3 4\nUdp: InDatagrams\nUdp: 5"
    )
    look = await open_host(proc=tmp_path).read()
    told = by_name(look)
    assert told["tcp_retransmitted_segments_total"] == {"{}": 17}
    assert told["tcp_sent_segments_total"] == {"{}": 2000}
    assert all(value.counter for value in look.values if value.name.startswith("tcp_"))


async def test_own_process_tells_its_cpu_time_and_memory():
    source = open_process()
    before = by_name(await source.read())
    await burn(0.2)
    after = by_name(await source.read())
    mine = json.dumps({"pid": str(os.getpid()), "role": "main"})
    spent = after["process_cpu_seconds_total"][mine] - before["process_cpu_seconds_total"][mine]
    assert spent == pytest.approx(0.2, abs=0.15)
    assert after["process_resident_bytes"][mine] > 10e6
    assert after["process_voluntary_switches_total"][mine] > 0


WORKERS = """
import asyncio, json, multiprocessing, subprocess, sys, time
import loadgen.telemetry.host as host

def main():
    host.LOOK_FOR_WORKERS_NS = 0
    worker = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(30,), daemon=True)
    worker.start()
    stranger = subprocess.Popen(["sleep", "30"])
    source = host.open_process()
    look = asyncio.run(source.read())
    told = {v.labels for v in look.values if v.name == "process_resident_bytes"}
    worker.kill(), worker.join(), stranger.kill(), stranger.wait()
    ended = {v.labels for v in asyncio.run(source.read()).values if v.name == "process_resident_bytes"}
    print(json.dumps([worker.pid, sorted(told), sorted(ended)]))

if __name__ == "__main__":
    main()
"""


def test_workers_are_followed_and_other_children_are_not(tmp_path: Path):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60)
    worker, told, ended = json.loads(done.stdout)
    roles = {one["role"]: one["pid"] for one in map(json.loads, told)}
    assert len(told) == 2
    assert roles["worker"] == str(worker)
    assert [json.loads(one)["role"] for one in ended] == ["main"]

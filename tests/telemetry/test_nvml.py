"""The real pynvml against a small libnvidia-ml.so.1 of known values, each time in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Environment = Callable[..., dict[str, str]]

READ = """
import asyncio, json, sys
from loadgen.telemetry import Absent, Lost
from loadgen.telemetry.nvml import open_nvml

async def main(looks, apart_s):
    try:
        source = open_nvml()
    except Absent as absent:
        print(json.dumps({"absent": str(absent)}))
        return
    told = {"facts": source.facts, "looks": []}
    for _ in range(looks):
        try:
            look = await source.read()
        except Lost as lost:
            told["lost"] = str(lost)
            break
        told["looks"].append([look.time_ns, [[v.name, json.loads(v.labels), v.value, v.counter] for v in look.values]])
        await asyncio.sleep(apart_s)
    await source.close()
    print(json.dumps(told))

asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
"""


def read(environment: dict[str, str], looks: int = 1, apart_s: float = 0.0) -> dict[str, Any]:
    command = [sys.executable, "-c", READ, str(looks), str(apart_s)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def values(look: list[Any], gpu: str = "0") -> dict[str, float]:
    """Return the values of one board that have no further label."""
    return {name: value for name, labels, value, _ in look[1] if labels == {"gpu": gpu}}


def test_everything_a_board_tells_is_read_in_base_units(fake_nvml: Environment):
    told = read(fake_nvml())
    look = told["looks"][0]
    joules = values(look).pop("gpu_energy_joules_total")
    assert {**values(look), "gpu_energy_joules_total": 0} == {
        "gpu_utilization_ratio": 0.75,
        "gpu_memory_utilization_ratio": 0.4,
        "gpu_memory_used_bytes": 12 * 2**30,
        "gpu_memory_total_bytes": 16 * 2**30,
        "gpu_power_watts": 200.0,
        "gpu_energy_joules_total": 0,
        "gpu_sm_clock_hertz": 1.98e9,
        "gpu_memory_clock_hertz": 9.501e9,
        "gpu_temperature_celsius": 62.0,
    }
    assert joules % 20 == 0  # 200 W in steps of 100 ms
    assert [name for name, *_, counter in look[1] if counter] == ["gpu_energy_joules_total"]
    assert told["facts"] == {
        "driver": "580.00",
        "gpus": [
            {
                **{"gpu": 0, "name": "Fake 1", "power": "instant", "energy_counter": True, "unsupported": []},
                "processes": told["facts"]["gpus"][0]["processes"],
            }
        ],
    }


def test_reasons_for_lower_clocks_are_names(fake_nvml: Environment):
    look = read(fake_nvml())["looks"][0]
    reasons = {labels["reason"]: value for name, labels, value, _ in look[1] if name == "gpu_throttle"}
    assert {name for name, value in reasons.items() if value} == {"sw_power_cap", "hw_thermal_slowdown"}
    assert reasons["gpu_idle"] == 0
    assert len(reasons) == 9


def test_memory_is_told_by_process(fake_nvml: Environment):
    look = read(fake_nvml())["looks"][0]
    assert [v for v in look[1] if v[0] == "gpu_process_memory_bytes"] == [
        ["gpu_process_memory_bytes", {"gpu": "0", "pid": "1"}, 3.0 * 2**30, False]
    ]


def test_energy_is_counted_while_time_passes(fake_nvml: Environment):
    first, *_, last = read(fake_nvml(), looks=4, apart_s=0.15)["looks"]
    spent = values(last)["gpu_energy_joules_total"] - values(first)["gpu_energy_joules_total"]
    elapsed_s = (last[0] - first[0]) / 1e9
    assert spent == pytest.approx(200 * elapsed_s, abs=20)  # a step of 100 ms at either edge


def test_each_board_has_its_own_series(fake_nvml: Environment):
    look = read(fake_nvml(gpus=3))["looks"][0]
    assert [values(look, str(gpu))["gpu_power_watts"] for gpu in range(3)] == [200.0, 300.0, 400.0]


def test_older_board_is_read_by_what_it_has_and_the_facts_say_so(fake_nvml: Environment):
    told = read(fake_nvml(old=True))
    seen = values(told["looks"][0])
    assert seen["gpu_power_watts"] == 201.0
    assert seen["gpu_temperature_celsius"] == 61.0
    assert "gpu_energy_joules_total" not in seen
    reasons = [v[1]["reason"] for v in told["looks"][0][1] if v[0] == "gpu_throttle" and v[2]]
    assert reasons == ["sw_power_cap", "hw_thermal_slowdown"]
    board = told["facts"]["gpus"][0]
    assert board["power"] == "as the driver averages it"
    assert not board["energy_counter"]
    assert board["unsupported"] == ["energy counter"]


def test_board_that_falls_off_the_bus_ends_the_source_with_a_reason(fake_nvml: Environment):
    told = read(fake_nvml(lost_after=3), looks=5)
    assert len(told["looks"]) == 2  # the first of the three reads was the trial at opening
    assert told["lost"] == "the NVIDIA driver stopped answering (GPU is lost)"


def test_no_driver_is_told_in_words():
    import ctypes

    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        pass
    else:
        pytest.skip("this machine has the driver")
    import os

    told = read(dict(os.environ))
    assert told == {"absent": "no NVIDIA driver on this machine (libnvidia-ml.so.1 is not there)"}


def test_driver_without_a_board_is_told_in_words(fake_nvml: Environment):
    assert read(fake_nvml(gpus=0)) == {"absent": "the NVIDIA driver lists no GPU"}

"""amdgpu against the files of an RX 6800."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadgen.telemetry import Absent, Lost, Source
from loadgen.telemetry.amdgpu import open_amdgpu


async def values(source: Source) -> dict[str, float]:
    look = await source.read()
    assert all(json.loads(value.labels) == {"gpu": "0"} for value in look.values)
    return {value.name: value.value for value in look.values}


async def test_everything_the_board_tells_is_read_in_base_units(rx_6800: Path):
    source = open_amdgpu(rx_6800)
    assert await values(source) == pytest.approx(
        {
            "gpu_utilization_ratio": 0.97,
            "gpu_memory_utilization_ratio": 0.38,
            "gpu_memory_used_bytes": 9283575808,
            "gpu_memory_total_bytes": 17163091968,
            "gpu_power_watts": 186.0,
            "gpu_temperature_celsius": 64.0,
            "gpu_sm_clock_hertz": 2.098e9,
            "gpu_memory_clock_hertz": 1e9,
        }
    )
    assert source.facts == {
        "gpus": [
            {
                **{"gpu": 0, "name": "device 0x73bf", "power": "as the driver averages it", "energy_counter": False},
                "unsupported": ["gpu_energy_joules_total"],
            }
        ]
    }


async def test_values_are_read_anew_at_each_look(rx_6800: Path):
    source = open_amdgpu(rx_6800)
    await source.read()
    (rx_6800 / "card0/device/gpu_busy_percent").write_text("3\n")
    assert (await values(source))["gpu_utilization_ratio"] == pytest.approx(0.03)


async def test_board_without_a_frequency_sensor_tells_its_clock_by_the_level_in_use(rx_6800: Path):
    (rx_6800 / "card0/device/hwmon/hwmon3/freq1_input").unlink()
    assert (await values(open_amdgpu(rx_6800)))["gpu_sm_clock_hertz"] == 2.105e9


async def test_instant_power_and_an_energy_counter_are_taken_where_they_exist(rx_6800: Path):
    (rx_6800 / "card0/device/hwmon/hwmon3/power1_input").write_text("190500000\n")
    (rx_6800 / "card0/device/hwmon/hwmon3/energy1_input").write_text("1234500000\n")
    source = open_amdgpu(rx_6800)
    told = await values(source)
    assert told["gpu_power_watts"] == pytest.approx(190.5)
    assert told["gpu_energy_joules_total"] == pytest.approx(1234.5)
    assert source.facts["gpus"][0]["power"] == "instant"
    assert [v.name for v in (await source.read()).values if v.counter] == ["gpu_energy_joules_total"]


async def test_board_that_goes_away_ends_the_source(rx_6800: Path):
    source = open_amdgpu(rx_6800)
    (rx_6800 / "card0/device/gpu_busy_percent").unlink()
    with pytest.raises(Lost, match="amdgpu"):
        await source.read()


def test_machine_without_such_a_board_is_told_in_words(rx_6800: Path, tmp_path: Path):
    (rx_6800 / "card0/device/vendor").write_text("0x10de\n")
    for root in (rx_6800, tmp_path / "nothing"):
        with pytest.raises(Absent, match="no AMD GPU on this machine"):
            open_amdgpu(root)

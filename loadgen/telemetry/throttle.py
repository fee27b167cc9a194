"""The reasons why a GPU lowers its clocks: names and bits of NVIDIA's library, which exporters report too. Pure."""

from __future__ import annotations

from loadgen.telemetry import Value, labelled

__all__ = ["THROTTLE_REASONS", "throttle_values"]

# nvml.h, nvmlClocksEventReasons. `gpu_idle` is reported too: it lowers the clocks like any other, but is no throttling.
THROTTLE_REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}


def throttle_values(mask: int, **labels: object) -> list[Value]:
    """One value per reason to lower the clocks: 1 if its bit is set in `mask`, else 0."""
    return [
        Value("gpu_throttle", labelled(**labels, reason=name), float(bool(mask & bit)))
        for bit, name in THROTTLE_REASONS.items()
    ]

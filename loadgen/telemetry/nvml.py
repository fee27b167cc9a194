"""NVIDIA GPUs, by the driver's own library through `pynvml`.

What a board does not support is found out once, when the source is opened, and left out after that. Power is the
instantaneous field where there is one, since the older query is an average over a second on most boards; the manifest
says which it was. The names of the reasons for lower clocks are those of the library's header.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from loadgen.telemetry import Absent, Lost, Missed, Source, Value, blocking, labelled

__all__ = ["THROTTLE_REASONS", "open_nvml", "throttle_values"]

MEGA = 1_000_000
# nvml.h, nvmlClocksEventReasons. `gpu_idle` is told too: it lowers the clocks like any other, but is no throttling.
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

Reader = Callable[[], list[Value]]


def throttle_values(mask: int, **labels: object) -> list[Value]:
    """Return 1 or 0 for each reason the driver may have to lower the clocks."""
    return [
        Value("gpu_throttle", labelled(**labels, reason=name), float(bool(mask & bit)))
        for bit, name in THROTTLE_REASONS.items()
    ]


def open_nvml() -> Source:
    """Return all boards as one source. Raises Absent where there is no driver or no board."""
    import pynvml  # some thousand definitions, needed only here

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        raise Absent("no NVIDIA driver on this machine (libnvidia-ml.so.1 is not there)") from None
    except pynvml.NVMLError as error:
        raise Absent(f"the NVIDIA driver does not answer ({error})") from None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise Absent(f"the NVIDIA driver lists no GPU ({error})") from None
    if not handles:
        raise Absent("the NVIDIA driver lists no GPU")
    readers: list[Reader] = []
    boards = []
    for index, handle in enumerate(handles):
        supported, told = _readers(handle, index)
        readers += supported
        boards.append(told)

    gone = {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }

    def read() -> Sequence[Value]:
        try:
            return [value for reader in readers for value in reader()]
        except pynvml.NVMLError as error:
            if error.value in gone:
                raise Lost(f"the NVIDIA driver stopped answering ({error})") from None
            raise Missed(f"the NVIDIA driver: {error}") from None

    async def close() -> None:
        pynvml.nvmlShutdown()

    facts = {"driver": _text(pynvml.nvmlSystemGetDriverVersion()), "gpus": boards}
    return Source("nvml", blocking(read), facts, close)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _readers(handle: Any, index: int) -> tuple[list[Reader], dict[str, Any]]:
    """Return what can be read of one board, and what it is."""
    import pynvml

    here = labelled(gpu=index)
    facts: dict[str, Any] = {
        "gpu": index,
        "name": _text(pynvml.nvmlDeviceGetName(handle)),
        "power": None,
        "energy_counter": False,
        "unsupported": [],
    }

    def utilisation() -> list[Value]:
        rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
        return [
            Value("gpu_utilization_ratio", here, rates.gpu / 100),
            Value("gpu_memory_utilization_ratio", here, rates.memory / 100),
        ]

    def memory() -> list[Value]:
        told = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return [
            Value("gpu_memory_used_bytes", here, float(told.used)),
            Value("gpu_memory_total_bytes", here, float(told.total)),
        ]

    def power_instant() -> list[Value]:
        field = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_POWER_INSTANT])[0]
        if field.nvmlReturn != pynvml.NVML_SUCCESS:
            raise pynvml.NVMLError(field.nvmlReturn)
        return [Value("gpu_power_watts", here, field.value.uiVal / 1e3)]

    def power_average() -> list[Value]:
        return [Value("gpu_power_watts", here, pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3)]

    def energy() -> list[Value]:
        joules = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        return [Value("gpu_energy_joules_total", here, joules, counter=True)]

    def sm_clock() -> list[Value]:
        mhz = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
        return [Value("gpu_sm_clock_hertz", here, float(mhz * MEGA))]

    def memory_clock() -> list[Value]:
        mhz = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)
        return [Value("gpu_memory_clock_hertz", here, float(mhz * MEGA))]

    def throttle() -> list[Value]:
        return throttle_values(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle), gpu=index)

    def throttle_by_the_older_name() -> list[Value]:
        return throttle_values(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle), gpu=index)

    def temperature() -> list[Value]:
        celsius = pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU)
        return [Value("gpu_temperature_celsius", here, float(celsius))]

    def temperature_by_the_older_name() -> list[Value]:
        celsius = pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
        return [Value("gpu_temperature_celsius", here, float(celsius))]

    def processes() -> list[Value]:
        return [
            Value("gpu_process_memory_bytes", labelled(gpu=index, pid=one.pid), float(one.usedGpuMemory))
            for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            if one.usedGpuMemory is not None
        ]

    # The first of each that works is read; the others are what older drivers have instead.
    wanted: dict[str, tuple[Reader, ...]] = {
        "utilisation": (utilisation,),
        "memory": (memory,),
        "power": (power_instant, power_average),
        "energy counter": (energy,),
        "SM clock": (sm_clock,),
        "memory clock": (memory_clock,),
        "throttle reasons": (throttle, throttle_by_the_older_name),
        "temperature": (temperature, temperature_by_the_older_name),
        "processes": (processes,),
    }
    readers = []
    for what, alternatives in wanted.items():
        reader = next((one for one in alternatives if _works(one)), None)
        if reader is None:
            facts["unsupported"].append(what)
            continue
        readers.append(reader)
        if what == "power":
            facts["power"] = "instant" if reader is power_instant else "as the driver averages it"
        elif what == "energy counter":
            facts["energy_counter"] = True
        elif what == "processes":
            facts["processes"] = _names(handle)
    return readers, facts


def _works(reader: Reader) -> bool:
    import pynvml

    try:
        reader()
    except pynvml.NVMLError:
        return False
    return True


def _names(handle: Any) -> dict[str, str]:
    """Return the names of the processes that held memory of the board at the start, by pid."""
    import pynvml

    names = {}
    for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
        try:
            names[str(one.pid)] = "loadgen" if one.pid == os.getpid() else psutil.Process(one.pid).name()
        except psutil.Error:
            names[str(one.pid)] = "another user's, or one outside this container"
    return names

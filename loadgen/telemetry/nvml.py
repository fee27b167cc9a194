"""NVIDIA GPUs, by the driver's own library through `pynvml`.

Figures that a board does not support are found once, when the source is opened, and left out after that. Power is the
instantaneous field where there is one, since the older query is an average over a second on most boards; the manifest
says which it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import psutil

from loadgen.manifest import BoardFact
from loadgen.telemetry import Absent, Lost, Missed, Source, Value, blocking, labelled
from loadgen.telemetry.throttle import throttle_values

__all__ = ["open_nvml"]

MEGA = 1_000_000

Reader = Callable[[], list[Value]]
BoardReader = Callable[[Any, int], list[Value]]  # of a board's handle and index


def open_nvml() -> Source:
    """The source of all NVIDIA boards. Raises Absent where there is no driver or no board."""
    import pynvml  # some thousand definitions, needed here alone

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
        supported, facts = _readers(handle, index)
        readers += supported
        boards.append(facts)

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

    driver = _text(pynvml.nvmlSystemGetDriverVersion())
    return Source("nvml", blocking(read), {"driver": driver, "gpus": boards}, close)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _readers(handle: Any, index: int) -> tuple[list[Reader], dict[str, BoardFact]]:
    """The functions that read one board, and the facts that do not change."""
    import pynvml

    unsupported: list[str] = []
    facts: dict[str, BoardFact] = {
        "gpu": index,
        "name": _text(pynvml.nvmlDeviceGetName(handle)),
        "power": None,
        "energy_counter": False,
        "unsupported": unsupported,
    }
    readers: list[Reader] = []
    for what, alternatives in WANTED.items():
        reads = next((reader for reader in alternatives if _works(reader, handle, index)), None)
        if reads is None:
            unsupported.append(what)
            continue
        readers.append(partial(reads, handle, index))
        if what == "power":
            facts["power"] = "instant" if reads is _power_instant else "as the driver averages it"
        elif what == "energy counter":
            facts["energy_counter"] = True
        elif what == "processes":
            facts["processes"] = _names(handle)
    return readers, facts


def _works(reads: BoardReader, handle: Any, index: int) -> bool:
    import pynvml

    try:
        reads(handle, index)
    except pynvml.NVMLError:
        return False
    return True


def _names(handle: Any) -> dict[str, str]:
    """The names of the processes that held memory of the board at the start, by pid."""
    import pynvml

    names = {}
    for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
        try:
            names[str(process.pid)] = "loadgen" if process.pid == os.getpid() else psutil.Process(process.pid).name()
        except psutil.Error:
            names[str(process.pid)] = "another user's, or one outside this container"
    return names


def _utilisation(handle: Any, index: int) -> list[Value]:
    import pynvml

    rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
    return [
        Value("gpu_utilization_ratio", labelled(gpu=index), rates.gpu / 100),
        Value("gpu_memory_utilization_ratio", labelled(gpu=index), rates.memory / 100),
    ]


def _memory(handle: Any, index: int) -> list[Value]:
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return [
        Value("gpu_memory_used_bytes", labelled(gpu=index), float(memory.used)),
        Value("gpu_memory_total_bytes", labelled(gpu=index), float(memory.total)),
    ]


def _power_instant(handle: Any, index: int) -> list[Value]:
    import pynvml

    field = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_POWER_INSTANT])[0]
    if field.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(field.nvmlReturn)
    return [Value("gpu_power_watts", labelled(gpu=index), field.value.uiVal / 1e3)]


def _power_average(handle: Any, index: int) -> list[Value]:
    import pynvml

    return [Value("gpu_power_watts", labelled(gpu=index), pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3)]


def _energy(handle: Any, index: int) -> list[Value]:
    import pynvml

    joules = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
    return [Value("gpu_energy_joules_total", labelled(gpu=index), joules, counter=True)]


def _sm_clock(handle: Any, index: int) -> list[Value]:
    import pynvml

    mhz = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
    return [Value("gpu_sm_clock_hertz", labelled(gpu=index), float(mhz * MEGA))]


def _memory_clock(handle: Any, index: int) -> list[Value]:
    import pynvml

    mhz = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)
    return [Value("gpu_memory_clock_hertz", labelled(gpu=index), float(mhz * MEGA))]


def _throttle(handle: Any, index: int) -> list[Value]:
    import pynvml

    return throttle_values(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle), gpu=index)


def _throttle_by_the_older_name(handle: Any, index: int) -> list[Value]:
    import pynvml

    return throttle_values(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle), gpu=index)


def _temperature(handle: Any, index: int) -> list[Value]:
    import pynvml

    celsius = pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU)
    return [Value("gpu_temperature_celsius", labelled(gpu=index), float(celsius))]


def _temperature_by_the_older_name(handle: Any, index: int) -> list[Value]:
    import pynvml

    celsius = pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
    return [Value("gpu_temperature_celsius", labelled(gpu=index), float(celsius))]


def _processes(handle: Any, index: int) -> list[Value]:
    import pynvml

    return [
        Value("gpu_process_memory_bytes", labelled(gpu=index, pid=process.pid), float(process.usedGpuMemory))
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        if process.usedGpuMemory is not None
    ]


# The first of each that works is read; the others are what older drivers have instead.
WANTED: Mapping[str, tuple[BoardReader, ...]] = {
    "utilisation": (_utilisation,),
    "memory": (_memory,),
    "power": (_power_instant, _power_average),
    "energy counter": (_energy,),
    "SM clock": (_sm_clock,),
    "memory clock": (_memory_clock,),
    "throttle reasons": (_throttle, _throttle_by_the_older_name),
    "temperature": (_temperature, _temperature_by_the_older_name),
    "processes": (_processes,),
}

"""AMD GPUs, from the files that the amdgpu driver keeps in sysfs; no library, no rights needed.

Units of the kernel's hwmon interface: power in µW, temperature in m°C, frequency in Hz, energy in µJ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from loadgen.manifest import BoardFact
from loadgen.telemetry import Absent, Lost, Source, Value, blocking, labelled

__all__ = ["open_amdgpu"]

SYSFS = Path("/sys/class/drm")
VENDOR = "0x1002"

Reader = Callable[[], list[Value]]


def open_amdgpu(root: Path = SYSFS) -> Source:
    """The source of all AMD boards. Raises Absent where there is none."""
    devices = [card / "device" for card in _cards(root) if _content(card / "device" / "vendor") == VENDOR]
    readers: list[Reader] = []
    boards = []
    for index, device in enumerate(devices):
        supported, facts = _readers(device, index)
        readers += supported
        if supported:
            boards.append(facts)
    if not boards:
        raise Absent("no AMD GPU on this machine (no amdgpu device in sysfs)")

    def read() -> Sequence[Value]:
        try:
            return [value for reader in readers for value in reader()]
        except (OSError, ValueError) as error:
            raise Lost(f"the amdgpu driver's files cannot be read any more ({error})") from None

    return Source("amdgpu", blocking(read), {"gpus": boards})


def _cards(root: Path) -> list[Path]:
    """The cards, not the connectors beside them (card0-DP-1)."""
    cards = [path for path in root.glob("card*") if re.fullmatch(r"card\d+", path.name)]
    return sorted(cards, key=lambda path: int(path.name.removeprefix("card")))


def _content(path: Path) -> str | None:
    """The file's text; None where there is no file or the driver does not support it (EINVAL, EOPNOTSUPP)."""
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _readers(device: Path, index: int) -> tuple[list[Reader], dict[str, BoardFact]]:
    here = labelled(gpu=index)
    hwmon = next(iter(sorted((device / "hwmon").glob("hwmon*"))), device / "hwmon")
    # The first file of each line that the board has is read.
    wanted = {
        "gpu_utilization_ratio": ([device / "gpu_busy_percent"], 1e-2),
        "gpu_memory_utilization_ratio": ([device / "mem_busy_percent"], 1e-2),
        "gpu_memory_used_bytes": ([device / "mem_info_vram_used"], 1.0),
        "gpu_memory_total_bytes": ([device / "mem_info_vram_total"], 1.0),
        "gpu_power_watts": ([hwmon / "power1_input", hwmon / "power1_average"], 1e-6),
        "gpu_temperature_celsius": ([hwmon / "temp1_input"], 1e-3),
        "gpu_sm_clock_hertz": ([hwmon / "freq1_input"], 1.0),
        "gpu_memory_clock_hertz": ([hwmon / "freq2_input"], 1.0),
        "gpu_energy_joules_total": ([hwmon / "energy1_input"], 1e-6),
    }
    readers: list[Reader] = []
    files: dict[str, str] = {}
    for name, (paths, scale) in wanted.items():
        path = next((path for path in paths if (_content(path) or "").isdigit()), None)
        if path is not None:
            readers.append(_number(path, name, here, scale))
            files[name] = path.name
    dpm = device / "pp_dpm_sclk"
    if "gpu_sm_clock_hertz" not in files and _active_clock(_content(dpm) or "") is not None:
        readers.append(_clock(dpm, here))
        files["gpu_sm_clock_hertz"] = dpm.name
    facts: dict[str, BoardFact] = {
        "gpu": index,
        "name": _content(device / "product_name") or f"device {_content(device / 'device') or 'unknown'}",
        "power": {"power1_input": "instant", "power1_average": "as the driver averages it"}.get(
            files.get("gpu_power_watts", "")
        ),
        "energy_counter": "gpu_energy_joules_total" in files,
        "unsupported": [name for name in wanted if name not in files],
    }
    return readers, facts


def _number(path: Path, name: str, labels: str, scale: float) -> Reader:
    counter = name.endswith("_total")

    def read() -> list[Value]:
        return [Value(name, labels, int(path.read_text()) * scale, counter)]

    return read


def _clock(path: Path, labels: str) -> Reader:
    def read() -> list[Value]:
        hertz = _active_clock(path.read_text())
        return [] if hertz is None else [Value("gpu_sm_clock_hertz", labels, hertz)]

    return read


def _active_clock(table: str) -> float | None:
    """The clock of the level marked with an asterisk: lines such as `1: 2105Mhz *`."""
    active = re.search(r"^\d+:\s*(\d+)Mhz\s*\*", table, re.MULTILINE | re.IGNORECASE)
    return None if active is None else float(active[1]) * 1e6

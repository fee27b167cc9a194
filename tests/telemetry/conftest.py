"""A libnvidia-ml.so.1 made here, to be loaded by the real pynvml, and a sysfs tree as an RX 6800 shows it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# The files that amdgpu shows for an RX 6800 (Navi 21), as the kernel documents them, with the values of a busy board.
RX_6800 = {
    "card0/device/vendor": "0x1002",
    "card0/device/device": "0x73bf",
    "card0/device/gpu_busy_percent": "97",
    "card0/device/mem_busy_percent": "38",
    "card0/device/mem_info_vram_total": "17163091968",
    "card0/device/mem_info_vram_used": "9283575808",
    "card0/device/mem_info_gtt_total": "33605115904",
    "card0/device/pp_dpm_sclk": "0: 500Mhz \n1: 2105Mhz *\n2: 2475Mhz ",
    "card0/device/pp_dpm_mclk": "0: 96Mhz \n1: 456Mhz \n2: 673Mhz \n3: 1000Mhz *",
    "card0/device/hwmon/hwmon3/name": "amdgpu",
    "card0/device/hwmon/hwmon3/power1_average": "186000000",
    "card0/device/hwmon/hwmon3/power1_cap": "203000000",
    "card0/device/hwmon/hwmon3/temp1_input": "64000",
    "card0/device/hwmon/hwmon3/temp1_label": "edge",
    "card0/device/hwmon/hwmon3/temp2_input": "78000",
    "card0/device/hwmon/hwmon3/temp2_label": "junction",
    "card0/device/hwmon/hwmon3/freq1_input": "2098000000",
    "card0/device/hwmon/hwmon3/freq1_label": "sclk",
    "card0/device/hwmon/hwmon3/freq2_input": "1000000000",
    "card0/device/hwmon/hwmon3/freq2_label": "mclk",
    "card0-DP-1/status": "disconnected",
    "card1/device/vendor": "0x8086",
    "renderD128/device/vendor": "0x1002",
}


@pytest.fixture
def rx_6800(tmp_path: Path) -> Path:
    root = tmp_path / "drm"
    for name, content in RX_6800.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")
    return root


@pytest.fixture(scope="session")
def fake_nvml(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """Return a function (old=False, **NVML_FAKE_*) that returns the environment in which the library is found."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the fake libnvidia-ml.so.1 with")
    folders = {}
    for old in (False, True):
        folder = tmp_path_factory.mktemp("nvml")
        name = "libnvidia-ml.so.1"
        flags = ["-DOLD_NAMES"] if old else []
        command = [compiler, "-shared", "-fPIC", "-Wall", "-Werror", f"-Wl,-soname,{name}", *flags]
        subprocess.run([*command, "-o", str(folder / name), str(HERE / "nvml_fake.c")], check=True)
        folders[old] = str(folder)

    def environment(*, old: bool = False, **settings: object) -> dict[str, str]:
        given = {f"NVML_FAKE_{key.upper()}": str(value) for key, value in settings.items()}
        return {**os.environ, "LD_LIBRARY_PATH": folders[old], **({"NVML_FAKE_OLD": "1"} if old else {}), **given}

    return environment

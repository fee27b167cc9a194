"""The file of calibrations of this host: what was stored is found again, and what is of another kind is not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadgen.manifest import Calibration
from loadgen.probes import calibrate


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibrate, "clock_source", lambda: "tsc")
    return tmp_path


def test_a_stored_calibration_is_found_by_its_tier_and_others_stay() -> None:
    kernel, callback = Calibration(tier="kernel", ttft_bias_us=1.5), Calibration(tier="callback", events=3)
    calibrate.store([kernel])
    calibrate.store([callback])
    assert (calibrate.stored("kernel"), calibrate.stored("callback")) == (kernel, callback)
    assert calibrate.stored("aiohttp") is None


@pytest.mark.parametrize("content", ["", "[]", '{"host": 1}', "\xff"])
def test_a_file_of_another_kind_holds_no_calibration_and_is_written_anew(folder: Path, content: str) -> None:
    path = folder / "loadgen" / "calibration.json"
    path.parent.mkdir()
    path.write_text(content, encoding="latin-1")
    assert calibrate.stored("kernel") is None
    calibrate.store([Calibration(tier="kernel")])
    assert calibrate.stored("kernel") == Calibration(tier="kernel")


def test_a_calibration_of_another_version_is_not_used() -> None:
    path = calibrate.store([Calibration(tier="kernel", events=3)])
    path.write_text(path.read_text(encoding="utf-8").replace('"events": 3', '"events": "many"'), encoding="utf-8")
    assert calibrate.stored("kernel") is None

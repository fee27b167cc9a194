"""A directory made while a matrix was called a sweep: reported, verified, and not measured again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from loadgen.suite_manifest import MATRIX, SWEEP, MatrixManifest, matrix_path
from tests.fakes.command import run_here

MADE = Path(__file__).resolve().parents[1] / "fixtures" / "b318a7d"


def test_the_manifest_of_a_sweep_is_read_as_one_of_a_matrix(tmp_path: Path) -> None:
    assert matrix_path(MADE / "sweep").name == SWEEP
    assert matrix_path(tmp_path).name == MATRIX
    plain = json.loads((MADE / "sweep" / SWEEP).read_text("utf-8"))
    manifest = MatrixManifest.from_json(plain)
    assert [(one.id, one.directory) for one in manifest.configurations] == [
        ("one", "phase_1_test_one"),
        ("two", "phase_2_test_two"),
    ]
    assert manifest.planned[0] == (0, "one")
    assert json.loads(json.dumps(manifest.to_json())) == plain


def test_a_sweep_is_reported_and_finished(tmp_path: Path) -> None:
    old = shutil.copytree(MADE / "sweep", tmp_path / "sweep")
    assert run_here("report", old).out == (MADE / "sweep.txt").read_text("utf-8")
    table = run_here("report", old, "--format", "markdown").out
    assert table.replace("\\", "") == (MADE / "sweep.md").read_text("utf-8")  # it was escaped less in those days
    assert "nothing is left to do" in run_here("resume", old).out
    assert sorted(path.name for path in old.iterdir()) == sorted(path.name for path in (MADE / "sweep").iterdir())


def test_a_sweep_is_verified(tmp_path: Path) -> None:
    old = shutil.copytree(MADE / "sweep", tmp_path / "sweep")
    verified = run_here("verify", old)
    assert verified.code == 0, verified.out

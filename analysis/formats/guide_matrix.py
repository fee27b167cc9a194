"""The multi-agent guide's files for a matrix of configurations: what was tested, in phases, and a log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from msgspec import UNSET

from analysis.formats.guide_report import Plain
from analysis.formats.multi_agent_guide import write_json
from loadgen.manifest import ARTIFACTS
from loadgen.suite_manifest import ConfigurationFacts, MatrixManifest, TestFacts, matrix_path

__all__ = ["write_suite"]

TOP = 10
LOGGED = ("phase", "test_id", "start_time", "end_time", "success", "stderr")


def write_suite(directory: Path) -> None:
    """Write what the guide keeps of a matrix: `comprehensive_test_summary.json` and a log.

    Raises OSError, or ValueError where the manifest is none.
    """
    manifest = MatrixManifest.from_json(json.loads(matrix_path(directory).read_text(encoding="utf-8")))
    ended = {str(facts.id): facts for facts in manifest.tests or ()}
    tests = [
        _test(directory, configuration, ended[str(configuration.id)], manifest.blocks)
        for configuration in manifest.configurations
    ]
    measured = [test for test in tests if test["summary"] is not None]
    ranked = sorted(measured, key=lambda test: test["summary"]["aggregate"]["average_efficiency"] or 0.0, reverse=True)
    phases = sorted({test["phase"] for test in tests})
    summary = {
        "test_execution": {
            "start_time": manifest.wall_start,
            "end_time": None if manifest.wall_end is UNSET else manifest.wall_end,
            "duration_seconds": None if manifest.duration_s is UNSET else manifest.duration_s,
            **_counted(tests, "_tests"),
        },
        "phase_breakdown": {
            f"phase_{phase}": _counted([test for test in tests if test["phase"] == phase], "") for phase in phases
        },
        "configuration_analysis": {
            "top_10_configs": [_ranked(test) for test in ranked[:TOP]],
            "total_configs_tested": len(tests),
        },
        "all_test_results": tests,
    }
    write_json(directory / "comprehensive_test_summary.json", summary)
    write_json(directory / "test_execution_log.json", [{key: test[key] for key in LOGGED} for test in tests])


def _test(directory: Path, configuration: ConfigurationFacts, ended: TestFacts, runs: int) -> Plain:
    path = directory / configuration.directory / ARTIFACTS / "summary.json"
    options = [agent.options for agent in configuration.agents]
    main: Plain = next((asked for asked in options if asked), {})
    second: Plain = options[1] if configuration.scenario == "chimera_hetero" and len(options) > 1 else {}
    return {
        "phase": configuration.phase,
        "test_id": configuration.id,
        "scenario": configuration.scenario,
        "config": {
            "gpu_layers": main.get("num_gpu"),
            "context": main.get("num_ctx"),
            "temperature": main.get("temperature"),
            "gpu2_layers": second.get("num_gpu"),
            "context2": second.get("num_ctx"),
            "temperature2": second.get("temperature"),
        },
        "runs": runs,
        "output_dir": configuration.directory,
        "start_time": ended.wall_start,
        "end_time": ended.wall_end,
        "exit_code": 0 if ended.success else 1,
        "success": ended.success,
        "stdout": None,
        "stderr": ended.error,
        "summary": json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None,
    }


def _ranked(test: Plain) -> Plain:
    aggregate, config = test["summary"]["aggregate"], test["config"]
    return {
        "scenario": test["scenario"],
        "gpu": config["gpu_layers"],
        "context": config["context"],
        "temperature": config["temperature"],
        "speedup": aggregate["average_concurrency_speedup"],
        "efficiency": aggregate["average_efficiency"],
        "throughput_delta": aggregate["average_throughput_delta"],
    }


def _counted(tests: Sequence[Plain], suffix: str) -> dict[str, int]:
    good = sum(test["success"] for test in tests)
    return {f"total{suffix}": len(tests), f"successful{suffix}": good, f"failed{suffix}": len(tests) - good}

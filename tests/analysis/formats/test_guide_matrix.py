"""What the guide keeps of a matrix, from the manifest of one that was made by hand."""

import json

from analysis.formats.guide_matrix import write_suite

CONFIGURATIONS = [
    {
        "id": number,
        "phase": phase,
        "directory": f"phase_{phase}_test_{number}",
        "scenario": scenario,
        "agents": [{"name": "collector", "options": {"num_gpu": 80}}, {"name": "insight", "options": {"num_gpu": 100}}],
    }
    for number, phase, scenario in ((1, 1, "chimera_homo"), (2, 2, "chimera_hetero"))
]


def test_a_matrix_has_its_tests_counted_by_phase_and_in_a_log(tmp_path):
    ended = [
        {"id": 1, "success": True, "wall_start": "a", "wall_end": "b"},
        {"id": 2, "success": False, "error": "no route"},
    ]
    manifest = {"schema": "loadgen.matrix/1", "blocks": 3, "configurations": CONFIGURATIONS, "tests": ended}
    (tmp_path / "matrix.json").write_text(json.dumps(manifest))
    write_suite(tmp_path)
    summary = json.loads((tmp_path / "comprehensive_test_summary.json").read_text())
    assert summary["test_execution"]["failed_tests"] == 1
    assert summary["phase_breakdown"]["phase_2"] == {"total": 1, "successful": 0, "failed": 1}
    assert summary["configuration_analysis"] == {"top_10_configs": [], "total_configs_tested": 2}
    homogeneous, heterogeneous = (test["config"] for test in summary["all_test_results"])
    assert (homogeneous["gpu_layers"], homogeneous["gpu2_layers"]) == (80, None)
    assert (heterogeneous["gpu_layers"], heterogeneous["gpu2_layers"]) == (80, 100)
    log = json.loads((tmp_path / "test_execution_log.json").read_text())
    assert [(test["test_id"], test["success"], test["stderr"]) for test in log] == [
        (1, True, None),
        (2, False, "no route"),
    ]

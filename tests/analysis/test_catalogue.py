"""Each metric, objective and verdict is named once, and the names are those of the summary."""

from analysis import catalogue
from analysis.figures.metrics import LatencyFigures, Metrics
from analysis.figures.per_run import RunRow
from loadgen.latency import ERROR_RATE, OBJECTIVES, QUANTILES


def test_the_metrics_of_the_catalogue_are_those_of_a_summary():
    assert set(catalogue.METRICS) == set(Metrics.__struct_fields__)
    assert {*QUANTILES} <= {*LatencyFigures.__struct_fields__}
    assert all(metric.quantiles == tuple(QUANTILES) for metric in catalogue.LATENCIES.values())


def test_every_objective_is_about_a_metric_of_the_catalogue():
    for name, objective in OBJECTIVES.items():
        assert objective.name == name
        assert objective.metric in {*catalogue.METRICS, ERROR_RATE}
        assert objective.at_least == (objective.metric in catalogue.RATES)
        assert (objective.statistic is not None) == (objective.metric in catalogue.LATENCIES)


def test_what_runs_are_compared_by_stands_in_a_summary():
    for key, figure in catalogue.OF_RUNS.items():
        assert figure.over_runs in catalogue.METRICS or key in RunRow.__struct_fields__
        if figure.over_runs is not None:
            assert figure.better is catalogue.METRICS[figure.over_runs].better


def test_latencies_are_better_lower_and_rates_higher():
    assert {metric.better for metric in catalogue.LATENCIES.values()} == {catalogue.Direction.LOWER}
    assert {metric.better for metric in catalogue.RATES.values()} == {catalogue.Direction.HIGHER}

"""The dashboards, rules and /metrics against a real Prometheus that scraped real runs."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.generate import DASHBOARDS, text
from loadgen.engine.tally import BOUNDS_NS
from loadgen.exporter import names
from tests.grafana.conftest import SHIPPED, Scraped

RULES = yaml.safe_load((SHIPPED / "rules.yml").read_text())["groups"][0]["rules"]
WORD = re.compile(r"\bloadgen[a-z0-9_:]*")
LAST = "last_over_time({}[2m])"  # a series is stale once its exporter has gone
LIMIT = re.compile(r"\s*[<>]=?\s*[0-9.]+\s*$")


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels") or []


def expressions() -> list[tuple[str, str]]:
    """Return (where, expression) of every panel and rule; of an alert, what is held against its limit."""
    found = []
    for path in sorted((SHIPPED / "dashboards").glob("*.json")):
        for panel in panels(json.loads(path.read_text())):
            for target in panel.get("targets") or []:
                found.append((f"{path.stem}: {panel['title']}", target["expr"]))
    for rule in RULES:
        if "alert" in rule:
            assert LIMIT.search(rule["expr"]), rule
        found.append((f"rule {rule.get('record') or rule['alert']}", LIMIT.sub("", rule["expr"])))
    return found


def filled_in(expression: str) -> str:
    """Put in what Grafana would with `All` chosen and one scrape per second."""
    return re.sub(r"\$(run|endpoint|agent)\b", ".*", expression).replace("$__rate_interval", "5s")


@pytest.mark.parametrize("name", DASHBOARDS)
def test_what_is_in_git_is_what_the_generator_writes(name: str) -> None:
    written = (SHIPPED / "dashboards" / f"{name}.json").read_text()
    assert written == text(DASHBOARDS[name]()), "run python -m grafana.generate"
    assert text(Dashboard.from_json(json.loads(written))) == written


def test_only_names_that_somebody_exports_are_asked_for() -> None:
    known = names() | {rule["record"] for rule in RULES if "record" in rule}
    asked = {word for _, expression in expressions() for word in WORD.findall(expression)}
    assert asked
    assert asked <= known


def test_configuration_and_rules_are_sound(promtool: Path) -> None:
    for words in (
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
    ):
        done = subprocess.run([promtool, *words], cwd=SHIPPED, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_compose_mounts_what_there_is() -> None:
    compose = yaml.safe_load((SHIPPED / "compose.yml").read_text())
    for service in compose["services"].values():
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", service["image"])
        for volume in service["volumes"]:
            assert (SHIPPED / volume.split(":")[0]).exists(), volume


def test_the_page_is_sound(promtool: Path, agents: Scraped) -> None:
    done = subprocess.run(
        [promtool, "check", "metrics"], input=agents.page, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(("where", "expression"), expressions(), ids=[where for where, _ in expressions()])
def test_every_expression_returns_data(agents: Scraped, where: str, expression: str) -> None:
    series = agents.prometheus.series(filled_in(expression), agents.began, agents.ended)
    assert any(not math.isnan(float(value)) for one in series for _, value in one["values"]), expression


def test_counts_of_a_short_run_are_those_of_its_summary(short_run: Scraped) -> None:
    summary = json.loads((short_run.directory / "summary.json").read_text())
    latest, end = short_run.prometheus.latest, short_run.ended
    requests = latest(f"sum by (outcome) ({LAST.format('loadgen_requests_total')})", end)
    assert requests == {(("outcome", "ok"),): summary["requests"]["completed"]}
    assert latest(LAST.format("loadgen_requests_sent_total"), end)[()] == summary["requests"]["completed"]
    records = pq.read_table(short_run.directory / "records.parquet")
    assert latest(f"sum({LAST.format('loadgen_output_tokens_total')})", end)[()] == sum(
        records["output_tokens"].to_pylist()
    )
    assert latest(f"sum({LAST.format('loadgen_in_flight')})", end)[()] == 0
    assert latest(f"{LAST.format('loadgen_verdict')} == 1", end) == {(("verdict", summary["verdict"]),): 1.0}


def test_quantiles_of_a_short_run_lie_in_the_bucket_of_the_summary(short_run: Scraped) -> None:
    summary = json.loads((short_run.directory / "summary.json").read_text())
    bounds = [0.0, *(bound / 1e9 for bound in BOUNDS_NS)]
    for metric, series in (("ttft_ms", "loadgen_ttft_seconds"), ("event_gap_ms", "loadgen_event_gap_seconds")):
        for q, label in ((0.5, "p50"), (0.9, "p90")):
            expression = f"histogram_quantile({q}, sum by (le) ({LAST.format(series + '_bucket')}))"
            live = short_run.prometheus.latest(expression, short_run.ended)[()]
            told = summary["metrics"][metric][label]["value"]
            if told is None:
                pytest.skip(f"no percentile: {summary['verdict_reasons']}")
            told /= 1e3
            at = max(i for i, bound in enumerate(bounds) if bound < told)
            assert bounds[at] <= live <= bounds[at + 1], (metric, label)


def test_agents_are_told_apart_and_their_speedup_is_that_of_the_summary(agents: Scraped) -> None:
    summary = json.loads((agents.directory / "summary.json").read_text())
    latest, end = agents.prometheus.latest, agents.ended
    ended = latest(f"sum by (agent) ({LAST.format('loadgen_requests_total')})", end)
    records = pq.read_table(agents.directory / "records.parquet", columns=["agent"])["agent"].to_pylist()
    assert ended == {(("agent", agent),): records.count(agent) for agent in set(records)}
    assert len(ended) == 2
    speedup = latest(LAST.format("loadgen_speedup"), end)
    for bound in ("value", "low", "high"):
        assert speedup[(("bound", bound),)] == pytest.approx(summary["agents"]["speedup"][bound])


def test_a_slow_request_can_be_found_by_its_exemplar(short_run: Scraped) -> None:
    found = short_run.prometheus.ask(
        "query_exemplars", query="loadgen_ttft_seconds_bucket", start=short_run.began, end=short_run.ended
    )
    told = {(one["labels"]["request"], float(one["value"])) for series in found for one in series["exemplars"]}
    rows = pq.read_table(short_run.directory / "records.parquet").to_pylist()
    ttft = {f"{row['run']}-{row['seq']}": (row["event_ns"], row["intended_ns"], row["event_kind"]) for row in rows}
    assert told
    for request, value in told:
        stamps, intended, kinds = ttft[request]
        first = next(at for at, kind in zip(stamps, kinds, strict=True) if kind in (2, 3, 4))
        assert value == pytest.approx((first - intended) / 1e9)

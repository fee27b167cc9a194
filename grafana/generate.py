"""The dashboards as code: `python -m grafana.generate` writes dashboards/*.json.

Panels query series of loadgen/exporter/families.py and recording rules of rules.yml, nothing else; a test runs every
expression against a real Prometheus. `$run`, `$endpoint` and `$agent` are variables; a run is identified by the
directory it writes to, which loadgen_info carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueTextMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DataSourceRef,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

HERE = Path(__file__).parent
SOURCE = DataSourceRef(type_val="prometheus", uid="loadgen-prometheus")
Query = tuple[str, str]  # (expression, legend)
Panel = timeseries.Panel | heatmap.Panel | stat.Panel

WHO = 'endpoint=~"$endpoint",agent=~"$agent"'
THIS_RUN = 'and on (job, instance) loadgen_info{directory=~"$run"}'
BY_WHO = "{{endpoint}} {{agent}}"
WIDE, HALF, THIRD, QUARTER = 24, 12, 8, 6
TALL, SHORT = 8, 4


def rate(name: str, labels: str = WHO) -> str:
    return f"rate({name}{{{labels}}}[$__rate_interval]) {THIS_RUN}" if labels else f"rate({name}[$__rate_interval])"


def quantile(q: float, histogram: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) ({rate(f'{histogram}_bucket')}))"


def quantiles(histogram: str, by: str = "", legend: str = "") -> list[Query]:
    return [
        (quantile(q, histogram, by), f"{legend} {name}".strip())
        for q, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
    ]


def lines(title: str, what: str, unit: str, queries: Sequence[Query], width: int = HALF) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(title)
        .description(what)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .fill_opacity(0)
        .line_width(2)
        .span(width)
        .height(TALL)
        .legend(
            VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    for query in queries:
        panel = panel.with_target(_target(*query))
    return panel


def heat(title: str, what: str, histogram: str, width: int = HALF) -> heatmap.Panel:
    target = _target(f"sum by (le) ({rate(f'{histogram}_bucket')})", "{{le}}").format(PromQueryFormat.HEATMAP)
    return (
        heatmap.Panel()
        .title(title)
        .description(what)
        .datasource(SOURCE)
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Viridis"))
        .span(width)
        .height(TALL)
        .with_target(target)
    )


def number(title: str, what: str, unit: str, query: str, width: int = QUARTER, legend: str = "") -> stat.Panel:
    return (
        stat.Panel()
        .title(title)
        .description(what)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(SHORT)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .text_mode(BigValueTextMode.NAME if legend else BigValueTextMode.AUTO)
        .with_target(_target(query, legend))
    )


def _target(expression: str, legend: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).legend_format(legend).range()


def run() -> Dashboard:
    made = _dashboard("loadgen: a run", "loadgen-run", "What is offered, what comes back, and how the instrument does.")
    ok = f'sum(loadgen_requests_total{{outcome="ok",{WHO}}} {THIS_RUN})'
    failed = f'sum(loadgen_requests_total{{outcome!="ok",{WHO}}} {THIS_RUN}) or vector(0)'
    overview: list[Panel] = [
        number("Answered", "Requests that ended well.", "short", ok),
        number("Failed", "Requests that ended otherwise.", "short", failed),
        number(
            "Tokens per second",
            "Output tokens of answered requests.",
            "short",
            f"sum({rate('loadgen_output_tokens_total')})",
        ),
        number(
            "Verdict",
            "Running, or what was found at the end.",
            "short",
            f"loadgen_verdict == 1 {THIS_RUN}",
            legend="{{verdict}}",
        ),
    ]
    load: list[Panel] = [
        lines(
            "Requests per second",
            "What the schedule offers, what was sent, what was answered.",
            "reqps",
            [
                (f"sum(rate(loadgen_requests_offered_total[$__rate_interval]) {THIS_RUN})", "offered"),
                (f"sum(rate(loadgen_requests_sent_total[$__rate_interval]) {THIS_RUN})", "sent"),
                (f"sum(loadgen:requests:rate15s{{{WHO}}} {THIS_RUN})", "ended, over 15 s"),
                (f"sum({rate('loadgen_requests_total')})", "ended"),
            ],
        ),
        lines(
            "In flight",
            "Requests under way, and requests due that wait for a place.",
            "short",
            [(f"loadgen_in_flight{{{WHO}}} {THIS_RUN}", BY_WHO), (f"loadgen_waiting {THIS_RUN}", "waiting")],
        ),
        lines(
            "Tokens per second",
            "Of answered requests.",
            "short",
            [
                (f"sum by (endpoint, agent) ({rate('loadgen_output_tokens_total')})", f"out {BY_WHO}"),
                (f"sum by (endpoint, agent) ({rate('loadgen_input_tokens_total')})", f"in {BY_WHO}"),
            ],
        ),
        lines(
            "Failures per second",
            "By outcome.",
            "reqps",
            [
                (f"sum by (outcome) ({rate('loadgen_requests_total')})", "{{outcome}}"),
            ],
        ),
    ]
    latency: list[Panel] = [
        heat("Time to first token", "From the intended start.", "loadgen_ttft_seconds"),
        lines("Time to first token", "From the intended start.", "s", quantiles("loadgen_ttft_seconds")),
        heat("Gaps between token events", "What a reader of the stream sees.", "loadgen_event_gap_seconds"),
        lines(
            "Gaps between token events",
            "What a reader of the stream sees.",
            "s",
            quantiles("loadgen_event_gap_seconds"),
        ),
        lines(
            "Time per output token",
            "Mean per request, after its first event.",
            "s",
            quantiles("loadgen_tpot_seconds"),
            THIRD,
        ),
        lines("End to end", "From the intended start to the last token.", "s", quantiles("loadgen_e2e_seconds"), THIRD),
        lines(
            "Waiting to be sent",
            "From the intended start to the first byte.",
            "s",
            quantiles("loadgen_queue_seconds"),
            THIRD,
        ),
    ]
    health: list[Panel] = [
        lines(
            "How late we are",
            "Our event loop at worst, and requests from due to sent. Kernel stamps do not suffer from the first.",
            "s",
            [
                (f"loadgen_loop_lag_seconds {THIS_RUN}", "event loop"),
                (f"loadgen_send_lag_seconds {THIS_RUN}", "due to sent"),
            ],
            QUARTER,
        ),
        lines(
            "Our CPU",
            "Cores in use by the load generator.",
            "short",
            [
                (f"rate(loadgen_cpu_seconds_total[$__rate_interval]) {THIS_RUN}", "cores"),
            ],
            QUARTER,
        ),
        lines(
            "Censored share",
            "Events that share a read with a later one; above 5 % the stamps are void.",
            "percentunit",
            [
                (f"loadgen_censored_share {THIS_RUN}", "share"),
                (f"sum({rate('loadgen_censored_events_total')}) / sum({rate('loadgen_token_events_total')})", "now"),
            ],
            QUARTER,
        ),
        lines(
            "Connections found closed",
            "Kept connections that the server had closed.",
            "short",
            [
                (f"sum({rate('loadgen_stale_connections_total')})", "per second"),
            ],
            QUARTER,
        ),
    ]
    return _rows(made, {"": overview, "Load": load, "Latency": latency, "The instrument": health})


def agents() -> Dashboard:
    made = _dashboard(
        "loadgen: agents side by side", "loadgen-agents", "Two endpoints or agents at once, and what that is worth."
    )
    gain: list[Panel] = [
        number(
            "Speedup", "Solo times over the makespan, so far.", "short", f'loadgen_speedup{{bound="value"}} {THIS_RUN}'
        ),
        number(
            "Efficiency",
            "Speedup over the number of agents.",
            "percentunit",
            f'loadgen_efficiency{{bound="value"}} {THIS_RUN}',
        ),
        number(
            "Overlap efficiency",
            "No speedup: blind to both being slower.",
            "percentunit",
            f"loadgen_overlap_efficiency {THIS_RUN}",
        ),
        number(
            "Contention",
            "Whether the agents slow each other down.",
            "short",
            f"loadgen_contention == 1 {THIS_RUN}",
            legend="{{verdict}}",
        ),
        lines("Speedup so far", "With its interval.", "short", [(f"loadgen_speedup {THIS_RUN}", "{{bound}}")]),
        lines(
            "Efficiency so far", "With its interval.", "percentunit", [(f"loadgen_efficiency {THIS_RUN}", "{{bound}}")]
        ),
    ]
    beside: list[Panel] = [
        lines(
            "Time to first token, median",
            "Each agent at its endpoint.",
            "s",
            [(quantile(0.5, "loadgen_ttft_seconds", "endpoint, agent"), BY_WHO)],
        ),
        lines(
            "Time to first token, p99",
            "Each agent at its endpoint.",
            "s",
            [(quantile(0.99, "loadgen_ttft_seconds", "endpoint, agent"), BY_WHO)],
        ),
        lines(
            "Gap between token events, median",
            "Each agent at its endpoint.",
            "s",
            [(quantile(0.5, "loadgen_event_gap_seconds", "endpoint, agent"), BY_WHO)],
        ),
        lines(
            "Tokens per second",
            "Each agent at its endpoint.",
            "short",
            [
                (f"loadgen:output_tokens:rate15s{{{WHO}}} {THIS_RUN}", BY_WHO),
            ],
        ),
        lines(
            "In flight", "Each agent at its endpoint.", "short", [(f"loadgen_in_flight{{{WHO}}} {THIS_RUN}", BY_WHO)]
        ),
        lines(
            "Errors",
            "Share of requests that failed, over 15 s.",
            "percentunit",
            [
                (f"loadgen:error_share:rate15s{{{WHO}}} {THIS_RUN}", BY_WHO),
            ],
        ),
    ]
    return _rows(made, {"What it is worth": gain, "Side by side": beside})


def machine() -> Dashboard:
    made = _dashboard("loadgen: host and GPU", "loadgen-machine", "The client's machine and its GPUs beside the run.")
    here = THIS_RUN
    host: list[Panel] = [
        lines(
            "CPU",
            "Busy share of each core.",
            "percentunit",
            [(f"loadgen_host_cpu_busy_ratio {here}", "{{core}}")],
            THIRD,
        ),
        lines(
            "CPU taken by the hypervisor",
            "Steal.",
            "percentunit",
            [(f"loadgen_host_cpu_steal_ratio {here}", "{{core}}")],
            THIRD,
        ),
        lines(
            "Memory",
            "Of this machine.",
            "bytes",
            [
                (f"loadgen_host_memory_used_bytes {here}", "used"),
                (f"loadgen_host_memory_available_bytes {here}", "available"),
            ],
            THIRD,
        ),
        lines(
            "TCP segments sent again",
            "Share of those sent: a network that loses.",
            "percentunit",
            [
                (
                    "rate(loadgen_host_tcp_retransmitted_segments_total[$__rate_interval])"
                    f" / rate(loadgen_host_tcp_sent_segments_total[$__rate_interval]) {here}",
                    "share",
                ),
            ],
            WIDE,
        ),
    ]
    gpu: list[Panel] = [
        lines(
            "GPU busy",
            "Share of time in which it computed.",
            "percentunit",
            [(f"loadgen_gpu_utilization_ratio {here}", "{{gpu}}")],
            THIRD,
        ),
        lines(
            "GPU memory",
            "Used and there.",
            "bytes",
            [
                (f"loadgen_gpu_memory_used_bytes {here}", "used {{gpu}}"),
                (f"loadgen_gpu_memory_total_bytes {here}", "total {{gpu}}"),
            ],
            THIRD,
        ),
        lines(
            "GPU power",
            "As told, and from the energy counter.",
            "watt",
            [
                (f"loadgen_gpu_power_watts {here}", "{{gpu}}"),
                (f"rate(loadgen_gpu_energy_joules_total[$__rate_interval]) {here}", "{{gpu}}, from energy"),
            ],
            THIRD,
        ),
        lines(
            "GPU clocks",
            "Compute and memory.",
            "hertz",
            [
                (f"loadgen_gpu_sm_clock_hertz {here}", "compute {{gpu}}"),
                (f"loadgen_gpu_memory_clock_hertz {here}", "memory {{gpu}}"),
            ],
            THIRD,
        ),
        lines("GPU temperature", "", "celsius", [(f"loadgen_gpu_temperature_celsius {here}", "{{gpu}}")], THIRD),
        lines(
            "GPU held down",
            "1 while the clock is held down for a reason.",
            "short",
            [
                (f"loadgen_gpu_throttle {here}", "{{gpu}} {{reason}}"),
            ],
            THIRD,
        ),
        lines(
            "Joules per output token",
            "Energy of all GPUs over tokens of answered requests.",
            "joule",
            [
                (
                    f"sum(rate(loadgen_gpu_energy_joules_total[$__rate_interval]) {here})"
                    f" / sum(rate(loadgen_output_tokens_total[$__rate_interval]) {here})",
                    "J per token",
                ),
            ],
            WIDE,
        ),
    ]
    return _rows(made, {"Host": host, "GPU": gpu})


def _dashboard(title: str, uid: str, what: str) -> dashboard.Dashboard:
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(what)
        .tags(["loadgen"])
        .refresh("5s")
        .time("now-15m", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(_variable("run", "label_values(loadgen_info, directory)"))
        .with_variable(_variable("endpoint", "label_values(loadgen_in_flight, endpoint)"))
        .with_variable(_variable("agent", "label_values(loadgen_in_flight, agent)"))
    )


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(name)
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def _rows(made: dashboard.Dashboard, rows: dict[str, list[Panel]]) -> Dashboard:
    for title, panels in rows.items():
        if title:
            made = made.with_row(dashboard.Row(title))
        for panel in panels:
            made = made.with_panel(panel)
    return made.build()


DASHBOARDS = {"run": run, "agents": agents, "machine": machine}


def text(made: Dashboard) -> str:
    return JSONEncoder(sort_keys=True, indent=2).encode(made) + "\n"


def main() -> None:
    for name, make in DASHBOARDS.items():
        (HERE / "dashboards" / f"{name}.json").write_text(text(make()), encoding="utf-8")


if __name__ == "__main__":
    main()

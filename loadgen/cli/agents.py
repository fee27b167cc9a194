"""`loadgen agents`: agents alone and at the same time, and what that gains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from loadgen.cli import options
from loadgen.cli.exits import Exit, Stop
from loadgen.cli.exporting import Outlets, exporting
from loadgen.cli.measuring import conclude, in_loop, load_profile, maybe_emulator, new_directory, prepare_and_measure
from loadgen.cli.target import pairs

__all__ = ["agents"]

EMULATED = 2  # instances that --emulator starts, each with a GPU of its own


def agents(
    profile: options.ProfileName = None,
    scenario: Annotated[
        str | None, typer.Option("--scenario", help="baseline_vs_chimera, chimera_hetero or chimera_homo.")
    ] = None,
    url: options.Url = None,
    api: options.Api = None,
    model: options.Model = None,
    path: options.RequestPath = None,
    workload: Annotated[
        str | None, typer.Option("--workload", help="two-stage, micro, single (not streamed) or synthetic.")
    ] = None,
    permits: Annotated[int | None, typer.Option("--permits", help="Agents at work at once; all, if left out.")] = None,
    agents_: Annotated[int | None, typer.Option("--agents", help="How many agents; 2, if left out.")] = None,
    think_ms: Annotated[
        float | None, typer.Option("--think-ms", help="From an answer to the agent's next call.")
    ] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", help="How often each does its work in a run.")] = None,
    baseline: Annotated[
        list[str] | None, typer.Option("--baseline", help="An option of baseline agents, such as num_ctx=4096.")
    ] = None,
    chimera: Annotated[
        list[str] | None, typer.Option("--chimera", help="An option of chimera agents, such as num_gpu=80.")
    ] = None,
    chimera2: Annotated[
        list[str] | None, typer.Option("--chimera2", help="An option of the second kind of chimera agents.")
    ] = None,
    solo: Annotated[
        bool | None, typer.Option("--solo/--no-solo", help="Measure each agent alone as well; speedup needs it.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="The folder the agents are asked about; else a made-up one.")
    ] = None,
    phases: Annotated[
        str | None, typer.Option("--phases", help="Of a profile's configurations: all, or such as 1,3.")
    ] = None,
    input_tokens: options.InputTokens = None,
    output_tokens: options.OutputTokens = None,
    warmup_requests: options.WarmupRequests = None,
    runs: options.Runs = None,
    until: options.Until = None,
    until_metric: options.UntilMetric = None,
    order: Annotated[str | None, typer.Option("--order", help="Of the arms: randomised or fixed.")] = None,
    control: Annotated[
        str | None, typer.Option("--control", help="This arm once more at the start and at the end.", metavar="ARM")
    ] = None,
    cooldown: options.Cooldown = None,
    isolation: options.Isolation = None,
    seed: options.Seed = None,
    objective: options.Objective = None,
    option: options.Option = None,
    header: options.Header = None,
    api_key_env: options.ApiKeyEnv = None,
    tokenizer: options.Tokenizer = None,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    telemetry_url: options.TelemetryUrl = None,
    telemetry_interval: options.TelemetryInterval = None,
    proxy: options.Proxy = None,
    tier: options.Tier = None,
    loop: options.LoopName = None,
    prometheus_port: options.PrometheusPort = None,
    prometheus_host: options.PrometheusHost = "127.0.0.1",
    push_gateway: options.PushGateway = None,
    remote_write: options.RemoteWrite = None,
    artifacts: Annotated[
        bool, typer.Option("--artifacts", help="Also write the agents' answers and the multi-agent guide's files.")
    ] = False,
    out: options.Out = None,
    emulator: options.Emulator = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    no_progress: options.NoProgress = False,
    live: options.LiveTable = False,
) -> int:
    """Measure agents alone and at the same time, and what the company costs: speedup, efficiency, contention."""
    from loadgen.campaign.prepare import prepare

    target = options.target_of(
        api=api,
        model=model,
        path=path,
        api_key_env=api_key_env,
        tokenizer=tokenizer,
        ca_file=ca_file,
        insecure=insecure,
        option=option,
        header=header,
    )
    overrides: dict[str, Any] = {
        "agents": {
            "scenario": scenario,
            "workload": workload,
            "permits": permits,
            "count": agents_,
            "think_ms": think_ms,
            "rounds": rounds,
            "baseline": pairs("--baseline", baseline) or None,
            "chimera": pairs("--chimera", chimera) or None,
            "chimera2": pairs("--chimera2", chimera2) or None,
            "solo": solo,
            "data": str(data.expanduser()) if data else None,
            "warmup_requests": warmup_requests,
            "artifacts": artifacts or None,
        },
        "work": {"prompt_tokens": input_tokens, "output_tokens": output_tokens},
        "objectives": pairs("--objective", objective) or None,
        "runs": runs,
        "campaign": {
            **options.campaign_of(until, until_metric, cooldown, isolation),
            "order": order,
            "control": control,
        },
        "seed": seed,
        "telemetry": {"exporters": telemetry_url or None, "interval_s": telemetry_interval},
        "proxy": proxy,
        "tier": tier,
        "loop": loop,
    }
    if profile is None and scenario is None:
        raise Stop(
            Exit.USAGE, "no agents: give a profile, or --scenario baseline_vs_chimera|chimera_hetero|chimera_homo"
        )
    with maybe_emulator(emulator, url, EMULATED) as urls:
        resolved = load_profile(profile, urls, target, overrides, quiet=quiet)
        if resolved.agents is None:
            raise Stop(Exit.USAGE, f"{profile}: describes no agents; give a --scenario, or use loadgen run {profile}")
        directory, progress = out or new_directory(), not (quiet or no_progress)
        outlets = Outlets(prometheus_port, prometheus_host, push_gateway, remote_write, str(directory))
        if resolved.agents.configurations:
            if outlets.any or live:
                what, them = ("live counters are", "them") if outlets.any else ("the table of --live is", "it")
                many = f"a profile with configurations makes many; leave {them} out"
                raise Stop(Exit.USAGE, f"{what} of one campaign: {many}")
            from loadgen.cli.matrix import matrix

            return matrix(resolved, phases, directory, json_=json_, progress=progress, quiet=quiet)
        if phases is not None:
            raise Stop(Exit.USAGE, "--phases: there are no configurations; name a profile that has some, as agents-30")
        with exporting(outlets, profile or "command line", quiet=quiet) as exporter:
            finished = in_loop(
                resolved.loop,
                lambda stop: prepare_and_measure(
                    prepare(resolved, directory), stop, progress=progress, quiet=quiet, live=live, exporter=exporter
                ),
            )
            return conclude(finished, directory, json_=json_, quiet=quiet)

"""`loadgen run`: offer a load to one or more servers and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from loadgen.cli import options
from loadgen.cli.exits import Exit, Stop
from loadgen.cli.exporting import Outlets, exporting
from loadgen.cli.measuring import (
    conclude,
    in_loop,
    load_profile,
    maybe_emulator,
    new_directory,
    prepare_and_measure,
)
from loadgen.cli.target import pairs

__all__ = ["run"]

DEFAULT_PROFILE = "quickstart"


def run(
    profile: options.ProfileName = None,
    url: options.Url = None,
    api: options.Api = None,
    model: options.Model = None,
    path: options.RequestPath = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", help="Closed loop: requests in flight.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Open loop: requests a second.")] = None,
    arrivals: Annotated[
        str | None, typer.Option("--arrivals", help="poisson, constant, gamma, burst or closed.")
    ] = None,
    burstiness: Annotated[float | None, typer.Option("--burstiness", help="Shape of gamma gaps; 1 is Poisson.")] = None,
    max_in_flight: Annotated[
        int | None, typer.Option("--max-in-flight", help="Cap of an open loop; the wait counts.")
    ] = None,
    requests: Annotated[int | None, typer.Option("--requests", help="Stop after this many.")] = None,
    duration: Annotated[float | None, typer.Option("--duration", help="Stop after this many seconds.")] = None,
    input_tokens: options.InputTokens = None,
    output_tokens: options.OutputTokens = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Prompts from this JSONL or ShareGPT file.")] = None,
    cache: Annotated[
        str | None, typer.Option("--cache", help="unique, shared or none: prefixes of the prompts.")
    ] = None,
    warmup_requests: options.WarmupRequests = None,
    warmup: Annotated[
        float | None, typer.Option("--warmup", help="Seconds at the start that are not measured.")
    ] = None,
    runs: options.Runs = None,
    until: options.Until = None,
    until_metric: options.UntilMetric = None,
    cooldown: options.Cooldown = None,
    isolation: options.Isolation = None,
    seed: options.Seed = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes that share the load.")] = None,
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
    out: options.Out = None,
    emulator: options.Emulator = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    no_progress: options.NoProgress = False,
    live: options.LiveTable = False,
) -> int:
    """Offer a load and report what the server did, and how sure that is."""
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
        "load": {
            "arrivals": arrivals,
            "concurrency": concurrency,
            "rate_per_s": rate,
            "burstiness": burstiness,
            "max_in_flight": max_in_flight,
            "requests": requests,
            "duration_s": duration,
            "warmup_requests": warmup_requests,
            "warmup_s": warmup,
        },
        "work": {
            "prompt_tokens": input_tokens,
            "output_tokens": output_tokens,
            "dataset": str(Path(dataset).expanduser()) if dataset else None,
            "cache": cache,
        },
        "objectives": pairs("--objective", objective) or None,
        "runs": runs,
        "campaign": options.campaign_of(until, until_metric, cooldown, isolation),
        "seed": seed,
        "workers": workers,
        "telemetry": {"exporters": telemetry_url or None, "interval_s": telemetry_interval},
        "proxy": proxy,
        "tier": tier,
        "loop": loop,
    }
    # A load given in full needs no profile; given nothing, the quickstart answers "what can it do".
    source = profile or (None if any(value is not None for value in overrides["load"].values()) else DEFAULT_PROFILE)
    with maybe_emulator(emulator, url) as urls:
        resolved = load_profile(source, urls, target, overrides, quiet=quiet)
        if resolved.agents is not None:
            raise Stop(Exit.USAGE, f"{profile}: describes agents; use loadgen agents {profile}")
        directory = out or new_directory()
        outlets = Outlets(prometheus_port, prometheus_host, push_gateway, remote_write, str(directory))
        with exporting(outlets, source or "command line", quiet=quiet) as exporter:
            finished = in_loop(
                resolved.loop,
                lambda stop: prepare_and_measure(
                    prepare(resolved, directory),
                    stop,
                    progress=not (quiet or no_progress),
                    quiet=quiet,
                    live=live,
                    exporter=exporter,
                ),
            )
            return conclude(finished, directory, json_=json_, quiet=quiet)

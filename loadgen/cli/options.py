"""The options that commands which measure have in common, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from loadgen.cli.target import headers, pairs

__all__ = ["campaign_of", "target_of"]

ProfileName = Annotated[str | None, typer.Argument(help="A profile: a YAML file, or the name of a shipped one.")]

Url = Annotated[list[str] | None, typer.Option("--url", help="The server; repeat for several.")]
Api = Annotated[str | None, typer.Option("--api", help="auto, openai, ollama or lmstudio.")]
Model = Annotated[str | None, typer.Option("--model", help="The model; auto takes the first one listed.")]
RequestPath = Annotated[str | None, typer.Option("--path", help="The request path, such as /v1/completions.")]
Option = Annotated[list[str] | None, typer.Option("--option", help="Sent to the server, such as temperature=0.7.")]
Header = Annotated[list[str] | None, typer.Option("--header", help="Sent with each request, as 'Name: value'.")]
ApiKeyEnv = Annotated[str | None, typer.Option("--api-key-env", help="The environment variable that holds the key.")]
Tokenizer = Annotated[str | None, typer.Option("--tokenizer", help="A folder with tokenizer.json, for exact lengths.")]
CaFile = Annotated[str | None, typer.Option("--ca-file", help="Trust these certificates (PEM).")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Do not verify the server's certificate.")]

InputTokens = Annotated[int | None, typer.Option("--input-tokens", help="Length of the prompts.")]
OutputTokens = Annotated[int | None, typer.Option("--output-tokens", help="Length of the answers.")]
WarmupRequests = Annotated[int | None, typer.Option("--warmup-requests", help="Sent first, not measured.")]
Runs = Annotated[int | None, typer.Option("--runs", help="How often to repeat it all.")]
Until = Annotated[
    str | None, typer.Option("--until", help="Repeat until the interval is so narrow to either side, such as 2%.")
]
UntilMetric = Annotated[
    str | None, typer.Option("--until-metric", help="What must be so narrow: both, ttft_ms or output_tokens_per_s.")
]
Cooldown = Annotated[float | None, typer.Option("--cooldown", help="Seconds between runs.")]
Isolation = Annotated[
    str | None, typer.Option("--isolation", help="Before each run: none, unload (the model) or process (a fresh one).")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Makes schedule and prompts repeatable.")]
Objective = Annotated[
    list[str] | None, typer.Option("--objective", help="Such as ttft_p99_ms=500; repeat for several.")
]

Proxy = Annotated[str | None, typer.Option("--proxy", help="An HTTP proxy (lowers the tier to aiohttp).")]
Tier = Annotated[str | None, typer.Option("--tier", help="auto, kernel, callback or aiohttp.")]
LoopName = Annotated[str | None, typer.Option("--loop", help="auto, uvloop or asyncio.")]

TelemetryUrl = Annotated[
    list[str] | None, typer.Option("--telemetry-url", help="Sample this dcgm-exporter or node exporter too.")
]
TelemetryInterval = Annotated[
    float | None, typer.Option("--telemetry-interval", help="Seconds between samples; 0 takes none.")
]

Out = Annotated[Path | None, typer.Option("--out", help="The run's directory; a new one.", metavar="DIR")]
Emulator = Annotated[bool, typer.Option("--emulator", help="Measure an emulator started for the occasion.")]
Json = Annotated[bool, typer.Option("--json", help="Print summary.json instead of the text.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
LiveTable = Annotated[bool, typer.Option("--live", help="Draw a table with sparklines instead of the progress line.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress line.")]

PrometheusPort = Annotated[int | None, typer.Option("--prometheus-port", help="Serve live /metrics on this port.")]
PrometheusHost = Annotated[str, typer.Option("--prometheus-host", help="The address to serve /metrics on.")]
PushGateway = Annotated[str | None, typer.Option("--push-gateway", help="Push the final counts there.", metavar="URL")]
RemoteWrite = Annotated[
    str | None, typer.Option("--remote-write", help="Write the final counts to this Prometheus.", metavar="URL")
]


def campaign_of(
    until: str | None, until_metric: str | None, cooldown: float | None, isolation: str | None
) -> dict[str, Any]:
    """Return what the options say of how runs are put together, as a profile would; a None is not given."""
    return {"until": until, "until_metric": until_metric, "cooldown_s": cooldown, "isolation": isolation}


def target_of(
    *,
    api: str | None,
    model: str | None,
    path: str | None,
    api_key_env: str | None,
    tokenizer: str | None,
    ca_file: str | None,
    insecure: bool,
    option: list[str] | None,
    header: list[str] | None,
) -> dict[str, Any]:
    """Return what the options say of a target, as a profile would; a None is not given."""
    return {
        "api": api,
        "model": model,
        "path": path,
        "api_key_env": api_key_env,
        "tokenizer": tokenizer,
        "ca_file": ca_file,
        "verify_tls": False if insecure else None,
        "options": pairs("--option", option) or None,
        "headers": headers(header) or None,
    }

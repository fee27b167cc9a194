"""`loadgen calibrate`: how wrong this instrument is, here, at the load asked for."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from loadgen.cli.exits import Exit, Stop

__all__ = ["calibrate"]


def calibrate(
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Streams at once.")] = 100,
    gap_ms: Annotated[float, typer.Option("--gap-ms", min=0.1, help="Time between the tokens of a stream.")] = 20.0,
    output_tokens: Annotated[int, typer.Option("--output-tokens", min=2, help="Tokens a stream.")] = 100,
    tier: Annotated[
        list[str] | None, typer.Option("--tier", help="kernel, callback or aiohttp; repeat for several.")
    ] = None,
    loop: Annotated[str, typer.Option("--loop", help="auto, uvloop or asyncio.")] = "auto",
    highest: Annotated[
        bool, typer.Option("--highest/--no-highest", help="Also look for the highest rate held.")
    ] = True,
    json_: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> int:
    """Replay a known schedule from the emulator; print and keep the stamp errors of each tier on this host."""
    import msgspec

    from loadgen.probes import calibrate as measuring
    from loadgen.transport.tier import choose_tier

    best, why = choose_tier("auto", None)
    tiers = tier or ["kernel", "callback", "aiohttp"][0 if best == "kernel" else 1 :]
    unknown = [name for name in tiers if name not in ("kernel", "callback", "aiohttp")]
    if unknown or ("kernel" in tiers and best != "kernel"):
        raise Stop(
            Exit.USAGE, f"--tier {unknown[0]}: use kernel, callback or aiohttp" if unknown else f"--tier kernel: {why}"
        )
    found = []
    for name in tiers:
        if not quiet:
            print(f"calibrating the {name} tier: {concurrency} streams, a token each {gap_ms:g} ms", file=sys.stderr)
        result = measuring.replay(name, loop, streams=concurrency, tokens=output_tokens, gap_s=gap_ms / 1e3)
        top = measuring.highest_rate(name, loop) if highest else None
        found.append(measuring.calibration(name, concurrency, gap_ms / 1e3, result, top))
    kept_in = measuring.store(found)
    if json_:
        typer.echo(json.dumps([msgspec.to_builtins(one) for one in found], indent=1))
        return Exit.OK
    typer.echo(f"{'tier':9} {'TTFT error µs':>20} {'event gap error µs':>20} {'censored':>9} {'highest rate':>16}")
    for one in found:
        ttft = f"{one.ttft_bias_us:.1f} ± {one.ttft_halfwidth_us:.1f}"
        gap = f"{one.gap_bias_us:.1f} ± {one.gap_halfwidth_us:.1f}"
        rate = (
            "not looked for"
            if not highest
            else "none"
            if one.highest_tokens_per_s is None
            else f"{one.highest_tokens_per_s:,.0f} tok/s"
        )
        typer.echo(f"{one.tier:9} {ttft:>20} {gap:>20} {one.censored_share:>9.2%} {rate:>16}")
    events = found[0].events
    typer.echo(f"bias ± half the central 95 % of {events:,} errors a tier; highest rate with under 1 % censored tokens")
    typer.echo(f"kept in {kept_in}; later runs on this host quote it")
    return Exit.OK

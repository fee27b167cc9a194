"""`loadgen calibrate`: how wrong this instrument is, here, at the load asked for."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.cli.exits import Exit
from loadgen.cli.measuring import faults_as_exits

if TYPE_CHECKING:
    from loadgen.manifest import Calibration

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

    from loadgen.probes import calibrate as probe

    with faults_as_exits():
        tiers = probe.choose_tiers(tier)
    calibrations = []
    for name in tiers:
        if not quiet:
            print(f"calibrating the {name} tier: {concurrency} streams, a token each {gap_ms:g} ms", file=sys.stderr)
        calibrations.append(
            probe.calibrate(name, loop, streams=concurrency, tokens=output_tokens, gap_s=gap_ms / 1e3, highest=highest)
        )
    place = probe.store(calibrations)
    if json_:
        typer.echo(json.dumps([msgspec.to_builtins(calibration) for calibration in calibrations], indent=1))
        return Exit.OK
    typer.echo(f"{'tier':9} {'TTFT error µs':>20} {'event gap error µs':>20} {'censored':>9} {'highest rate':>16}")
    for calibration in calibrations:
        typer.echo(_row(calibration, "none" if highest else "not looked for"))
    events = calibrations[0].events
    typer.echo(f"bias ± half the central 95 % of {events:,} errors a tier; highest rate with under 1 % censored tokens")
    typer.echo(f"kept in {place}; later runs on this host quote it")
    return Exit.OK


def _row(calibration: Calibration, without: str) -> str:
    """A line of the table. without: says why there is no highest rate."""
    ttft = f"{calibration.ttft_bias_us:.1f} ± {calibration.ttft_halfwidth_us:.1f}"
    gap = f"{calibration.gap_bias_us:.1f} ± {calibration.gap_halfwidth_us:.1f}"
    highest = calibration.highest_tokens_per_s
    rate = without if highest is None else f"{highest:,.0f} tok/s"
    return f"{calibration.tier:9} {ttft:>20} {gap:>20} {calibration.censored_share:>9.2%} {rate:>16}"

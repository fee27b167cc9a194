"""How wrong this instrument is on this host: replay a known schedule and compare each stamp with the emulator's truth.

The emulator stamps a request's arrival with the kernel's clock and each token just before it sends it; both processes
share the monotonic clock. For an error e of a quantity, bias is the median of e and half-width half the central 95 %
of it (docs/methodology.md#instrument-error). Nothing is ever subtracted from a result; later runs on the same host
quote the figures.
"""

from __future__ import annotations

import asyncio
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq

from loadgen import latency
from loadgen.clock import clock_source, now_ns, wall_iso
from loadgen.emulator import Law, Truth, spawn
from loadgen.engine.eventloop import loop_factory
from loadgen.engine.health import Health
from loadgen.engine.plan import Plan
from loadgen.engine.share import Share, ShareRun
from loadgen.engine.tally import Tally
from loadgen.errors import UsageError
from loadgen.manifest import Calibration
from loadgen.profile import Work
from loadgen.record import Int64, Outcome
from loadgen.servers.endpoint import Endpoint
from loadgen.store.journal import segments
from loadgen.transport import Limits
from loadgen.transport.room import make_room_for_sockets
from loadgen.transport.tier import choose_tier
from loadgen.wire import Target
from loadgen.workload import open_workload

__all__ = ["Errors", "Replay", "calibrate", "choose_tiers", "compare", "replay", "store", "stored"]

TIERS = ("kernel", "callback", "aiohttp")  # the most exact first

MOST_CENSORED = 0.01
MICROSECOND_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter")  # docs/methodology.md#the-clock
LADDER = (125, 250, 500, 1000, 2000, 4000, 8000)


@dataclass(frozen=True, slots=True)
class Errors:
    """Stamp minus truth, ns. Token arrays are pooled over requests; shapes (tokens,), (requests,), (gaps,)."""

    stamp_ns: Int64
    ttft_ns: Int64
    gap_ns: Int64
    true_ttft_ns: Int64
    requests: int  # that ended ok and whose truth is known
    lost: int  # records that are not ok, or that the emulator knows nothing of
    tokens: int
    censored: int  # tokens followed by another in the same read

    @property
    def censored_share(self) -> float:
        return self.censored / max(self.tokens, 1)


@dataclass(frozen=True, slots=True)
class Replay:
    """One replayed schedule."""

    errors: Errors
    health: Health
    seconds: float
    cpu_s: float


def choose_tiers(asked: Sequence[str] | None) -> Sequence[str]:
    """The tiers to calibrate: those asked for, or all that there are on this host. Raises UsageError."""
    best, why = choose_tier("auto", None)
    tiers = asked or TIERS[TIERS.index(best) if best == "kernel" else 1 :]
    for tier in tiers:
        if tier not in TIERS:
            raise UsageError(f"--tier {tier}: use kernel, callback or aiohttp")
    if "kernel" in tiers and best != "kernel":
        raise UsageError(f"--tier kernel: {why}")
    return tiers


def calibrate(tier: str, loop: str, *, streams: int, tokens: int, gap_s: float, highest: bool) -> Calibration:
    """The errors of a tier at a load, and with `highest` the highest rate that it holds. Blocks for seconds.

    Raises ValueError if nothing was answered.
    """
    replayed = replay(tier, loop, streams=streams, tokens=tokens, gap_s=gap_s)
    return calibration(tier, streams, gap_s, replayed, highest_rate(tier, loop) if highest else None)


def replay(tier: str, loop: str, *, streams: int, tokens: int, gap_s: float, ttft_s: float = 0.05) -> Replay:
    """Start an emulator and `streams` requests at one instant; return every error. Blocks for the length of it."""
    make_room_for_sockets(streams)
    with tempfile.TemporaryDirectory(prefix="loadgen-calibrate-") as folder:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        with spawn(Law(ttft_s=ttft_s, gap_s=gap_s), cpu=cores[0] if len(cores) > 1 else None) as emulator:
            target = Target("openai", "vllm", "emulated", "/v1/chat/completions")
            share = Share(
                plan=Plan(run=0, zero_ns=now_ns(), seqs=range(streams), steps=[(0, streams)]),
                endpoints=(Endpoint("emulator", emulator.url, target),),
                deal=(0,),
                limits=Limits(),
                tier=tier,
                journal=Path(folder) / "journal",
            )
            work = Work.model_validate({"prompt_tokens": 16, "output_tokens": tokens})
            with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
                began = os.times()
                health = runner.run(_run(share, work))
                ended = os.times()
            truth = emulator.truth()
        errors = compare(share.journal, share.plan.zero_ns, truth)
    cpu_s = ended.user - began.user + ended.system - began.system
    return Replay(errors, health, ended.elapsed - began.elapsed, cpu_s)


async def _run(share: Share, work: Work) -> Health:
    return await ShareRun(share, open_workload(work, seed=1), Tally()).run()


def compare(journal: Path, zero_ns: int, truth: dict[str, Truth]) -> Errors:
    """Match the records in a journal (or of a directory's records.parquet) to the emulator's truth by request id."""
    paths = [journal] if journal.is_file() else segments(journal)
    stamp: list[Int64] = []
    ttft: list[int] = []
    gap: list[Int64] = []
    true_ttft: list[int] = []
    lost = tokens = censored = 0
    columns = ["run", "seq", "outcome", "sent_ns", "event_ns", "event_kind", "event_read"]
    for path in paths:
        for row in pq.read_table(path, columns=columns).to_pylist():
            known = truth.get(f"{row['run']}-{row['seq']}")
            bearing = latency.bears_token(np.array(row["event_kind"], np.uint8))
            if known is None or row["outcome"] != Outcome.OK or len(known.token_ns) != bearing.sum():
                lost += 1
                continue
            stamps = np.array(row["event_ns"], np.int64)[bearing] + zero_ns
            true = np.array(known.token_ns, np.int64)
            reads = np.array(row["event_read"], np.int64)[bearing]
            stamp.append(stamps - true)
            gap.append(latency.gaps(stamps) - latency.gaps(true))
            true_ttft.append(int(true[0]) - known.arrived_ns)
            ttft.append(latency.ttft_service(row["sent_ns"], int(stamps[0]) - zero_ns) - true_ttft[-1])
            tokens += len(stamps)
            censored += int((np.diff(reads) == 0).sum())
    empty = np.empty(0, np.int64)
    return Errors(
        stamp_ns=np.concatenate(stamp) if stamp else empty,
        ttft_ns=np.array(ttft, np.int64),
        gap_ns=np.concatenate(gap) if gap else empty,
        true_ttft_ns=np.array(true_ttft, np.int64),
        requests=len(ttft),
        lost=lost,
        tokens=tokens,
        censored=censored,
    )


def calibration(tier: str, streams: int, gap_s: float, replayed: Replay, highest: float | None) -> Calibration:
    """Reduce a replay to what is kept. Raises ValueError if nothing was answered."""
    errors = replayed.errors
    if not len(errors.stamp_ns):
        raise ValueError(f"{tier}: no request was answered")
    ttft_bias, ttft_half = bias_and_halfwidth_us(errors.ttft_ns)
    gap_bias, gap_half = bias_and_halfwidth_us(errors.gap_ns)
    return Calibration(
        tier=tier,
        streams=streams,
        tokens_per_s=streams / gap_s,
        events=len(errors.stamp_ns),
        ttft_bias_us=ttft_bias,
        ttft_halfwidth_us=ttft_half,
        gap_bias_us=gap_bias,
        gap_halfwidth_us=gap_half,
        stamp_p99_us=float(np.quantile(np.abs(errors.stamp_ns), 0.99)) / 1e3,
        censored_share=errors.censored_share,
        highest_tokens_per_s=highest,
        wall=wall_iso(),
    )


def bias_and_halfwidth_us(errors_ns: Int64) -> tuple[float, float]:
    """(median, half the central 95 % range) in µs; zeros without errors."""
    if not len(errors_ns):
        return 0.0, 0.0
    low, median, high = np.quantile(errors_ns, (0.025, 0.5, 0.975))
    return round(float(median) / 1e3, 2), round(float(high - low) / 2e3, 2)


def highest_rate(tier: str, loop: str, *, gap_s: float = 0.02, ladder: Sequence[int] = LADDER) -> float | None:
    """Climb the ladder of streams; return the highest tokens/s held with under 1 % censored and nothing lost."""
    held = None
    for streams in ladder:
        result = replay(tier, loop, streams=streams, tokens=round(2.0 / gap_s), gap_s=gap_s)
        if result.errors.lost or result.errors.censored_share >= MOST_CENSORED:
            break
        held = streams / gap_s
    return held


def _path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "loadgen" / "calibration.json"


def _host_key() -> str:
    """What the errors depend on; a change of any of it makes a calibration stale."""
    return "|".join((platform.release(), platform.python_version(), str(os.cpu_count()), platform.machine()))


def store(calibrations: Sequence[Calibration]) -> Path:
    """Keep calibrations for this host, replacing those of the same tier; return the file. Raises OSError."""
    path, key = _path(), _host_key()
    known = _read(path)
    tiers = known.setdefault(key, {})
    tiers.update({str(made.tier): msgspec.Raw(msgspec.json.encode(made)) for made in calibrations})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(known), indent=1) + b"\n")
    return path


def stored(tier: str) -> Calibration | None:
    """The calibration of `tier` on this host as it is now; None if it was never calibrated.

    None also where the clock is too coarse for a claim of microseconds.
    """
    if clock_source() not in MICROSECOND_CLOCKS:
        return None
    kept = _read(_path()).get(_host_key(), {}).get(tier)
    try:
        return None if kept is None else msgspec.json.decode(kept, type=Calibration)
    except msgspec.ValidationError:  # of another version
        return None


def _read(path: Path) -> dict[str, dict[str, msgspec.Raw]]:
    """The JSON of each calibration, by host and tier; empty where the file is missing or of another kind."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, msgspec.Raw]])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}

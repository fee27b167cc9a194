"""One client process of the speed bench: ours or the plain aiohttp reader, against a URL; prints one JSON line.

Both sides count CPU from the first request to the last thing they do with an answer: for ours that is the closed
records.parquet, for the rival the last decoded event. Importing is counted for neither.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import aiohttp
import numpy as np

from loadgen.clock import now_ns
from loadgen.emulator import read_truth
from loadgen.engine.eventloop import loop_factory
from loadgen.engine.plan import Plan
from loadgen.engine.share import Share, ShareRun
from loadgen.engine.tally import Tally
from loadgen.exporter import Exporter, serve
from loadgen.probes.calibrate import compare
from loadgen.profile import Work
from loadgen.servers.endpoint import Endpoint
from loadgen.store.journal import close_segments
from loadgen.transport import Limits
from loadgen.transport.room import make_room_for_sockets
from loadgen.wire import Target
from loadgen.workload import open_workload

PATH = "/v1/chat/completions"


def ours(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Run the engine as `loadgen run` does, without the report."""
    share = Share(
        plan=Plan(run=0, zero_ns=now_ns(), seqs=range(options.requests), steps=[(0, options.streams)]),
        endpoints=(Endpoint("emulator", options.url, Target("openai", "vllm", "emulated", PATH)),),
        deal=(0,),
        limits=Limits(),
        tier=options.tier,
        journal=folder / "journal",
    )
    workload = open_workload(Work.model_validate({"prompt_tokens": 16, "output_tokens": options.tokens}), seed=1)
    rss_at = {}

    exporter = Exporter()
    server = None if options.metrics_port is None else serve(exporter, options.metrics_port)

    async def run() -> object:
        share_run = ShareRun(share, workload, Tally())

        async def watch() -> None:
            while True:
                await asyncio.sleep(0.1)
                tally = share_run.look()
                if server is not None:
                    exporter.show(Tally().plus(tally))  # as a campaign does
                if sum(tally.total().outcomes.values()) >= options.requests // 5:
                    rss_at.setdefault("fifth", rss_mib())

        watching = asyncio.create_task(watch())
        health = await share_run.run()
        watching.cancel()
        return health

    with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
        began = os.times()
        runner.run(run())
        rss_at["run"] = rss_mib()
        close_segments(share.journal, folder / "records.parquet")
        ended = os.times()
    rss_at["end"] = rss_mib()
    if server is not None:
        server.shutdown()
    size = (folder / "records.parquet").stat().st_size
    facts: dict[str, object] = {**spent(began, ended), "bytes": size, "rss_mib": rss_at}
    if options.truth:
        time.sleep(1.0)  # the emulator writes its log when it has nothing else to do
        errors = compare(folder / "records.parquet", share.plan.zero_ns, read_truth(options.truth))
        facts |= {
            "tokens": errors.tokens,
            "lost": errors.lost,
            "requests": errors.requests,
            "censored_share": errors.censored_share,
            "stamp_error_us": dict(
                zip(("p50", "p99", "max"), quantiles_us(np.abs(errors.stamp_ns), (0.5, 0.99, 1.0)), strict=True)
            ),
            "ttft_true_ms": float(np.mean(errors.true_ttft_ns)) / 1e6,
            "ttft_measured_ms": float(np.mean(errors.true_ttft_ns + errors.ttft_ns)) / 1e6,
        }
    return facts


def rival(options: argparse.Namespace) -> dict[str, object]:
    """The plain reader that most clients are: chunks as they come, events cut out, JSON decoded for each."""
    body = {
        "model": "emulated",
        "max_tokens": options.tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "word " * 16}],
    }
    arrivals: list[list[float]] = []

    async def one(session: aiohttp.ClientSession) -> None:
        stamps: list[float] = []
        rest = b""
        async with session.post(options.url + PATH, json=body) as response:
            async for chunk in response.content.iter_any():
                present = time.perf_counter()
                *events, rest = (rest + chunk).split(b"\n\n")
                for event in events:
                    data = event.removeprefix(b"data: ")
                    if data == b"[DONE]":
                        continue
                    choices = json.loads(data)["choices"]
                    if choices and choices[0]["delta"].get("content"):
                        stamps.append(present)
        arrivals.append(stamps)

    async def run() -> None:
        remaining = iter(range(options.requests))

        async def worker(session: aiohttp.ClientSession) -> None:
            for _ in remaining:
                await one(session)

        connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*(worker(session) for _ in range(options.streams)))

    with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
        began = os.times()
        runner.run(run())
        ended = os.times()
    return {**spent(began, ended), "tokens": sum(map(len, arrivals)), "requests": len(arrivals)}


def spent(began: os.times_result, ended: os.times_result) -> dict[str, object]:
    user, system = ended.user - began.user, ended.system - began.system
    return {"cpu_s": user + system, "user_s": user, "system_s": system, "wall_s": ended.elapsed - began.elapsed}


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def quantiles_us(values: np.ndarray, qs: tuple[float, ...]) -> list[float]:
    return [float(q) / 1e3 for q in np.quantile(values, qs)] if len(values) else [float("nan")] * len(qs)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("who", choices=("ours", "rival"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--metrics-port", type=int, help="serve /metrics meanwhile")
    parser.add_argument("--tier", default="kernel")
    parser.add_argument("--loop", default="auto")
    parser.add_argument("--cpu", type=int)
    options = parser.parse_args()
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    make_room_for_sockets(options.streams)
    with tempfile.TemporaryDirectory(prefix="loadgen-bench-") as folder:
        facts = ours(options, Path(folder)) if options.who == "ours" else rival(options)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**facts, "peak_mib": peak_mib}))


if __name__ == "__main__":
    main()

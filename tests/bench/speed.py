"""The speed bench: `python -m tests.bench.speed` prints the table and appends it to RESULTS.md.

Each row is one comparison made in one run: the emulator pinned to one core, the client to another, ours and the plain
aiohttp reader (clients.py) one after the other, in fresh processes. Rows of CPU and rates are ratios; errors are
against the emulator's own truth. Nothing here asserts: the table says of each line whether it held.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadgen.emulator import Law, spawn

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "RESULTS.md"
SERVER_CPU, CLIENT_CPU = 0, 1
GAP_S = 0.02
TTFT_S = 0.05


@dataclass(frozen=True)
class Row:
    what: str
    measured: str
    wanted: str
    held: bool | None  # None: reported only


def measure(
    who: str, law: Law, *, streams: int, requests: int, tokens: int, truth: bool = False, more: Sequence[str] = ()
) -> dict[str, Any]:
    """Run one client against a fresh emulator; return what it printed."""
    with spawn(law, cpu=SERVER_CPU) as emulator:
        extra = [*more, *(["--truth", str(emulator.truth_path)] if truth else [])]
        return client(who, emulator.url, streams, requests, tokens, *extra)


def client(who: str, url: str, streams: int, requests: int, tokens: int, *extra: str) -> dict[str, Any]:
    words = [sys.executable, "-m", "tests.bench.clients", who, "--url", url, "--cpu", str(CLIENT_CPU), *extra]
    words += ["--streams", str(streams), "--requests", str(requests), "--tokens", str(tokens)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{who} with {streams} streams failed:\n{done.stderr[-3000:]}")
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def floor(*words: str) -> dict[str, float]:
    """Run a bare loop (floor.py): what this host's kernel asks of any client."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.floor", *words], capture_output=True, text=True, check=True, cwd=ROOT
    )
    facts: dict[str, float] = json.loads(done.stdout)
    return facts


@contextlib.contextmanager
def canned() -> Iterator[str]:
    """A peer that is never the bottleneck (canned.py)."""
    words = [sys.executable, "-m", "tests.bench.canned", str(SERVER_CPU)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as peer:
        assert peer.stdout is not None
        yield f"http://127.0.0.1:{int(peer.stdout.readline())}"
        peer.communicate()


def streams_1000(repeats: int) -> list[Row]:
    law = Law(ttft_s=TTFT_S, gap_s=GAP_S)
    ratios, last = [], {}
    for _ in range(repeats):
        last = measure("ours", law, streams=1000, requests=1000, tokens=250, truth=True)
        plain = measure("rival", law, streams=1000, requests=1000, tokens=250)
        last["us"], last["rival_us"] = (one["cpu_s"] / 250_000 * 1e6 for one in (last, plain))
        ratios.append(last["us"] / last["rival_us"])
    bare = floor("stream", "--streams", "1000")
    bare_us = bare["user_us"] + bare["system_us"]
    ratio, p99 = statistics.median(ratios), last["stamp_error_us"]["p99"]
    size = last["bytes"] / 250_000
    return [
        Row(
            "1,000 streams × 50 tokens/s: CPU a token",
            f"{last['us']:.1f} µs, {ratio:.2f} of aiohttp's {last['rival_us']:.1f} µs ({_spread(ratios)})",
            "≤ 0.4",
            ratio <= 0.4,
        ),
        Row(
            "… of a bare epoll and recvmsg loop",
            f"{bare_us:.1f} µs ({bare['system_us']:.1f} in the kernel, {bare['tokens_a_read']:.2f} tokens a read), "
            f"{bare_us / last['rival_us']:.2f} of aiohttp's",
            "the floor here",
            None,
        ),
        Row("… stamp error p99", f"{p99:.1f} µs", "≤ 50 µs", p99 <= 50),
        Row("… censored share", f"{last['censored_share']:.2%}", "< 1 %", last["censored_share"] < 0.01),
        Row("… requests lost", str(last["lost"]), "0", last["lost"] == 0),
        Row("… records.parquet, bytes a token", f"{size:.2f}", "≤ 6", size <= 6),
    ]


def streams_2500(repeats: int) -> list[Row]:
    facts = measure("ours", Law(ttft_s=TTFT_S, gap_s=GAP_S), streams=2500, requests=2500, tokens=250, truth=True)
    ideal_s = TTFT_S + 249 * GAP_S
    bare = floor("stream", "--streams", "2500")
    p50 = facts["stamp_error_us"]["p50"]
    return [
        Row(
            "2,500 streams × 50 tokens/s: time for 250 tokens",
            f"{facts['wall_s']:.2f} s, the emulator's law {ideal_s:.2f} s",
            "keeps up (< 1.1 ×)",
            facts["wall_s"] < 1.1 * ideal_s + 1.0,
        ),
        Row(
            "… sends/s of a core that does nothing else",
            f"{bare['sends_per_s']:,.0f} of 125,000",
            "the floor here",
            None,
        ),
        Row("… stamp error p50", f"{p50:.1f} µs", "≤ 10 µs", p50 <= 10),
        Row("… censored share", f"{facts['censored_share']:.2%}", "reported", None),
    ]


def burst(streams: int) -> list[Row]:
    facts = measure("ours", Law(ttft_s=TTFT_S, gap_s=GAP_S), streams=streams, requests=streams, tokens=50, truth=True)
    off = facts["ttft_measured_ms"] / facts["ttft_true_ms"] - 1
    return [
        Row(
            f"{streams:,} streams at one instant: mean ttft_service",
            f"{facts['ttft_measured_ms']:.2f} ms, truth {facts['ttft_true_ms']:.2f} ms ({off:+.2%})",
            "within 3 %",
            abs(off) <= 0.03,
        )
    ]


def streams_10000(repeats: int) -> list[Row]:
    facts = measure("ours", Law(ttft_s=TTFT_S, gap_s=0.5), streams=10_000, requests=10_000, tokens=20, truth=True)
    gib = facts["peak_mib"] / 1024
    return [
        Row("10,000 streams × 2 tokens/s: requests lost", str(facts["lost"]), "0", facts["lost"] == 0),
        Row("… peak memory", f"{gib:.2f} GiB", "< 1.5 GiB", gib < 1.5),
    ]


def short(repeats: int) -> list[Row]:
    ratios, ours, plain, bare = [], 0.0, 0.0, {}
    for _ in range(repeats):
        with canned() as url:
            bare = floor("ask", "--streams", "64", "--port", url.rpartition(":")[2])
            ours = 40_000 / client("ours", url, 64, 40_000, 1)["wall_s"]
            plain = 10_000 / client("rival", url, 64, 10_000, 1)["wall_s"]
        ratios.append(ours / plain)
    ratio = statistics.median(ratios)
    return [
        Row(
            "one-token requests on kept connections",
            f"{ours:,.0f} /s, {ratio:.1f} × aiohttp's {plain:,.0f} /s ({_spread(ratios)})",
            "≥ 4 ×",
            ratio >= 4,
        ),
        Row(
            "… of a bare send and recvmsg loop",
            f"{1e6 / bare['wall_us']:,.0f} /s, {1e6 / bare['wall_us'] / plain:.1f} × aiohttp's",
            "the floor here",
            None,
        ),
    ]


def flood(repeats: int) -> list[Row]:
    law = Law(ttft_s=0.0, gap_s=0.0)
    ratios, ours, plain = [], 0.0, 0.0
    for _ in range(repeats):
        one, other = (measure(who, law, streams=8, requests=32, tokens=20_000) for who in ("ours", "rival"))
        ours, plain = 640_000 / one["cpu_s"], 640_000 / other["cpu_s"]
        ratios.append(ours / plain)
    ratio = statistics.median(ratios)
    return [
        Row(
            "flood: events per second of client CPU",
            f"{ours:,.0f} /s, {ratio:.1f} × aiohttp's {plain:,.0f} /s ({_spread(ratios)})",
            "≥ 3 ×",
            ratio >= 3,
        )
    ]


def many(requests: int) -> list[Row]:
    facts = measure("ours", Law(ttft_s=0.0, gap_s=0.0), streams=64, requests=requests, tokens=100)
    early, end, closed = (facts["rss_mib"][when] for when in ("fifth", "run", "end"))
    return [
        Row(
            f"{requests:,} requests of 100 tokens: memory after a fifth and at the end of the run",
            f"{early:.0f} MiB, {end:.0f} MiB ({closed:.0f} MiB once records.parquet is written)",
            "does not grow (< 1.25 ×)",
            end < 1.25 * early,
        )
    ]


def exporter(repeats: int) -> list[Row]:
    """What it costs to be scraped at 50,000 tokens/s: the client's CPU and its stamps, on against off.

    Scraped twenty times a second, because the cost of one scrape per second drowns in the noise of the whole.
    """
    law = Law(ttft_s=TTFT_S, gap_s=GAP_S)
    costs, errors = [], {True: 0.0, False: 0.0}
    for _ in range(repeats):
        spent = {}
        for on in (False, True):
            with scraped() if on else contextlib.nullcontext(([], [])) as (words, pages):
                facts = measure("ours", law, streams=1000, requests=1000, tokens=250, truth=True, more=words)
            spent[on], errors[on] = facts["cpu_s"], facts["stamp_error_us"]["p99"]
        a_scrape_s = (spent[True] - spent[False]) / len(pages)
        costs.append(a_scrape_s * facts["wall_s"] / spent[False])
    cost = statistics.median(costs)
    return [
        Row(
            "/metrics scraped at 50,000 tokens/s: share of the client's CPU for one scrape a second",
            f"{cost:+.2%} ({min(costs):+.2%} to {max(costs):+.2%} over {repeats})",
            "< 1 %",
            cost < 0.01,
        ),
        Row(
            "… stamp error p99, off and at 20 scrapes/s",
            f"{errors[False]:.1f} µs, {errors[True]:.1f} µs",
            "≤ 50 µs",
            errors[True] <= 50,
        ),
    ]


@contextlib.contextmanager
def scraped() -> Iterator[tuple[list[str], list[bytes]]]:
    """Scrape a client twenty times a second; yield the words that make it serve /metrics, and the pages so far."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    pages: list[bytes] = []
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(0.05):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
                pages.append(page.read())

    scraping = threading.Thread(target=scrape)
    scraping.start()
    try:
        yield ["--metrics-port", str(port)], pages
    finally:
        over.set()
        scraping.join()


def help_time(repeats: int) -> list[Row]:
    times = []
    for _ in range(7):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "loadgen", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    median = statistics.median(times)
    return [Row("loadgen --help", f"{median:.2f} s (median of 7)", "≤ 0.4 s", median <= 0.4)]


CASES: dict[str, Callable[[int], list[Row]]] = {
    "1000": streams_1000,
    "2500": streams_2500,
    "burst": lambda _: burst(500) + burst(1000),
    "10000": streams_10000,
    "short": short,
    "flood": flood,
    "exporter": exporter,
    "memory": lambda _: many(100_000),
    "million": lambda _: many(1_000_000),
    "help": help_time,
}
UNASKED = {"million"}  # takes ten minutes


def _spread(ratios: list[float]) -> str:
    return f"{min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)}"


def host() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return f"{model}, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="default: all but million")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="append the table to RESULTS.md")
    options = parser.parse_args()
    lines = ["| measured | result | wanted | held |", "|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    for name in options.cases or [name for name in CASES if name not in UNASKED]:
        for row in CASES[name](options.repeats):
            held = "–" if row.held is None else "yes" if row.held else "**no**"
            lines.append(f"| {row.what} | {row.measured} | {row.wanted} | {held} |")
            print(lines[-1], flush=True)
    if options.keep:
        title = f"## {time.strftime('%Y-%m-%d')} · {host()}"
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write("\n".join(["", title, "", *lines, ""]))


if __name__ == "__main__":
    main()

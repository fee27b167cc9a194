"""An endpoint's place, and what is ours and not the server's."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.clock import now_ns
from loadgen.emulator import Law, spawn
from loadgen.engine.plan import Plan
from loadgen.engine.share import Share, ShareRun
from loadgen.engine.tally import Tally
from loadgen.profile import TargetSpec, Work
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.resolve import resolve
from loadgen.transport import Limits
from loadgen.wire import Target
from loadgen.workload import open_workload

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("url", "query", "path", "asked"),
    [
        ("http://a", "", CHAT, CHAT),
        ("http://a/gateway/", "", CHAT, f"/gateway{CHAT}"),
        ("http://a/gateway", "api-version=1&tenant=b", CHAT, f"/gateway{CHAT}?api-version=1&tenant=b"),
        ("http://a", "tenant=b", f"{CHAT}?beta=1", f"{CHAT}?beta=1&tenant=b"),
    ],
)
def test_a_query_goes_with_every_request(url: str, query: str, path: str, asked: str) -> None:
    assert Endpoint("a", url, Target("openai", "openai", "m", path), query=query).path() == asked


def test_the_query_of_a_url_is_kept() -> None:
    with spawn(Law()) as emulator:
        endpoint = asyncio.run(resolve(TargetSpec.model_validate({"url": f"{emulator.url}/v1?api-version=1"})))
    assert (endpoint.url, endpoint.path()) == (emulator.url, f"{CHAT}?api-version=1")


def test_a_limit_of_ours_ends_the_run_and_is_no_refusal(tmp_path: Path) -> None:
    async def main(url: str, requests: int) -> None:
        share = Share(
            plan=Plan(run=0, zero_ns=now_ns(), seqs=range(requests), steps=[(0, requests)]),
            endpoints=(Endpoint("a", url, Target("openai", "vllm", "emulated", CHAT)),),
            deal=(0,),
            limits=Limits(),
            tier="callback",
            journal=tmp_path / "journal",
        )
        running = ShareRun(
            share, open_workload(Work.model_validate({"prompt_tokens": 8, "output_tokens": 2}), 1), Tally()
        )
        await running.run()

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with spawn(Law()) as emulator:
        asyncio.run(main(emulator.url, 1))  # what is imported late needs files too
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        try:
            with pytest.raises(OSError, match="no further connection can be opened here: too many open files"):
                asyncio.run(main(emulator.url, 200))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("wanted", [3000, 0])  # 0: an open loop without a cap
def test_the_table_of_open_files_has_its_size_before_the_run(wanted: int) -> None:
    told = "next(line for line in open('/proc/self/status') if line.startswith('FDSize')).split()[1]"
    room = "from loadgen.transport.room import make_room_for_sockets as room"
    code = f"{room}; print({told}); room({wanted}); print({told})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < 3000 <= after

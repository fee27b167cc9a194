"""`loadgen slots` against a real llama.cpp: what it was started with is the truth."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

LIMIT_S = 170  # of one command; a hung one must not hang the tests


def probed(url: str, *arguments: str) -> dict[str, Any]:
    words = [sys.executable, "-m", "loadgen", "slots", "--url", url, "--json", "--quiet", *arguments]
    ended = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert ended.returncode == 0, ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


@pytest.mark.parametrize("slots", [1, 4])
def test_slots_of_llama_server_are_found_and_it_says_the_same(real_server: Callable[..., str], slots: int) -> None:
    result = probed(real_server("llama-server", slots=slots), "--output-tokens", "96", "--most", "8")
    assert (result["verdict"], result["slots"]["value"]) == ("found", slots)
    assert (result["slots"]["low"], result["slots"]["high"]) == (slots, slots)
    assert result["told"] == {"slots": slots, "from": "/props total_slots", "verdict": "agrees"}


def test_prefix_cache_of_llama_server_is_found_and_it_tells_of_it(real_server: Callable[..., str]) -> None:
    result = probed(real_server("llama-server", slots=1), "--output-tokens", "96", "--most", "2", "--cache")
    assert result["cache"]["verdict"] == "polluted"
    assert result["cache"]["ratio"]["high"] < 0.5
    assert "of a repeat cached" in result["cache"]["told"]


def test_server_of_one_request_at_a_time_has_one_slot(llamacpp_python_url: str) -> None:
    result = probed(llamacpp_python_url, "--output-tokens", "96", "--most", "4")
    assert (result["verdict"], result["slots"]["value"]) == ("found", 1)


def test_vllm_takes_all_and_gets_a_lower_bound(vllm_url: str) -> None:
    result = probed(vllm_url, "--output-tokens", "64", "--most", "8", "--rounds", "3")
    assert (result["verdict"], result["slots"]["value"], result["slots"]["low"]) == ("at-least", None, 8)
    assert result["told"] is None

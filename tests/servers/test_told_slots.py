"""How many slots a server says it has: shapes of its answers, and what is none."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from loadgen.servers.reply import Reply
from loadgen.servers.told_slots import slots_told


def answer(body: Any, status: int = 200) -> Reply:
    return Reply(status, "application/json", body if isinstance(body, bytes) else orjson.dumps(body))


def lmstudio(*configs: Any) -> Any:
    return {
        "models": [
            {"key": "tiny", "loaded_instances": [{"id": f"tiny:{n}", "config": c} for n, c in enumerate(configs)]}
        ]
    }


def test_llamacpp_says_it_twice_and_props_comes_first() -> None:
    props, slots = answer({"total_slots": 4}), answer([{"id": 0}, {"id": 1}])
    assert slots_told("llamacpp", "tiny", {"/props": props, "/slots": slots}) == (4, "/props total_slots")
    assert slots_told("llamacpp", "tiny", {"/slots": slots}) == (2, "/slots")
    # --no-slots
    assert slots_told("llamacpp", "tiny", {"/props": answer(b"", 404), "/slots": answer({"error": {}}, 501)}) is None


@pytest.mark.parametrize("model", ["tiny", "tiny:0"])
def test_lm_studio_says_it_of_a_loaded_instance(model: str) -> None:
    told = slots_told("lmstudio", model, {"/api/v1/models": answer(lmstudio({"parallel": 4}))})
    assert told == (4, "/api/v1/models config.parallel")


@pytest.mark.parametrize(
    "body", [lmstudio(), lmstudio(None), lmstudio({"parallel": "4"}), [], {"models": [1]}, b"<html>"]
)
def test_what_is_no_number_of_slots_is_none(body: Any) -> None:
    assert slots_told("lmstudio", "tiny", {"/api/v1/models": answer(body)}) is None
    assert slots_told("llamacpp", "tiny", {"/props": answer(body)}) is None
    assert slots_told("ollama", "tiny", {"/props": answer({"total_slots": 4})}) is None

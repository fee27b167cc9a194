"""What a client sends; how answers become records is tested with the transports."""

from __future__ import annotations

import uuid

import pytest

from loadgen.engine.client import Client
from loadgen.transport import Answer
from loadgen.transport.connection import Exchange
from loadgen.wire import Ask, Target
from loadgen.wire.dialects import dialect


class Noting:
    """A transport that only notes the ids of what it is given."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.stopping = False

    async def exchange(self, request_id: str, body: bytes, last_token_read: object) -> Answer:
        self.ids.append(request_id)
        return Exchange(lambda response: -1)


async def ids_sent(kind: str, *request_ids: str) -> list[str]:
    target = Target("openai", kind, "tiny", "/v1/chat/completions")
    transport = Noting()
    client = Client("one", target, dialect(target.api, target.path), transport)  # type: ignore[arg-type]
    for request_id in request_ids:
        await client.send(Ask(prompt="a"), request_id)
    return transport.ids


@pytest.mark.parametrize("kind", ["vllm", "llamacpp", "openai"])
async def test_request_id_is_run_and_seq(kind: str) -> None:
    assert await ids_sent(kind, "0-17") == ["0-17"]


async def test_request_ids_for_llama_cpp_server_are_uuids_and_differ() -> None:
    given = [f"{run}-{seq}" for run in (0, 1, 12, 99_999_999) for seq in (0, 1, 12, 10**11)]
    sent = await ids_sent("llamacpp-python", *given)
    assert [str(uuid.UUID(one)) for one in sent] == sent
    assert len(set(sent)) == len(given)

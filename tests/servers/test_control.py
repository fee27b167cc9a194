"""Control calls over real sockets: what is sent with each, what is not followed, what cannot be had."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from loadgen.errors import NotCleared
from loadgen.servers.access import Access
from loadgen.servers.control import MAX_BODY_BYTES, Control, NoAnswer
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.isolation import clear
from loadgen.servers.tokenizer import token_counter
from loadgen.wire import Target

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server on the loopback that answers with a function; its URL."""
    runners = []

    async def start(handler: Handler) -> str:
        runner = web.ServerRunner(web.Server(handler))
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_every_call_carries_query_headers_and_key_but_no_header_about_other_bodies(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", "opensesame")
    asked: list[tuple[str, str]] = []
    headers: list[dict[str, str]] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append((request.method, request.path_qs))
        headers.append(dict(request.headers))
        return web.json_response({})

    access = Access({"X-Tenant": "b", "Accept": "text/event-stream"}, api_key_env="THE_KEY")
    async with Control(await serve(answer), "api-version=1", access) as control:
        await control.get("/a")
        await control.post("/b?x=2", {"c": 3})
    assert asked == [("GET", "/a?api-version=1"), ("POST", "/b?x=2&api-version=1")]
    for sent in headers:
        assert (sent["X-Tenant"], sent["Authorization"], sent["Accept"]) == ("b", "Bearer opensesame", "*/*")
    assert headers[1]["Content-Type"] == "application/json"


async def test_an_answer_in_pieces_is_read_to_its_end(serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "Application/JSON; charset=utf-8"})
        await response.prepare(request)
        for piece in (b"[1,", b"2", b",3]"):
            await response.write(piece)
        return response

    async with Control(await serve(answer)) as control:
        reply = await control.get("/")
    assert (reply.json(), reply.media_type) == ([1, 2, 3], "application/json")


async def test_an_answer_without_end_is_none(serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=bytes(MAX_BODY_BYTES + 1))

    async with Control(await serve(answer)) as control:
        with pytest.raises(NoAnswer, match=r"^more than 16 MiB$") as failed:
            await control.get("/")
    assert failed.value.lasting


async def test_a_redirect_is_an_answer_and_clears_nothing(serve: Serve) -> None:
    asked = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    url = await serve(answer)
    async with Control(url) as control:
        assert (await control.get("/here")).status == 307
    with pytest.raises(NotCleared, match=r"/reset_prefix_cache answered HTTP 307$"):
        await clear(Endpoint("a", url, Target("openai", "vllm", "m", "/v1/chat/completions")))
    assert asked == ["/here", "/reset_prefix_cache"]


@pytest.mark.parametrize("body", ["{}", "[]", "no JSON", '{"tokens": 5}'])
async def test_an_answer_that_lists_no_tokens_is_none(serve: Serve, body: str) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=body)

    endpoint = Endpoint("a", await serve(answer), Target("openai", "vllm", "m", "/v1/chat/completions"))
    async with token_counter(endpoint) as count:
        with pytest.raises(NoAnswer, match=r"^HTTP 200, and no list of tokens$"):
            await asyncio.to_thread(count, ["a text"])


async def test_the_secrets_of_an_access_are_the_key_headers_and_the_proxys_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("THE_KEY", "opensesame")
    access = Access({"X-Key": "Basic abcdefgh"}, "THE_KEY", proxy="http://me:tiny@proxy:3128")
    assert access.secrets() == ["Basic abcdefgh", "opensesame", "abcdefgh", "tiny"]

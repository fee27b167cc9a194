"""Who answers at an address: ask a server's harmless GET routes and let `wire.identify` judge the answers.

Only control calls are made here, with aiohttp and outside any measurement.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp

from loadgen.errors import Unreachable
from loadgen.servers.identify import PROBES, Identity, Probe, identify
from loadgen.servers.told_slots import SLOT_ROUTES, slots_told
from loadgen.servers.urls import query_of, root_url, with_query
from loadgen.transport import tls_context

__all__ = [
    "LENDS_TOKENIZER",
    "LOCAL_SERVERS",
    "ask_server",
    "cause",
    "find_local",
    "slots_of",
    "token_counter",
]

LOCAL_SERVERS = {
    "Ollama": "http://127.0.0.1:11434",
    "LM Studio": "http://127.0.0.1:1234",
    "vLLM": "http://127.0.0.1:8000",
    "llama.cpp": "http://127.0.0.1:8080",
}
PROBE_TIMEOUT_S = 10.0
LOCAL_TIMEOUT_S = 1.0
MAX_BODY_BYTES = 4 * 1024 * 1024


async def ask_server(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    api_key_env: str | None = None,
    verify_tls: bool = True,
    ca_file: str | None = None,
    proxy: str | None = None,
    timeout_s: float = PROBE_TIMEOUT_S,
) -> Identity | None:
    """Probe the server at `url`, with the query it has; None if it answers like none we know.

    Raises Unreachable if it does not answer.
    """
    sent = dict(headers or {})
    if api_key_env:
        sent["Authorization"] = f"Bearer {os.environ[api_key_env]}"
    async with _session(sent, verify_tls, ca_file, timeout_s) as session:
        first = await _probe(session, url, PROBES[0], proxy)
        if isinstance(first, str):
            raise Unreachable(f"{root_url(url)}: {first}")
        rest = await asyncio.gather(*(_probe(session, url, path, proxy) for path in PROBES[1:]))
    answers = {PROBES[0]: first}
    answers.update({path: probe for path, probe in zip(PROBES[1:], rest, strict=True) if isinstance(probe, Probe)})
    return identify(answers)


async def slots_of(
    url: str,
    kind: str,
    model: str,
    *,
    headers: Mapping[str, str],
    verify_tls: bool = True,
    ca_file: str | None = None,
    proxy: str | None = None,
) -> tuple[int, str] | None:
    """Return how many slots the server says it has, and where it says so; None if it does not tell."""
    paths = SLOT_ROUTES.get(kind, ())
    async with _session(headers, verify_tls, ca_file, PROBE_TIMEOUT_S) as session:
        got = await asyncio.gather(*(_probe(session, url, path, proxy) for path in paths))
    answers = {path: probe for path, probe in zip(paths, got, strict=True) if isinstance(probe, Probe)}
    return slots_told(kind, model, answers)


async def find_local(urls: Sequence[str] = tuple(LOCAL_SERVERS.values())) -> dict[str, Identity]:
    """Return the servers that answer at the usual local addresses, by URL."""

    async def one(url: str) -> Identity | None:
        try:
            return await ask_server(url, timeout_s=LOCAL_TIMEOUT_S)
        except Unreachable:
            return None

    found = await asyncio.gather(*(one(url) for url in urls))
    return {url: identity for url, identity in zip(urls, found, strict=True) if identity is not None}


LENDS_TOKENIZER = frozenset({"vllm", "llamacpp", "llamacpp-python"})
TOKENIZE_AT_ONCE = 16  # over as many connections
TOKENIZE_TIMEOUT_S = 60.0  # a text may be as long as a model's context
_COUNTS: dict[tuple[str, str, str], dict[str, int]] = {}  # tokens of texts, by server and model


@asynccontextmanager
async def token_counter(
    url: str,
    kind: str,
    model: str,
    *,
    headers: Mapping[str, str],
    verify_tls: bool = True,
    ca_file: str | None = None,
    proxy: str | None = None,
) -> AsyncIterator[Callable[[Sequence[str]], list[int]]]:
    """Yield a function that counts tokens by the own tokenizer of a server that lends it.

    A text is asked for once in the life of this process: what it counts does not change while the model is served.
    url: with the query that its calls need, as in `ask_server`.
    The function blocks, so it is to be called from another thread than that of the running loop.
    It raises aiohttp.ClientError or KeyError where the server has no such route after all.
    """
    loop = asyncio.get_running_loop()
    known = _COUNTS.setdefault((url, kind, model), {})
    async with _session(headers, verify_tls, ca_file, TOKENIZE_TIMEOUT_S) as session:

        async def ask_each(texts: Iterator[str]) -> None:
            for text in texts:
                path, body = _tokenize_request(kind, model, text)
                async with session.post(_route(url, path), json=body, proxy=proxy) as response:
                    response.raise_for_status()
                    known[text] = len((await response.json())["tokens"])

        async def count_all(texts: Sequence[str]) -> list[int]:
            unknown = [text for text in dict.fromkeys(texts) if text not in known]
            await ask_each(iter(unknown[:1]))  # alone, for where there is no such route one question will do
            rest = iter(unknown[1:])
            await asyncio.gather(*(ask_each(rest) for _ in range(TOKENIZE_AT_ONCE)))
            return [known[text] for text in texts]

        yield lambda texts: asyncio.run_coroutine_threadsafe(count_all(texts), loop).result()


def _tokenize_request(kind: str, model: str, text: str) -> tuple[str, dict[str, str]]:
    if kind == "llamacpp":
        return "/tokenize", {"content": text}
    if kind == "llamacpp-python":
        return "/extras/tokenize", {"model": model, "input": text}
    return "/tokenize", {"model": model, "prompt": text}


def _session(
    headers: Mapping[str, str], verify_tls: bool, ca_file: str | None, timeout_s: float
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls_context(verify=verify_tls, ca_file=ca_file)),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        headers=headers,
    )


def _route(url: str, path: str) -> str:
    return with_query(root_url(url) + path, query_of(url))


async def _probe(session: aiohttp.ClientSession, url: str, path: str, proxy: str | None) -> Probe | str:
    """Return the answer, or one line saying why there is none."""
    try:
        async with session.get(_route(url, path), proxy=proxy, allow_redirects=False) as response:
            body = await response.content.read(MAX_BODY_BYTES)
            return Probe(response.status, response.headers.get("Content-Type", ""), body)
    except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError) as error:
        return cause(error, session.timeout.total or 0.0)


def cause(error: Exception, timeout_s: float) -> str:
    """Return why a control call failed, in one line without its URL, whose query may hold a secret."""
    match error:
        case TimeoutError():
            return f"no answer within {timeout_s:g} s"
        case aiohttp.ClientConnectorCertificateError():
            return f"certificate not accepted: {error.certificate_error}"
        case aiohttp.ClientConnectorSSLError():
            return f"TLS failed ({getattr(error.os_error, 'reason', None) or 'no reason given'}): is it https?"
        case aiohttp.ClientConnectorDNSError():
            return f"no such host ({error.os_error.strerror})"
        case aiohttp.ClientConnectorError():
            code = error.os_error.errno
            return os.strerror(code).lower() if code else str(error.os_error)
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return "the connection was closed before any answer"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered HTTP {error.status}"
        case aiohttp.ClientResponseError():
            return "what answers there does not speak HTTP"
        case aiohttp.InvalidURL():
            return "that is no URL"
        case _:
            return f"{type(error).__name__}: {error}".splitlines()[0]

"""The aiohttp tier: for proxies, and as the in-house rival of the benchmarks.

aiohttp owns sockets, pool and framing; a chunk is stamped when the task that awaits it resumes, so a busy loop shows in
every stamp. `done_ns` and the rest mean the same as in the other tiers.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from itertools import accumulate
from types import SimpleNamespace

import aiohttp
import numpy as np

from loadgen.clock import NS_PER_S, now_ns
from loadgen.record import Outcome
from loadgen.transport import Address, Answer, LastTokenRead, Limits
from loadgen.transport.sockets import connect_error
from loadgen.wire import Response

__all__ = ["AiohttpTransport"]

ALL_AT_ONCE_BYTES = 1 << 20  # aiohttp warns about larger bodies in one piece


class AiohttpTransport:
    """One endpoint through aiohttp, perhaps by way of a proxy."""

    tier = "aiohttp"

    def __init__(
        self, address: Address, path: str, headers: Mapping[str, str], limits: Limits, proxy: str | None
    ) -> None:
        self.stopping = False
        self._limits, self._proxy = limits, proxy
        self._url = f"{'https' if address.tls else 'http'}://{address.netloc}{path}"
        self._reads = 0
        # trust_env: HTTPS_PROXY and the like count, as they do for every other client.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=address.tls or True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_s),
            headers=dict(headers),
            trust_env=True,
            auto_decompress=False,
            trace_configs=[_connection_stamps()],
        )

    async def exchange(self, request_id: str, body: bytes, last_token_read: LastTokenRead) -> Answer:
        answer = Answer()
        pieces: list[bytes] = []
        stamps: list[int] = []
        head: list[aiohttp.ClientResponse] = []
        work = asyncio.ensure_future(self._read(request_id, body, answer, head, pieces, stamps))
        try:
            await self._limited(work, answer, head, pieces, stamps, last_token_read)
        except asyncio.CancelledError:
            if not self.stopping:
                raise
            answer.failure, answer.error = Outcome.CANCELLED, "stopped by us before the answer was complete"
        finally:
            if work.cancel():
                await asyncio.wait({work})
        answer.stamps_ns = np.array(stamps, np.int64)
        if head:
            answer.response = _response(head[0], pieces, complete=answer.failure is None)
        if answer.failure is not None:
            answer.done_ns = now_ns()
        return answer

    def catch_up(self) -> None:
        """Nothing to do: only the event loop reads here."""

    def activity(self) -> int:
        return self._reads

    async def close(self) -> None:
        await self._session.close()

    async def _read(
        self,
        request_id: str,
        body: bytes,
        answer: Answer,
        head: list[aiohttp.ClientResponse],
        pieces: list[bytes],
        stamps: list[int],
    ) -> None:
        async with self._session.post(
            self._url,
            data=body if len(body) <= ALL_AT_ONCE_BYTES else io.BytesIO(body),
            headers={"X-Request-Id": request_id},
            proxy=self._proxy,
            allow_redirects=False,
            trace_request_ctx=answer,
        ) as response:
            head.append(response)
            stamps.append(now_ns())
            pieces.append(b"")
            async for piece in response.content.iter_any():
                stamps.append(now_ns())
                pieces.append(piece)
                self._reads += 1
        answer.done_ns = now_ns()

    async def _limited(
        self,
        work: asyncio.Future[None],
        answer: Answer,
        head: list[aiohttp.ClientResponse],
        pieces: list[bytes],
        stamps: list[int],
        last_token_read: LastTokenRead,
    ) -> None:
        """Wait for `work` and check the limits when they may have passed; a failure is set on `answer`."""
        limits, began = self._limits, now_ns()
        total = began + round(limits.total_s * NS_PER_S)
        due = began + round(min(limits.first_token_s, limits.between_tokens_s, limits.total_s) * NS_PER_S)
        while not work.done():
            await asyncio.wait({work}, timeout=max(due - now_ns(), 0) / NS_PER_S)
            if work.done() or now_ns() < due:
                continue
            read = last_token_read(_response(head[0], pieces, complete=False)) if head else -1
            limit_s = limits.first_token_s if read < 0 else limits.between_tokens_s
            due = min(total, (began if read < 0 else stamps[read]) + round(limit_s * NS_PER_S))
            if now_ns() < due:
                continue
            if due == total:
                answer.failure, answer.error = Outcome.TOTAL_TIMEOUT, f"no end of the answer after {limits.total_s:g} s"
            elif read < 0:
                answer.failure, answer.error = Outcome.FIRST_TOKEN_TIMEOUT, f"no token after {limit_s:g} s"
            else:
                answer.failure, answer.error = Outcome.STALLED, f"no further token for {limit_s:g} s"
            return
        answer.failure, answer.error = _failure(work.exception())


def _connection_stamps() -> aiohttp.TraceConfig:
    """Stamp what aiohttp does with its connections on the Answer that each request brings along."""

    async def begin(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.connect_ns = now_ns()

    async def connected(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.connected_ns = context.trace_request_ctx.sent_ns = now_ns()

    async def reused(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.sent_ns = now_ns()

    async def written(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.sent_last_ns = now_ns()

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(begin)
    trace.on_connection_create_end.append(connected)
    trace.on_connection_reuseconn.append(reused)
    trace.on_request_chunk_sent.append(written)
    return trace


def _response(head: aiohttp.ClientResponse, pieces: list[bytes], *, complete: bool) -> Response:
    headers = {name.lower(): value for name, value in head.headers.items()}
    ends = np.fromiter(accumulate(map(len, pieces)), np.int64, len(pieces))
    return Response(head.status, headers, b"".join(pieces), ends, complete)


def _failure(error: BaseException | None) -> tuple[Outcome | None, str | None]:
    match error:
        case None:
            return None, None
        case aiohttp.ServerTimeoutError():
            return Outcome.CONNECT_TIMEOUT, "no connection in time"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return Outcome.TLS, str(error)
        case aiohttp.ClientConnectorError():
            return Outcome.REFUSED, connect_error(error.os_error)
        case aiohttp.ClientPayloadError():
            return Outcome.TRUNCATED, "the server closed the connection in the middle of the answer"
        case aiohttp.ClientConnectionError():
            return Outcome.RESET, f"connection lost: {error}"
        case aiohttp.ClientError():
            return Outcome.PROTOCOL, f"{type(error).__name__}: {error}".splitlines()[0]
    raise error

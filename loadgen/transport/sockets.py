"""Exchanges over pooled connections: connect, reuse, limits, stale connections; for the kernel and callback tiers.

The pool is last in, first out, so that a quiet pool keeps few connections warm. A connection goes back only after a
complete answer that the server did not end with `Connection: close`. A reused connection that closes before any byte
of the answer is the server's habit and not its failure (llama.cpp does it after every stream): the request goes once
more on a fresh connection, and after a few of these the pool stops reusing connections at all.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING

from loadgen.clock import NS_PER_S, now_ns
from loadgen.record import Outcome
from loadgen.transport import Address, Answer, LastTokenRead, Limits
from loadgen.transport.callback import CallbackConnection
from loadgen.transport.connection import Connection, Exchange, tls_reason
from loadgen.transport.deadlines import Deadlines
from loadgen.wire.http import BadHttp, request_bytes, request_head

if TYPE_CHECKING:
    from loadgen.transport.kernel import Poller

__all__ = ["SocketTransport"]

STALE_BEFORE_FRESH_ONLY = 3
OUR_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class ConnectFailed(Exception):
    """There is no connection. `outcome` is the kind of failure."""

    def __init__(self, outcome: Outcome, error: str) -> None:
        super().__init__(error)
        self.outcome = outcome


class SocketTransport:
    """One endpoint. poller: the shared epoll set for the kernel tier, None for the callback tier."""

    def __init__(
        self,
        address: Address,
        path: str,
        headers: Mapping[str, str],
        limits: Limits,
        poller: Poller | None,
    ) -> None:
        self.tier = "callback" if poller is None else "kernel"
        self.stopping = False  # requests that are cancelled from now on end as CANCELLED records
        self._address, self._limits, self._poller = address, limits, poller
        self._head = request_head("POST", path, address.netloc, headers)
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._stale = 0
        self._resolved: list[tuple[socket.AddressFamily, tuple[object, ...]]] | None = None
        self._deadlines = Deadlines(self._loop, self._check)
        self._first_look_ns = round(min(limits.first_token_s, limits.between_tokens_s, limits.total_s) * NS_PER_S)

    async def exchange(self, request_id: str, body: bytes, last_token_read: LastTokenRead) -> Answer:
        exchange = Exchange(last_token_read)
        request = request_bytes(self._head, request_id, body)
        try:
            while True:
                connection = self._reuse() if not exchange.stale_connections else None
                if connection is None:
                    connection = await self._connect(exchange)
                await self._carry(exchange, connection, request)
                if exchange.failure is not Outcome.RESET or connection.used == 1 or exchange.framing.reads:
                    break
                exchange.stale_connections += 1
                exchange.failure = exchange.error = exchange.sent_last_ns = None
                self._stale += 1
        except ConnectFailed as failed:
            exchange.failure, exchange.error = failed.outcome, str(failed)
        except asyncio.CancelledError:
            if not self.stopping:
                raise
            exchange.failure, exchange.error = Outcome.CANCELLED, "stopped by us before the answer was complete"
        if exchange.failure is not None:
            exchange.done_ns = now_ns()
        return exchange

    def activity(self) -> int:
        """The number of reads so far of the requests in flight. Scans all of them: not to be called per read."""
        return sum(len(exchange.stamps) for exchange in self._deadlines)

    def catch_up(self) -> None:
        if self._poller is not None:
            self._poller.catch_up(now_ns())

    async def close(self) -> None:
        self._deadlines.close()
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _reuse(self) -> Connection | None:
        if self._stale >= STALE_BEFORE_FRESH_ONLY:
            return None
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return None

    async def _carry(self, exchange: Exchange, connection: Connection, request: bytes) -> None:
        exchange.connection, exchange.done = connection, self._loop.create_future()
        connection.start(exchange, request)
        exchange.slot = self._deadlines.add(exchange, exchange.sent_ns + self._first_look_ns)  # type: ignore[operator]
        try:
            await exchange.done
        except BaseException:
            connection.exchange = None
            connection.close()
            raise
        finally:
            self._deadlines.remove(exchange, exchange.slot)
        # An answer may come before the request was all sent: the rest of it would go before the next request.
        sent = exchange.sent_last_ns is not None
        if exchange.failure is None and exchange.framing.keep_alive and sent and not connection.closed:
            self._idle.append(connection)
        else:
            connection.close()

    def _check(self, exchange: Exchange) -> int | None:
        """The time of the next check of an exchange's limits; ends the exchange where one has passed."""
        limits, connection, sent = self._limits, exchange.connection, exchange.sent_ns
        assert connection is not None
        assert sent is not None
        connection.look()
        if connection.exchange is not exchange:
            return None  # its end had been read
        present, total = now_ns(), sent + round(limits.total_s * NS_PER_S)
        if present >= total:
            connection.abort(Outcome.TOTAL_TIMEOUT, f"no end of the answer after {limits.total_s:g} s")
            return None
        token_ns = self._last_token_ns(exchange, connection)
        if token_ns is None:
            due = sent + round(limits.first_token_s * NS_PER_S)
            if present >= due:
                connection.abort(Outcome.FIRST_TOKEN_TIMEOUT, f"no token after {limits.first_token_s:g} s")
                return None
        else:
            due = token_ns + round(limits.between_tokens_s * NS_PER_S)
            if present >= due:
                connection.abort(Outcome.STALLED, f"no further token for {limits.between_tokens_s:g} s")
                return None
        return min(due, total)

    def _last_token_ns(self, exchange: Exchange, connection: Connection) -> int | None:
        if exchange.framing.head is None:
            return None
        try:
            read = exchange.last_token_read(exchange.framing.response())
        except BadHttp as error:
            connection.abort(Outcome.PROTOCOL, str(error))
            return None
        return None if read < 0 else int(connection.stamps_ns(exchange.stamps)[read])

    async def _connect(self, exchange: Exchange) -> Connection:
        exchange.connect_ns, limit_s = now_ns(), self._limits.connect_s
        try:
            async with asyncio.timeout(limit_s):
                connection = await self._connect_any()
        except TimeoutError:
            raise ConnectFailed(Outcome.CONNECT_TIMEOUT, f"no connection within {limit_s:g} s") from None
        except ssl.SSLError as error:
            raise ConnectFailed(Outcome.TLS, tls_reason(error)) from None
        except OSError as error:
            if error.errno in OUR_LIMITS:  # not the server's fault: the run ends with this error
                raise OSError(f"no further connection can be opened here: {connect_error(error)}") from None
            raise ConnectFailed(Outcome.REFUSED, connect_error(error)) from None
        exchange.connected_ns = now_ns()
        return connection

    async def _connect_any(self) -> Connection:
        if self._resolved is None:
            resolved = await self._loop.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM)
            self._resolved = [(socket.AddressFamily(family), address) for family, _, _, _, address in resolved]
        failed: OSError | None = None
        for family, address in self._resolved:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                return await self._connect_one(sock, address)
            except OSError as error:
                sock.close()
                failed = error
            except BaseException:
                sock.close()
                raise
        assert failed is not None
        try:
            raise failed
        finally:
            del failed  # it holds this frame: nothing collects the cycle in a run

    async def _connect_one(self, sock: socket.socket, address: tuple[object, ...]) -> Connection:
        connection: Connection
        if self._poller is None:
            sock.setblocking(False)
            await self._connect_socket(sock, address)
            _, connection = await self._loop.create_connection(CallbackConnection, sock=sock)
        else:
            from loadgen.transport.kernel import KernelConnection, prepare  # needs epoll, so Linux alone

            prepare(sock)
            await self._connect_socket(sock, address)
            connection = KernelConnection(sock, self._poller)
        if self._address.tls is not None:
            try:
                await connection.start_tls(self._address.tls, self._address.host)
            except BaseException:
                connection.close()
                raise
        return connection

    async def _connect_socket(self, sock: socket.socket, address: tuple[object, ...]) -> None:
        """Connect `sock`. Over loopback the peer's part is done when the first call returns, which a second shows;
        waiting for the socket in the event loop would cost more than the connection.
        """
        error = sock.connect_ex(address)
        if error == errno.EINPROGRESS:
            error = sock.connect_ex(address)
        if error in (errno.EINPROGRESS, errno.EALREADY):
            await self._loop.sock_connect(sock, address)
        elif error not in (0, errno.EISCONN):  # systems differ in which of them a second call returns
            await asyncio.sleep(0)  # a worker whose server is gone would not let anything else run
            raise OSError(error, os.strerror(error))


def connect_error(error: OSError) -> str:
    """The reason, in one line, why a connection could not be made."""
    if isinstance(error, socket.gaierror):
        return f"no such host ({error.strerror})"
    # asyncio puts the address in the place of the system's words.
    return (os.strerror(error.errno) if error.errno else str(error)).lower()

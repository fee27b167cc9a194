"""One connection and the one exchange it carries, for every tier that stamps its reads.

`Connection` holds what the kernel and the callback tier share: sending, TLS over memory buffers, what to do when the
peer closes. A tier subclass brings bytes in (`_take`) and converts its stamps to ns (`stamps_ns`).
The stamp of a TLS read is that of the ciphertext which completed the plaintext.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from loadgen.clock import now_ns
from loadgen.record import Int64, Outcome
from loadgen.transport import Answer, LastTokenRead
from loadgen.wire.http import BadHttp, Framing

__all__ = ["Connection", "Exchange", "TlsLayer"]


class Exchange(Answer):
    """One request on its way, then its answer. `done` is set once `framing.complete` or `failure` is."""

    __slots__ = ("connection", "done", "framing", "last_token_read", "slot", "stamps")

    def __init__(self, last_token_read: LastTokenRead) -> None:
        super().__init__()
        self.last_token_read = last_token_read
        self.framing = Framing()
        self.stamps: list[Any] = []  # one per read, in the tier's own form
        self.connection: Connection | None = None
        self.done: asyncio.Future[None] | None = None
        self.slot = 0

    def finish(self, failure: Outcome | None = None, error: str | None = None) -> None:
        if self.done is not None and not self.done.done():
            self.failure, self.error = failure, error
            self.done.set_result(None)

    def unpack(self) -> None:
        framing = self.framing
        if self.stamps and self.connection is not None:
            self.stamps_ns = self.connection.stamps_ns(self.stamps)
        if framing.head is not None:
            self.head_read = framing.head_read
            try:
                self.response = framing.response()
            except BadHttp as error:
                self.failure, self.error = Outcome.PROTOCOL, str(error)
        if self.done_ns is None:  # else it failed, at that moment; an answer ends when its last read arrived
            self.done_ns = int(self.stamps_ns[-1])


class TlsLayer:
    """TLS between two memory buffers: ciphertext in, plaintext out, and the other way."""

    def __init__(self, context: ssl.SSLContext, server_hostname: str) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=server_hostname)
        self.ready = False

    def handshake(self, ciphertext: bytes = b"") -> bytes:
        """The bytes to send next in the handshake, b"" if none. Raises ssl.SSLError."""
        self._in.write(ciphertext)
        try:
            self._tls.do_handshake()
            self.ready = True
        except ssl.SSLWantReadError:
            pass  # more of the peer's part is needed
        return self._out.read()

    def decrypt(self, ciphertext: bytes) -> bytes:
        """The plaintext that is complete now, b"" if none is. Raises ssl.SSLError."""
        self._in.write(ciphertext)
        pieces = []
        try:
            while piece := self._tls.read(262_144):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass  # the rest of a record is still to come
        except ssl.SSLZeroReturnError:
            pass  # close_notify: the TCP close that follows is what ends the answer
        return b"".join(pieces)

    def encrypt(self, plaintext: bytes) -> bytes:
        self._tls.write(plaintext)
        return self._out.read()


class Connection(ABC):
    """A connected socket that carries one exchange at a time."""

    __slots__ = ("_handshake", "_tls", "closed", "deliver", "exchange", "unseen", "used")

    def __init__(self) -> None:
        self.closed = False
        self.exchange: Exchange | None = None
        self.used = 0  # exchanges carried so far
        self.unseen = False  # the latest read may have completed the answer
        self.deliver: Callable[[bytes, Any], None] = self._take  # a read and its stamp
        self._tls: TlsLayer | None = None
        self._handshake: asyncio.Queue[bytes] | None = None  # ciphertext while it lasts, b"" when the peer left

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """Shake hands. Raises ssl.SSLError, also if the peer leaves."""
        tls = TlsLayer(context, server_hostname)
        self._handshake = arrived = asyncio.Queue[bytes]()
        self.deliver = lambda data, _: arrived.put_nowait(data)
        self._write(tls.handshake())
        while not tls.ready:
            ciphertext = await arrived.get()
            while not arrived.empty():  # a server may send more behind its last flight (early tickets)
                ciphertext += arrived.get_nowait()
            answer = tls.handshake(ciphertext)  # first: it may hold an alert with the reason why the server left
            if self.closed:
                raise ssl.SSLError("the server closed the connection during the handshake")
            self._write(answer)
        self._tls, self.deliver, self._handshake = tls, self._take_ciphertext, None

    def start(self, exchange: Exchange, request: bytes) -> None:
        """Send `request`; `exchange.done` is set at its end. The stamp is taken just before the first byte."""
        self.exchange = exchange
        self.used += 1
        payload = request if self._tls is None else self._tls.encrypt(request)
        exchange.sent_ns = now_ns()
        self._write(payload)

    def abort(self, failure: Outcome, error: str) -> None:
        """Give the exchange up and the connection with it."""
        exchange, self.exchange = self.exchange, None
        self.close()
        if exchange is not None:
            exchange.finish(failure, error)

    def look(self) -> None:
        """Check whether the latest read was the last of the answer, unless that is known."""
        if self.unseen:
            self.unseen = False
            if self.exchange is not None:
                self._look(self.exchange)

    @abstractmethod
    def stamps_ns(self, stamps: list[Any]) -> Int64:
        """Convert an exchange's stamps to monotonic ns, shape (reads,)."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _write(self, payload: bytes) -> None:
        """Hand everything to the kernel, sooner or later, then call `_written`."""

    def _written(self) -> None:
        if self.exchange is not None and self.exchange.sent_last_ns is None:
            self.exchange.sent_last_ns = now_ns()

    def _take(self, data: bytes, stamp: Any) -> None:
        """One read of plaintext."""
        exchange = self.exchange
        if exchange is None:
            self.close()  # bytes that answer no request: all that follow would be out of step
            return
        exchange.stamps.append(stamp)
        exchange.framing.reads.append(data)
        self._look(exchange)

    def _look(self, exchange: Exchange) -> None:
        """Check whether the latest read completed the answer."""
        try:
            complete = exchange.framing.advance()
        except BadHttp as error:
            self.abort(Outcome.PROTOCOL, str(error))
            return
        if complete:
            self.exchange = None
            exchange.finish()

    def _take_ciphertext(self, data: bytes, stamp: Any) -> None:
        assert self._tls is not None
        try:
            plaintext = self._tls.decrypt(data)
        except ssl.SSLError as error:
            self.abort(Outcome.TLS, tls_reason(error))
            return
        if plaintext:
            self._take(plaintext, stamp)

    def _peer_closed(self, error: OSError | None = None) -> None:
        """The peer closed or reset; where the framing allows it, that is the end of the answer."""
        exchange, self.exchange = self.exchange, None
        self.close()
        if exchange is None:
            if self._handshake is not None:
                self._handshake.put_nowait(b"")
            return
        if error is None and exchange.framing.eof():
            exchange.finish()
        elif error is not None:
            exchange.finish(Outcome.RESET, f"connection lost: {error.strerror or error}")
        elif exchange.framing.head is None and not exchange.framing.reads:
            exchange.finish(Outcome.RESET, "the server closed the connection before any byte of the answer")
        else:
            exchange.finish(Outcome.TRUNCATED, "the server closed the connection in the middle of the answer")


def tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    return f"TLS: {getattr(error, 'reason', None) or error}"  # an error that loadgen raised has no reason

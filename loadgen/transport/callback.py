"""The callback tier: stamped at the first line of the event loop's read callback.

For systems without SO_TIMESTAMPNS. Right as long as the loop is not late;
docs/methodology.md#is-the-client-the-bottleneck defines when it voids a run.
"""

from __future__ import annotations

import asyncio
from typing import cast

import numpy as np

from loadgen.clock import now_ns
from loadgen.record import Int64
from loadgen.transport.connection import Connection

__all__ = ["CallbackConnection"]


class CallbackConnection(Connection, asyncio.Protocol):
    """A Connection over an asyncio transport."""

    def __init__(self) -> None:
        super().__init__()
        self._transport: asyncio.Transport | None = None
        self._backed_up = False  # the kernel has not taken everything yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._transport.set_write_buffer_limits(0)  # the next two are then called when the kernel has it all

    def pause_writing(self) -> None:
        self._backed_up = True

    def resume_writing(self) -> None:
        self._backed_up = False
        self._written()

    def data_received(self, data: bytes) -> None:
        stamp = now_ns()
        self.deliver(data, stamp)

    def eof_received(self) -> None:
        self._peer_closed()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            self._peer_closed(exc if isinstance(exc, OSError) else None)

    def stamps_ns(self, stamps: list[int]) -> Int64:
        return np.array(stamps, np.int64)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.deliver = _nobody  # breaks the cycle through the bound method: nothing collects garbage in a run
            if self._transport is not None:
                self._transport.abort()
                self._transport.close()  # asyncio's, from 3.12 on, lets go of its own bound methods only here
                self._transport = None

    def _write(self, payload: bytes) -> None:
        if self._transport is None:
            return  # closed: the exchange has its failure
        self._transport.write(payload)
        if not self._backed_up:
            self._written()


def _nobody(data: bytes, stamp: int) -> None:
    """The reader of a closed connection."""

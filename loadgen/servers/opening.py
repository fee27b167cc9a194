"""Transports to endpoints, and the poller that those of the kernel tier share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from loadgen.servers.endpoint import Endpoint
from loadgen.transport import Limits, Transport
from loadgen.transport.sockets import SocketTransport

if TYPE_CHECKING:
    from loadgen.transport.kernel import Poller

__all__ = ["open_poller", "open_transport"]


def open_poller(tier: str, read_bytes: int | None = None) -> Poller | None:
    """The poller that the transports of the kernel tier share in the running loop; None for any other tier."""
    if tier != "kernel":
        return None
    from loadgen.transport.kernel import Poller  # needs epoll, so Linux alone

    return Poller(asyncio.get_running_loop(), read_bytes)


def open_transport(endpoint: Endpoint, tier: str, limits: Limits, poller: Poller | None) -> Transport:
    """A transport to `endpoint`. poller: with the kernel tier, and only with it. A proxy needs the aiohttp tier."""
    address, path, headers = endpoint.address(), endpoint.path(), endpoint.request_headers()
    if tier == "aiohttp":
        from loadgen.transport.aio import AiohttpTransport

        return AiohttpTransport(address, path, headers, limits, endpoint.access.proxy)
    return SocketTransport(address, path, headers, limits, poller)

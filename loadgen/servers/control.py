"""Control calls to a server, outside the measured path: its identity, models and state, or a model to unload.

One session, one place for headers, key, certificates, proxy, time limit, and for the reasons why there is no answer.
Redirects are not followed, and no answer is larger than `MAX_BODY_BYTES`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import aiohttp

from loadgen.servers.access import PLAIN, Access
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.reply import Reply
from loadgen.servers.urls import with_query

__all__ = ["Control", "NoAnswer", "control_of"]

TIMEOUT_S = 10.0
MAX_BODY_BYTES = 16 * 1024 * 1024
CONNECTIONS = 16
OF_BODIES = ("content-type", "accept", "accept-encoding")  # headers about the measured requests' bodies alone


class NoAnswer(Exception):
    """The reason why a control call had no answer: one line, without its URL, whose query may hold a secret.

    lasting: the same call will always fail.
    """

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting


class Control:
    """A session of control calls to one server. Close it, or use it as an async context manager."""

    def __init__(
        self, url: str, query: str = "", access: Access = PLAIN, *, timeout_s: float = TIMEOUT_S, accept: str = "*/*"
    ) -> None:
        """url: put before every path. query: put behind every path. timeout_s: for one call."""
        self._url, self._query, self._proxy, self._timeout_s = url, query, access.proxy, timeout_s
        given = {name: text for name, text in access.credentials().items() if name.lower() not in OF_BODIES}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=access.tls(), limit=CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            headers={"User-Agent": "loadgen", "Accept": accept, **given},
        )

    async def get(self, path: str = "") -> Reply:
        """The answer, of any status. Raises NoAnswer."""
        return await self._call("GET", path, None)

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """The answer to `body` as JSON, of any status. Raises NoAnswer."""
        return await self._call("POST", path, body)

    async def close(self) -> None:
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None) -> Reply:
        url = with_query(self._url + path, self._query)
        try:
            async with self._session.request(
                method, url, json=body, proxy=self._proxy, allow_redirects=False
            ) as response:
                received = bytearray()
                async for chunk in response.content.iter_any():
                    received += chunk
                    if len(received) > MAX_BODY_BYTES:
                        raise NoAnswer(f"more than {MAX_BODY_BYTES >> 20} MiB", lasting=True)
                return Reply(response.status, response.headers.get("Content-Type", ""), bytes(received))
        except UnicodeError:  # of the resolver
            raise NoAnswer("no host can have that name", lasting=True) from None
        except aiohttp.InvalidURL:
            raise NoAnswer("that is no URL", lasting=True) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswer(_cause(error, self._timeout_s)) from None


def control_of(endpoint: Endpoint, *, timeout_s: float = TIMEOUT_S, accept: str = "*/*") -> Control:
    """A session with the server of `endpoint`, reached as its requests reach it."""
    return Control(endpoint.url, endpoint.query, endpoint.access, timeout_s=timeout_s, accept=accept)


def _cause(error: Exception, timeout_s: float) -> str:
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
        case _:
            return f"{type(error).__name__}: {error}".splitlines()[0]

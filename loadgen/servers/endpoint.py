"""A server as resolved before the run."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass

from loadgen.servers.access import PLAIN, Access
from loadgen.servers.urls import with_query
from loadgen.transport import Address
from loadgen.wire import Target

__all__ = ["Endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server as resolved before the run: its address, dialect and model, and how it is reached."""

    name: str
    url: str  # scheme, host, port and perhaps a path that goes before the dialect's
    target: Target
    label: str = ""  # name and version, for people
    query: str = ""  # the query of the URL as given, such as api-version=2024-10-21
    access: Access = PLAIN
    agent: str = ""  # whose requests these are, where several agents have options of their own

    def address(self) -> Address:
        parts = urllib.parse.urlsplit(self.url)
        tls = self.access.tls() if parts.scheme == "https" else None
        return Address(parts.hostname or "", parts.port or (443 if tls else 80), tls)

    def path(self) -> str:
        return with_query(urllib.parse.urlsplit(self.url).path.rstrip("/") + self.target.path, self.query)

    def route(self, path: str = "") -> str:
        """The URL of another route of this server, for a control call."""
        return with_query(self.url + path, self.query)

    def request_headers(self) -> dict[str, str]:
        """The headers of a measured request, the key among them."""
        return {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/x-ndjson, application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "loadgen",
            **self.access.credentials(),
        }

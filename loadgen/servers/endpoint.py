"""A server as resolved before the run."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from loadgen.servers.urls import with_query
from loadgen.transport import Address, tls_context
from loadgen.wire import Target

__all__ = ["Endpoint"]

SHORTEST_SECRET = 6  # a shorter word may be part of any text


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server as resolved before the run: where, which dialect and model, and how to authenticate."""

    name: str
    url: str  # scheme, host, port and perhaps a path that goes before the dialect's
    target: Target
    label: str = ""  # name and version, for people
    query: str = ""  # of the URL as given, such as api-version=2024-10-21
    headers: Mapping[str, str] = field(default_factory=dict)  # never the key itself
    api_key_env: str | None = None  # read where it is used, so that no file or pickle holds the key
    verify_tls: bool = True
    ca_file: str | None = None
    agent: str = ""  # whose requests these are, where several agents have options of their own

    def address(self) -> Address:
        parts = urllib.parse.urlsplit(self.url)
        tls = tls_context(verify=self.verify_tls, ca_file=self.ca_file) if parts.scheme == "https" else None
        return Address(parts.hostname or "", parts.port or (443 if tls else 80), tls)

    def path(self) -> str:
        return with_query(urllib.parse.urlsplit(self.url).path.rstrip("/") + self.target.path, self.query)

    def route(self, path: str = "") -> str:
        """Return the URL of another route of this server, for a control call."""
        return with_query(self.url + path, self.query)

    def request_headers(self) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/x-ndjson, application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "loadgen",
            **self.headers,
        }
        if self.api_key_env:
            headers["Authorization"] = f"Bearer {os.environ[self.api_key_env]}"
        return headers

    def secrets(self) -> list[str]:
        """What a server may repeat in the text of an error and no file may hold: the key, the values of headers."""
        values = [*self.headers.values(), os.environ.get(self.api_key_env or "", "")]
        words = {word for value in values for word in (value, *value.split()) if len(word) >= SHORTEST_SECRET}
        return sorted(words, key=len, reverse=True)

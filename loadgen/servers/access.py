"""How a server is reached, by control calls and measured requests alike: headers, key, certificates, proxy."""

from __future__ import annotations

import os
import ssl
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from loadgen.transport import tls_context

__all__ = ["PLAIN", "Access"]

SHORTEST_SECRET = 6  # a shorter word may be part of any text


@dataclass(frozen=True, slots=True)
class Access:
    """The settings that every call to a server needs, except its URL. Holds no key, so it can be pickled and kept."""

    headers: Mapping[str, str] = field(default_factory=dict)  # the user's; never the key
    api_key_env: str | None = None  # the environment variable that holds the key, read when it is used
    verify_tls: bool = True
    ca_file: str | None = None
    proxy: str | None = None

    def credentials(self) -> dict[str, str]:
        """The user's headers and the one with the key."""
        key = {"Authorization": f"Bearer {os.environ[self.api_key_env]}"} if self.api_key_env else {}
        return {**self.headers, **key}

    def tls(self) -> ssl.SSLContext:
        """A new TLS client context. Raises OSError for an unreadable `ca_file`, ssl.SSLError for an empty one."""
        return tls_context(verify=self.verify_tls, ca_file=self.ca_file)

    def secrets(self) -> list[str]:
        """The words that an answer may repeat and no file may hold, the longest first.

        They are the key, the values of headers, and the password of the proxy.
        """
        values = [*self.headers.values(), os.environ.get(self.api_key_env or "", "")]
        words = {word for value in values for word in (value, *value.split()) if len(word) >= SHORTEST_SECRET}
        password = urllib.parse.urlsplit(self.proxy or "").password
        return sorted(words | ({password} if password else set()), key=len, reverse=True)


PLAIN = Access()

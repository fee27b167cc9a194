"""The parts of a server's URL as users give it: the root below which its routes are, and the query of every request.

Gateways read versions, tenants and keys from the query (`?api-version=2024-10-21`), and refuse calls without it. So it
goes with every call to the server it was given for: requests, control calls and /metrics alike. A server without a
gateway ignores it.
"""

from __future__ import annotations

import urllib.parse

__all__ = ["query_of", "root_url", "with_query"]


def root_url(url: str) -> str:
    """`url` without the API's own path: people give http://host:8000/v1 as often as http://host:8000."""
    parts = urllib.parse.urlsplit(url)
    path = parts.path.rstrip("/")
    for suffix in ("/v1", "/api/v1", "/api/v0", "/api"):
        if path.endswith(suffix):
            path = path[: -len(suffix)]
            break
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def query_of(url: str) -> str:
    return urllib.parse.urlsplit(url).query


def with_query(url: str, query: str) -> str:
    """`url`, or a path, with `query` appended, after its own query if it has one."""
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url

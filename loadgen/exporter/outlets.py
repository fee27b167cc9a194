"""Three outlets of live counters: /metrics on a port of its own, a push gateway, remote write.

The server has threads of its own, because a scrape has to be answered while the loop is overloaded.
"""

from __future__ import annotations

import errno
import importlib.util
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPException
from socketserver import ThreadingMixIn
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import make_wsgi_app, push_to_gateway

from loadgen.clock import wall_ns
from loadgen.exporter.families import Exporter, registry

__all__ = ["ExportError", "check_push_gateway", "check_remote_write", "push", "remote_write", "serve"]

JOB = "loadgen"
PATIENCE_S = 10.0  # of a push


class ExportError(Exception):
    """A port that is in use, a gateway that refuses the push: the message is one line."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Log nothing for a scrape."""


class _Sent:
    """A body that records when it was sent."""

    def __init__(self, body: Iterable[bytes], sent: Callable[[], None]) -> None:
        self._body, self._sent = body, sent

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        self._sent()


def serve(exporter: Exporter, port: int, host: str = "127.0.0.1") -> WSGIServer:
    """The server that answers GET /metrics in threads until its `shutdown`.

    Raises ExportError if the port or the address is not available.
    """
    plain = make_wsgi_app(registry(exporter))
    native = make_wsgi_app(registry(exporter, native=True))

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        final = exporter.over and environ["REQUEST_METHOD"] == "GET"
        app = native if "openmetrics-text; version=2" in environ.get("HTTP_ACCEPT", "").replace(";v", "; v") else plain
        return _Sent(app(environ, start_response), lambda: exporter.note_scrape(final=final))

    try:
        server = make_server(host, port, app, _Server, _Quiet)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, socket.gaierror | UnicodeError) or getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
            raise ExportError(f"--prometheus-host {host}: {reason}; name an address of this machine") from None
        raise ExportError(f"--prometheus-port {port}: {reason}; name a free port") from None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def check_push_gateway(url: str) -> None:
    """Raise ExportError if nothing could be pushed to `url`."""
    _host("--push-gateway", url)
    if "@" in urlsplit(url).netloc:
        raise ExportError("--push-gateway: must not hold credentials, for they cannot be sent")


def check_remote_write(url: str) -> None:
    """Raise ExportError if nothing could be written to `url`, or the package that writes is not installed."""
    _host("--remote-write", url)
    if importlib.util.find_spec("prometheus_remote_writer") is None:
        raise ExportError("--remote-write needs an extra: pip install 'loadgen[remote-write]'")


def push(exporter: Exporter, url: str, instance: str) -> None:
    """Push the present counts to a push gateway. Raises ExportError."""
    check_push_gateway(url)
    try:
        push_to_gateway(url, JOB, registry(exporter), grouping_key={"instance": instance}, timeout=PATIENCE_S)
    except (OSError, ValueError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # it is the answer as well
        reason = getattr(error, "reason", None) or error
        raise ExportError(f"--push-gateway {_host('--push-gateway', url)}: {reason}") from None


def remote_write(exporter: Exporter, url: str, instance: str) -> None:
    """Write the present counts as one sample per series. Raises ExportError."""
    check_remote_write(url)
    from prometheus_remote_writer import RemoteWriter

    at_ms = wall_ns() // 1_000_000
    rows = [
        {
            "metric": sample.labels | {"__name__": sample.name, "job": JOB, "instance": instance},
            "values": [sample.value],
            "timestamps": [at_ms],
        }
        for family in exporter.families(native=False)
        for sample in family.samples
    ]
    try:
        # Once: a second try would only hide that the first was refused.
        with RemoteWriter(url, timeout=PATIENCE_S, retries=0) as writer:
            writer.send(rows)
    except (OSError, RuntimeError, ValueError) as error:
        raise ExportError(f"--remote-write {_host('--remote-write', url)}: {_refusal(error)}") from None


def _host(option: str, url: str) -> str:
    """The host and port of an absolute URL: the part of it that holds no secret. Raises ExportError."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        got = "" if "@" in url else f", got {url!r}"
        raise ExportError(f"{option}: must start with http:// or https:// and name a host{got}")
    return parts.netloc.rpartition("@")[2]


def _refusal(error: Exception) -> str:
    """The reason why a write failed, without the URL that the library repeats: it may hold a secret."""
    cause = error.__cause__
    if cause is None:
        return str(error)
    response = getattr(cause, "response", None)
    if response is not None:
        return f"HTTP {response.status_code} {' '.join(response.text.split())[:200]}".rstrip()
    return str(getattr(cause.args[0] if cause.args else None, "reason", None) or type(cause).__name__)

"""Faults on demand: their kinds, the requests they strike, and their effect on the bytes. Pure and seeded.

A fault is named in the request (`X-Emulator-Fault: name[=arg]`), which always wins, or on the command line as
`NAME[:ARG]=RATE`, where RATE is a share such as 0.05, or 1/n for every n-th request. `refuse` given by rate is drawn
for each accepted connection; every other fault for each request that generates.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FAULTS", "Fault", "FaultPlan", "cut_short", "from_header", "rewrite"]

# name: (default argument, meaning). Arguments count tokens, events, writes, bytes or milliseconds.
FAULTS: dict[str, tuple[float, str]] = {
    "refuse": (0, "reset the connection: at accept by rate, before any byte of the answer by header"),
    "429": (0, "HTTP 429 with Retry-After: 1"),
    "503": (0, "HTTP 503 with Retry-After: 1"),
    "500": (0, "HTTP 500"),
    "never-answer": (0, "read the request, send nothing"),
    "html": (0, "HTTP 200 with a page of text/html"),
    "empty": (0, "HTTP 200 with an empty stream"),
    "stall": (0, "headers, then silence"),
    "stall-mid": (1, "silence after ARG tokens"),
    "cut": (1, "close the connection after ARG tokens"),
    "reset": (1, "reset the connection after ARG tokens"),
    "error-event": (1, "after ARG tokens an error event, as this server sends it, and the end"),
    "no-done": (0, "all tokens, then the end without a terminal marker"),
    "bad-json": (1, "event number ARG is cut in the middle of its JSON"),
    "slow-header": (2, "the response head byte by byte, ARG ms apart"),
    "close-idle": (0, "after an answer, close the kept connection unannounced, ARG ms later"),
    "multi": (4, "ARG tokens an event"),
    "role-only": (0, "the opening (role) event alone, ARG ms after the request was read"),
    "comments": (0, "a comment line before every event (an empty line in NDJSON)"),
    "wrong-length": (64, "a Content-Length that is ARG bytes too large, then close"),
    "crlf": (0, "CRLF line ends"),
    "split": (3, "each event in ARG writes, 1 ms apart"),
    "one-write": (0, "the whole answer in one write, when its last token is due"),
}
AT_ONCE = {"429", "503", "500", "html", "empty", "refuse", "never-answer"}
WHOLE = {"wrong-length", "one-write"}  # the events are kept and leave together
AFTER_TOKENS = {"stall-mid", "cut", "reset", "error-event"}


@dataclass(frozen=True, slots=True)
class Fault:
    """The fault of one answer."""

    name: str
    arg: float

    def __str__(self) -> str:
        return f"{self.name}={self.arg:g}" if self.arg else self.name


def _fault(name: str, arg: str) -> Fault:
    if name not in FAULTS:
        raise ValueError(f"no fault is called {name!r}; there are {', '.join(FAULTS)}")
    try:
        return Fault(name, float(arg) if arg else FAULTS[name][0])
    except ValueError:
        raise ValueError(f"the argument of fault {name} must be a number, got {arg!r}") from None


def from_header(value: bytes) -> Fault | None:
    """The fault that a request names; "none" shields it from those given by rate."""
    name, _, arg = value.decode("latin-1").strip().partition("=")
    return None if name == "none" else _fault(name, arg)


class FaultPlan:
    """The faults of the command line, drawn request by request."""

    def __init__(self, specs: Sequence[str], seed: int) -> None:
        self._rng = random.Random(seed ^ 0xFA17)
        self._rates: list[tuple[Fault, float, int]] = []  # fault, share, every n-th (0: by share)
        for spec in specs:
            named, separator, rate = spec.partition("=")
            name, _, arg = named.partition(":")
            if not separator:
                raise ValueError(f"--fault {spec}: say how often, as NAME=0.05 or NAME=1/20")
            try:
                share = 0.0 if rate.startswith("1/") else float(rate)
                every = int(rate[2:]) if rate.startswith("1/") else 0
                if not 0 <= share <= 1 or every < 0:
                    raise ValueError
            except ValueError:
                raise ValueError(f"--fault {spec}: the rate must be a share in [0, 1] or 1/n, got {rate!r}") from None
            self._rates.append((_fault(name, arg), share, every))
        self._requests = self._accepts = 0

    def for_accept(self) -> bool:
        """Whether the connection just accepted must be refused."""
        self._accepts += 1
        return self._draw(True, self._accepts) is not None

    def for_request(self) -> Fault | None:
        """The fault of the next request that generates."""
        self._requests += 1
        return self._draw(False, self._requests)

    def _draw(self, refusals: bool, number: int) -> Fault | None:
        for fault, share, every in self._rates:
            if (fault.name == "refuse") is refusals:
                hit = number % every == 0 if every else self._rng.random() < share
                if hit:
                    return fault
        return None


def cut_short(payload: bytes) -> bytes:
    """An event whose JSON breaks off; it still ends as an event does."""
    body = payload.rstrip(b"\n")
    return body[: len(body) * 2 // 3] + payload[len(body) :]


def rewrite(fault: Fault | None, payloads: list[bytes], number: int, *, sse: bool) -> list[bytes]:
    """The events with the fault applied; `number` is that of the token event among them."""
    if fault is None:
        return payloads
    if fault.name == "bad-json" and number == int(fault.arg):
        broken = 0 if len(payloads) == 1 or number else 1
        payloads = [cut_short(p) if i == broken else p for i, p in enumerate(payloads)]
    elif fault.name == "comments":
        payloads = [(b": ping\n\n" if sse else b"\n") + payload for payload in payloads]
    elif fault.name == "crlf":
        payloads = [payload.replace(b"\n", b"\r\n") for payload in payloads]
    return payloads

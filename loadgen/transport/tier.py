"""Which tier stamps the reads on this host."""

from __future__ import annotations

import sys

from loadgen.errors import UsageError

__all__ = ["choose_tier"]


def choose_tier(asked: str, proxy: str | None) -> tuple[str, str | None]:
    """(tier, the reason why it is not a better one). Raises UsageError where the requested tier does not work here."""
    if proxy is not None:
        return "aiohttp", "a proxy stands between"
    if asked != "auto" and asked != "kernel":
        return asked, "asked for"
    wrong = _no_kernel_stamps()
    if wrong is None:
        return "kernel", None
    if asked == "kernel":
        raise UsageError(f"--tier kernel: {wrong}; use --tier auto")
    return "callback", wrong


def _no_kernel_stamps() -> str | None:
    if sys.platform != "linux":
        return f"no kernel stamps on {sys.platform}"
    from loadgen.transport.kernel import stamping_works  # needs epoll

    return stamping_works()

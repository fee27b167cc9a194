"""The one place that imports scipy.stats, which takes 0.6 s: only when a test or a distribution is asked for."""

from __future__ import annotations

from types import ModuleType

__all__ = ["scipy_stats"]


def scipy_stats() -> ModuleType:
    """The module scipy.stats, imported at the first call so that commands without such a test start without it."""
    from scipy import stats

    return stats  # type: ignore[no-any-return]

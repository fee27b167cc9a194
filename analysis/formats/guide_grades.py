"""The multi-agent guide's grades of overlap efficiency, contended runs and variation (docs/agents.md#artifacts)."""

from __future__ import annotations

__all__ = ["grade"]

# (limit, grade), the first whose limit is exceeded, or undercut where less is better.
GRADES = {
    "overlap_efficiency": ((0.95, "excellent"), (0.90, "good"), (0.85, "acceptable"), (0.80, "below acceptable")),
    "contended_share": ((0.05, "excellent"), (0.10, "good"), (0.20, "acceptable"), (0.30, "above acceptable")),
    "cv": ((0.01, "excellent"), (0.05, "good"), (0.10, "acceptable")),
}
LESS_IS_BETTER = ("contended_share", "cv")
WORST_GRADE = "problematic"


def grade(name: str, value: float | None) -> str | None:
    """The guide's grade of a figure in GRADES; None where there is no figure."""
    if value is None:
        return None
    for limit, word in GRADES[name]:
        if value < limit if name in LESS_IS_BETTER else value > limit:
            return word
    return WORST_GRADE

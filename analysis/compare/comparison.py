"""A comparison as values: what `loadgen compare` prints, and the `loadgen.compare/1` schema of its JSON.

The fields are the keys of the JSON, in its order. Numbers are rounded to ten digits. A key whose value is not known, or
which the runs were too few for, is null.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from analysis.compare.fairness import Fairness
from analysis.estimate import Figure, Note
from analysis.stats.equivalence import ComparisonVerdict
from analysis.stats.planning import Seen
from analysis.summary import Target
from loadgen.manifest import LoadFacts

__all__ = [
    "SCHEMA",
    "Change",
    "Compared",
    "Comparison",
    "EquivalenceTest",
    "Family",
    "FiellerRatio",
    "Gate",
    "GateVerdict",
    "Interval",
    "RunValues",
    "Scale",
    "Secondary",
    "ShiftInterval",
    "SideFacts",
]

SCHEMA = "loadgen.compare/1"


class Scale(StrEnum):
    """How two values of a metric are compared: by their ratio, or by the points between them."""

    RATIO = "ratio"
    POINTS = "points"


class Change(StrEnum):
    """Which way B's value lies from A's."""

    BETTER = "better"
    WORSE = "worse"


class GateVerdict(StrEnum):
    """Whether B is no worse than A by more than the margin: on all metrics, not on one, or not known."""

    HELD = "held"
    WORSE = "worse"
    UNDECIDED = "undecided"


class RunValues(Struct, frozen=True, kw_only=True):
    """A metric on one side: its value in each run that counts, and the middle of them."""

    value: float | None  # the geometric mean; of points, or where a value is zero, the mean
    n: int
    values: tuple[float | None, ...]


class Interval(Struct, frozen=True, kw_only=True):
    """An interval of a ratio, or of the points between, at a confidence."""

    low: float | None
    high: float | None
    confidence: float


class EquivalenceTest(Struct, frozen=True, kw_only=True):
    """Two one-sided tests against the margin: the greater p, and the interval that must lie inside."""

    p: float | None
    low: float | None
    high: float | None
    confidence: float
    margin: tuple[float | None, float | None]


class FiellerRatio(Struct, frozen=True, kw_only=True):
    """The ratio of arithmetic means with Fieller's interval; no ends where it is unbounded."""

    value: float | None
    low: float | None
    high: float | None


class ShiftInterval(Struct, frozen=True, kw_only=True):
    """The Hodges-Lehmann shift of B from A, in the metric's unit."""

    value: float | None
    low: float | None
    high: float | None
    confidence: float | None


class Secondary(Struct, frozen=True, kw_only=True):
    """The same question asked in other ways. They are shown beside the ratio, and decide nothing."""

    ratio_of_means: FiellerRatio | None  # None for points
    shift: ShiftInterval
    exact_test: str
    exact_p: float | None
    least_p: float | None  # the smallest p that this number of runs can give
    permutation_p: float | None
    cliffs_delta: float | None
    agrees: bool | None  # with the t test at 5 %; None where the exact test cannot say


class Compared(Struct, frozen=True, kw_only=True):
    """One metric of B beside A's, and the verdict on it."""

    label: str
    unit: str
    scale: Scale
    higher_is_better: bool
    a: RunValues
    b: RunValues
    b_to_a: Figure  # the ratio, or the points between
    method: str | None
    df: float | None
    p: float | None
    p_holm: float | None
    family_interval: Interval | None
    equivalence: EquivalenceTest | None
    verdict: ComparisonVerdict
    direction: Change | None
    why: str | None  # there is no verdict
    why_code: Note | None
    detectable: Seen | None  # of an inconclusive one
    secondary: Secondary | None
    notes: tuple[str, ...]
    note_codes: tuple[Note, ...]


class SideFacts(Struct, frozen=True, kw_only=True):
    """What one side was."""

    directory: str
    arm: str | None
    runs: int
    requests: int  # that succeeded
    verdict: str
    targets: tuple[Target, ...]
    load: LoadFacts | None  # as the profile states it


class Family(Struct, frozen=True, kw_only=True):
    """The metrics that were tested together."""

    size: int
    metrics: tuple[str, ...]
    adjustment: str
    declared: bool  # named beforehand; false: all that both sides have


class Gate(Struct, frozen=True, kw_only=True):
    """Whether a change may pass, and the metrics that speak against it."""

    verdict: GateVerdict
    worse: tuple[str, ...]
    undecided: tuple[str, ...]


class Comparison(Struct, frozen=True, kw_only=True):
    """B compared with A, metric by metric."""

    schema: str = SCHEMA
    a: SideFacts
    b: SideFacts
    margin: float
    confidence: float
    paired: bool
    pairing: str
    pairing_code: Note
    family: Family
    metrics: dict[str, Compared]
    fairness: Fairness
    gate: Gate
    notes: tuple[str, ...]
    note_codes: tuple[Note, ...]

    def to_json(self) -> dict[str, Any]:
        """The plain JSON types of the comparison, in the order of the fields."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

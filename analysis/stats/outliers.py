"""Which values stand out from the others of their kind: METHODOLOGY 12. They are marked, and kept in every figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["LEAST", "MAD_TO_SD", "outliers", "robust_z"]

Float64 = NDArray[np.float64]

Z = 3.5
LEAST = 5  # values: of fewer nobody can say which one is the odd one
MAD_TO_SD = 1 / float(special.ndtri(0.75))  # 1.4826: of normal values


def robust_z(baseline: Float64, x: Float64) -> Float64:
    """Return z of log x against `baseline`: (log x - median) / (1.4826 MAD of the logarithms). All > 0."""
    logs = np.log(baseline)
    centre = np.median(logs)
    return np.asarray((np.log(x) - centre) / (MAD_TO_SD * np.median(np.abs(logs - centre))), np.float64)


def outliers(values: Sequence[float | None]) -> list[bool]:
    """Which values have a robust z beyond 3.5 on the logarithmic scale; none of fewer than five.

    A value of zero or below among positive ones that differ stands out, a missing one does not.
    """
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    known = numbers[numbers > 0]
    logs = np.log(known)
    if len(known) < LEAST or np.median(np.abs(logs - np.median(logs))) == 0:
        return [False] * len(values)
    found = numbers <= 0
    found[numbers > 0] = np.abs(robust_z(known, known)) > Z
    told: list[bool] = found.tolist()
    return told

"""Outliers among values of one kind: docs/methodology.md#outliers. They are marked, and stay in every figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["LEAST", "MAD_TO_SD", "outliers", "robust_z"]

Float64 = NDArray[np.float64]

Z = 3.5
LEAST = 5  # values: with fewer it is not clear which of them is the outlier
MAD_TO_SD = 1 / float(special.ndtri(0.75))  # 1.4826: of normal values


def robust_z(baseline: Float64, x: Float64) -> Float64:
    """The z of log x against `baseline`: (log x - median) / (1.4826 MAD of the logarithms). All > 0."""
    logs = np.log(baseline)
    centre = np.median(logs)
    return np.asarray((np.log(x) - centre) / (MAD_TO_SD * np.median(np.abs(logs - centre))), np.float64)


def outliers(values: Sequence[float | None]) -> list[bool]:
    """Whether each value has a robust z beyond 3.5 on the logarithmic scale; with fewer than five values, none has.

    A value of zero or below among positive ones that differ is an outlier, a missing one is not.
    """
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    positive = numbers[numbers > 0]
    logs = np.log(positive)
    if len(positive) < LEAST or np.median(np.abs(logs - np.median(logs))) == 0:
        return [False] * len(values)
    outlying = numbers <= 0
    outlying[numbers > 0] = np.abs(robust_z(positive, positive)) > Z
    flags: list[bool] = outlying.tolist()
    return flags

"""Means with intervals, and tests between two systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simvq_audio.errors import needs_extra

CONFIDENCE = 0.95
RESAMPLES = 5000
# Draws in memory at once.
_BATCH_DRAWS = 1_000_000
# Scores that differ only by rounding have no distribution.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Mean:
    """A mean over recordings.

    Attributes:
        value: the arithmetic mean.
        low, high: ends of its 95 % bootstrap interval; None for a single recording.
        count: number of recordings.
    """

    value: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class PairedTest:
    """Two systems on the recordings that both have scores for.

    Attributes:
        difference: mean of second minus first, with its interval.
        p_value: of the two-sided Wilcoxon signed-rank test, without correction for the
            number of metrics; None for a single recording.
    """

    difference: Mean
    p_value: float | None


def mean_interval(values: Sequence[float] | np.ndarray, seed: int = 0) -> Mean:
    """The mean and its bootstrap interval, bias-corrected and accelerated (BCa).

    Recordings are drawn with replacement, 5000 times. BCa (Efron, "Better bootstrap confidence
    intervals", JASA 1987) keeps its level better than percentiles on skewed scores; with few
    recordings it is still too narrow (80 % with 5, 91 % with 20, 94 % with 133).

    Args:
        values: at least one, all finite.
        seed: of the draws; equal values give an equal interval.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    array = np.asarray(values, dtype=np.float64)
    value = float(array.mean())
    if len(array) < 2:
        return Mean(value, None, None, len(array))
    if np.ptp(array) <= _ROUNDING * np.abs(array).max():
        return Mean(value, value, value, len(array))
    stats = _scipy_stats()
    interval = stats.bootstrap(
        (array,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH_DRAWS // len(array)),
        vectorized=True,
        axis=-1,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Mean(value, float(interval.low), float(interval.high), len(array))


def paired_test(
    first: Mapping[str, float], second: Mapping[str, float], seed: int = 0
) -> PairedTest | None:
    """Compare the scores of two systems, by recording; None if they share no recording.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return None
    differences = np.array([second[name] - first[name] for name in shared])
    mean = mean_interval(differences, seed)
    if len(shared) < 2:
        return PairedTest(mean, None)
    if not differences.any():
        return PairedTest(mean, 1.0)
    return PairedTest(mean, float(_scipy_stats().wilcoxon(differences).pvalue))


def _scipy_stats():
    with needs_extra("eval"):
        from scipy import stats
    return stats

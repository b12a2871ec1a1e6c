"""Paired comparisons of two rows over the seeds that both have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, log2, sqrt
from statistics import mean, stdev

from scipy.stats import t

from simvq_audio.errors import ConfigError
from study.results import RunLog

_LEVEL = 0.95
_FEWEST = 3


@dataclass(frozen=True)
class Interval:
    """Paired differences, their mean and Student's 95 % interval.

    With fewer than three seeds the interval is infinite, and supports no claim.
    """

    middle: float
    low: float
    high: float
    each: tuple[float, ...]

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len(self.each)

    @classmethod
    def of(cls, differences: Sequence[float]) -> Interval:
        """Of one difference a seed."""
        middle, count, each = mean(differences), len(differences), tuple(differences)
        if count < _FEWEST:
            return cls(middle, -inf, inf, each)
        half = t.ppf((1 + _LEVEL) / 2, count - 1) * stdev(differences) / sqrt(count)
        return cls(middle, middle - half, middle + half, each)


def paired(
    logs: Sequence[RunLog],
    row: str,
    other: str,
    codebook_size: int,
    read: Callable[[RunLog], float],
) -> Interval:
    """``row`` minus ``other``, seed by seed.

    Runs of equal seed have the same crops in the same order and start from the same encoder and
    decoder.

    Raises:
        ConfigError: they have no seed in common.
    """
    of: dict[str, dict[int, float]] = {row: {}, other: {}}
    for log in logs:
        if log.run.row in of and log.run.codebook_size == codebook_size:
            of[log.run.row][log.run.seed] = read(log)
    seeds = sorted(of[row].keys() & of[other].keys())
    if not seeds:
        raise ConfigError(f"{row} and {other} have no seed in common at K = {codebook_size}")
    return Interval.of([of[row][seed] - of[other][seed] for seed in seeds])


def perplexity_ratio(logs: Sequence[RunLog], row: str, other: str, codebook_size: int) -> Interval:
    """Corrected perplexity of ``row`` over that of ``other``: paired on a logarithmic scale."""
    bits = paired(logs, row, other, codebook_size, lambda log: log2(log.use.corrected_perplexity))
    middle, low, high, *each = (
        2 ** min(b, 1000.0) for b in (bits.middle, bits.low, bits.high, *bits.each)
    )
    return Interval(middle, low, high, tuple(each))

"""How a codebook is used, as the study reports it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simvq_audio.model.usage import code_counts, entropy, perplexity, utilisation

_RANKS = 48


@dataclass(frozen=True)
class Usage:
    """Use of a codebook over some frames.

    Attributes:
        frames: how many codes were counted.
        utilisation: share of codes that occurred, 0 to 1.
        even_utilisation: the share that would be expected if all codes were equally likely; with
            fewer frames than codes not even that can reach 1.
        perplexity, entropy: 2 to the entropy, and the entropy in bits a frame. Both are those of
            the counts: never above the logarithm of the frames.
        histogram: (rank, count) from the most frequent code on, at ranks evenly spaced on a
            logarithmic scale.
    """

    frames: int
    utilisation: float
    even_utilisation: float
    perplexity: float
    entropy: float
    histogram: list[tuple[int, int]]


def usage(counts: Tensor) -> Usage:
    """From counts (K,), as ``code_counts`` makes them."""
    size, frames = len(counts), int(counts.sum())
    ordered = counts.sort(descending=True).values
    used = int((counts > 0).sum())
    ranks = np.unique(np.geomspace(1, max(1, used), _RANKS).round().astype(int))
    return Usage(
        frames,
        utilisation(counts).item(),
        1 - (1 - 1 / size) ** frames,
        perplexity(counts).item(),
        entropy(counts).item(),
        [(int(rank), int(ordered[rank - 1])) for rank in ranks],
    )


class Window:
    """Codes of the last steps of training."""

    def __init__(self, codebook_size: int, steps: int) -> None:
        self._size = codebook_size
        self._steps = steps
        self._kept: list[Tensor] = []

    def add(self, indices: Tensor) -> None:
        self._kept = [*self._kept[1 - self._steps :], indices.detach()]

    def usage(self) -> Usage:
        joined = torch.cat([kept.reshape(-1) for kept in self._kept])
        return usage(code_counts(joined, self._size).cpu())

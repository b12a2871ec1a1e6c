"""Use of a codebook, for the study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from simvq_audio.model.usage import code_counts, entropy, perplexity, utilisation

_RANKS = 48


@dataclass(frozen=True)
class Use:
    """Use of a codebook over some frames; the codes of several codebooks are counted jointly.

    Attributes:
        frames: how many codes were counted.
        utilisation: share of codes that occurred, 0 to 1.
        even_utilisation: the expected share if all codes were equally likely; below 1 with few
            frames.
        perplexity, entropy: 2 to the entropy, and the entropy of the counts in bits per frame;
            limited by the number of frames.
        histogram: (rank, count), most frequent first, at ranks evenly spaced on a logarithmic
            scale.
    """

    frames: int
    utilisation: float
    even_utilisation: float
    perplexity: float
    entropy: float
    histogram: list[tuple[int, int]]

    @classmethod
    def of(cls, counts: Tensor) -> Use:
        """From counts (K,), as ``count_codes`` makes them."""
        size, frames = len(counts), int(counts.sum())
        ordered = counts.sort(descending=True).values
        used = int((counts > 0).sum())
        ranks = np.unique(np.geomspace(1, max(1, used), _RANKS).round().astype(int))
        return cls(
            frames,
            utilisation(counts).item(),
            1 - (1 - 1 / size) ** frames,
            perplexity(counts).item(),
            entropy(counts).item(),
            [(int(rank), int(ordered[rank - 1])) for rank in ranks],
        )

    @classmethod
    def none(cls) -> Use:
        """Of a run without codes."""
        return cls(0, 0.0, 0.0, 1.0, 0.0, [])


def count_codes(indices: Tensor, sizes: Sequence[int], counts: Tensor | None = None) -> Tensor:
    """Count codes (batch, frames) or (batch, codebooks, frames): -> (product of sizes,) int64.

    Args:
        counts: of earlier frames, which are added.
    """
    joint = indices
    if len(sizes) > 1:
        joint = torch.zeros_like(indices[:, 0])
        for number, size in enumerate(sizes):
            joint = joint * size + indices[:, number]
    found = code_counts(joint, prod(sizes)).cpu()
    return found if counts is None else counts + found

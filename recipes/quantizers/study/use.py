"""Use of a codebook, for the study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from simvq_audio.model.usage import code_counts, entropy, perplexity, utilisation


@dataclass(frozen=True)
class Use:
    """Use of a codebook over some frames; the codes of several codebooks are counted jointly.

    Attributes:
        frames: how many codes were counted.
        utilisation: share of codes that occurred, 0 to 1.
        even_utilisation: the expected share if all codes were equally likely; below 1 with few
            frames.
        chao1: Chao's lower bound on the share of codes that would occur in endless speech, 0 to 1
            (``chao1``).
        perplexity, entropy: 2 to the entropy, and the entropy of the counts in bits per frame;
            both are too low with few frames.
        corrected_perplexity: 2 to Chao and Shen's estimate of the entropy (``chao_shen_entropy``).
    """

    frames: int
    utilisation: float
    even_utilisation: float
    chao1: float
    perplexity: float
    corrected_perplexity: float
    entropy: float

    @classmethod
    def of(cls, counts: Tensor) -> Use:
        """From counts (K,), as ``count_codes`` makes them."""
        size, frames = len(counts), int(counts.sum())
        return cls(
            frames,
            utilisation(counts).item(),
            1 - (1 - 1 / size) ** frames,
            min(1.0, chao1(counts) / size),
            perplexity(counts).item(),
            min(float(size), 2 ** chao_shen_entropy(counts)),
            entropy(counts).item(),
        )

    @classmethod
    def none(cls) -> Use:
        """Of a run without codes."""
        return cls(0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0)


def chao1(counts: Tensor) -> float:
    """A lower bound on the number of codes that can occur, from those seen once and twice.

    Source: Chao, "Nonparametric Estimation of the Number of Classes in a Population" (1984), in
    its bias-corrected form.
    """
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return int((counts > 0).sum()) + once * (once - 1) / (2 * (twice + 1))


def chao_shen_entropy(counts: Tensor) -> float:
    """Entropy in bits, corrected for the codes that few frames do not show.

    Frequencies are scaled by the estimated coverage, and each term is divided by the probability
    that its code was seen at all.

    Source: Chao and Shen, "Nonparametric estimation of Shannon's index of diversity when there are
    unseen species in sample" (2003).
    """
    seen = counts[counts > 0].double()
    frames = seen.sum()
    if not len(seen):
        return 0.0
    once = int((seen == 1).sum())
    # With no code seen twice, coverage would be 0.
    coverage = 1 - min(once, int(frames) - 1) / frames
    p = coverage * seen / frames
    return float(-(p * p.log2() / -torch.expm1(frames * torch.log1p(-p))).sum())


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

"""How much of a codebook is in use."""

from __future__ import annotations

import torch
from torch import Tensor


def code_counts(indices: Tensor, codebook_size: int) -> Tensor:
    """How often each code occurs: any shape of indices -> (codebook_size,) int64.

    Memory grows with the codebook, not with codebook x frames, so it is cheap at 262 144 entries.
    Counts of several batches can be added up before asking for utilisation or perplexity.
    """
    return torch.bincount(indices.reshape(-1), minlength=codebook_size)


def utilisation(counts: Tensor) -> Tensor:
    """Share of codes that occur at least once, 0 to 1; a scalar from ``code_counts``."""
    return (counts > 0).double().mean()


def entropy(counts: Tensor) -> Tensor:
    """Entropy of the codes in bits: what an ideal order-0 coder would spend on one frame."""
    p = counts.double() / counts.sum().clamp(min=1)
    return -torch.xlogy(p, p).sum() / torch.log(torch.tensor(2.0, dtype=torch.double))


def perplexity(counts: Tensor) -> Tensor:
    """2 to the entropy: the number of equally likely codes that would be as hard to predict."""
    return torch.exp2(entropy(counts))

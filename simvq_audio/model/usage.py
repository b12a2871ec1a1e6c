"""How much of a codebook is in use."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def entry_numbers(indices: Tensor, codebook_sizes: Sequence[int]) -> Tensor:
    """Number the entries of all codebooks consecutively: indices -> the same shape.

    Args:
        indices: (batch, frames) of one codebook, or (batch, codebooks, frames).
    """
    if len(codebook_sizes) == 1:
        return indices
    sizes = torch.tensor(codebook_sizes, device=indices.device)
    return indices + (sizes.cumsum(0) - sizes)[:, None]


def code_counts(indices: Tensor, codebook_size: int) -> Tensor:
    """How often each code occurs: any shape of indices -> (codebook_size,) int64.

    Memory grows with the codebook, not with codebook x frames. Counts of several batches can be
    added before computing utilisation or perplexity.
    """
    return torch.bincount(indices.reshape(-1), minlength=codebook_size)


def quantization_error(latent: Tensor, entries: Tensor) -> Tensor:
    """Squared error over the latents' variance around their mean; a scalar.

    Args:
        latent, entries: (batch, latent_dim, frames).
    """
    spread = latent - latent.mean(dim=(0, 2), keepdim=True)
    return (latent - entries).square().sum() / spread.square().sum().clamp(min=1e-12)


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

"""Where entries start: at the latents of a model in training.

With the usual initialisation, latents and entries differ in scale, offset and shape. A few entries
are then nearest to all frames, and only those learn. docs/quantizers.md has measurements.
"""

from __future__ import annotations

import torch
from torch import Tensor

from simvq_audio.model.quantizers.nearest import nearest_entries

# Least eigenvalue, as a share of the largest, so that latents that do not vary in some direction
# can be whitened.
_SMALLEST_SHARE = 1e-8


def moments(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and a matrix (d, d) that maps unit normal vectors to the latents' covariance.

    Args:
        latents: (n, d) float64.

    Raises:
        ValueError: there are fewer than two latents.
    """
    if len(latents) < 2:
        raise ValueError("at least two latents are needed for a covariance")
    mean = latents.mean(dim=0)
    values, vectors = torch.linalg.eigh((latents - mean).T.cov())
    values = values.clamp(min=_SMALLEST_SHARE * values[-1].clamp(min=_SMALLEST_SHARE))
    return mean, vectors * values.sqrt()


def draw(latents: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw entries at random from latents (n, d).

    Returns:
        entries (size, d), and (size, d) unit normal noise where an entry repeats an earlier one,
        else 0: of entries at the same place, only one would ever be used.
    """
    order = torch.randperm(len(latents), generator=generator)
    picks = order.repeat(-(-size // len(latents)))[:size].to(latents.device)
    noise = torch.randn(size, latents.shape[1], generator=generator, dtype=latents.dtype)
    noise[: len(latents)] = 0
    return latents[picks], noise.to(latents.device)


def cell_means(latents: Tensor, cells: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Means of the latents of each cell, for a round of k-means (Lloyd).

    Args:
        latents: (n, d).
        cells: (n,) index of each latent's entry.

    Returns:
        which entries have a latent (size,) bool, and the means of those (hit, d).
    """
    counts = torch.bincount(cells, minlength=size)
    hit = counts > 0
    sums = latents.new_zeros(size, latents.shape[1]).index_add_(0, cells, latents)
    return hit, sums[hit] / counts[hit, None]


def start_table(
    entries: Tensor,
    latents: Tensor,
    generator: torch.Generator,
    *,
    entries_from_latents: bool,
    kmeans_rounds: int,
) -> None:
    """Start a table of entries (K, d), drawn from N(0, 1/d), in place; see ``Quantizer.start``."""
    flat = latents.double()
    mean, scale = moments(flat)
    if entries_from_latents:
        drawn, noise = draw(flat, len(entries), generator)
        entries.copy_(drawn + 0.1 * noise @ scale.T)
    else:
        unit = entries.double() * entries.shape[1] ** 0.5
        entries.copy_(unit @ scale.T + mean)
    for _ in range(kmeans_rounds):
        hit, means = cell_means(flat, nearest_entries(latents.float(), entries), len(entries))
        entries[hit] = means.float()

"""The search that every quantiser with a table of entries does."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Distances held at once: 2**25 float32 values are 128 MiB.
_BLOCK = 2**25
# On the CPU the search goes tile by tile, so that distances are still in the cache when their
# minimum is taken: (vectors, entries) of a tile, 4 MiB. Measured on one core with 450 vectors of
# width 32: 130 ms instead of 530 at 262 144 entries, 32 instead of 126 at 65 536, 4 instead of 12
# at 8192.
_TILE = (512, 2048)
# The minimum of a row is found among the minima of groups of entries: without indices it is taken
# ten times as fast.
_GROUP = 32


@torch.no_grad()
def nearest_entries(vectors: Tensor, codebook: Tensor, half_norms: Tensor | None = None) -> Tensor:
    """Index of the entry with the smallest Euclidean distance to each vector.

    The squared norm of the vector is left out: it is the same for every entry. Of entries equally
    far, the first counts.

    Args:
        vectors: (n, d) float32.
        codebook: (K, d) float32.
        half_norms: (K,) half the squared norm of each entry, if known already.

    Returns:
        (n,) int64.
    """
    if half_norms is None:
        half_norms = 0.5 * codebook.square().sum(dim=1)
    return torch.cat([found[0] for found in _tiles(vectors, codebook, half_norms)])


@torch.no_grad()
def nearest_with_margins(
    vectors: Tensor, codebook: Tensor, half_norms: Tensor
) -> tuple[Tensor, Tensor]:
    """``nearest_entries``, and how clear the choice was.

    Returns:
        indices (n,) int64, and (n,) half the difference between the squared distances of the
        second nearest entry and the nearest.
    """
    found = list(_tiles(vectors, codebook, half_norms))
    indices = torch.cat([each[0] for each in found])
    return indices, torch.cat([second - closest for _, closest, second in found])


def _tiles(
    vectors: Tensor, codebook: Tensor, half_norms: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    size = len(codebook)
    # Many small products are slow on a GPU: there, whole rows of distances.
    on_cpu = vectors.device.type == "cpu"
    rows, columns = _TILE if on_cpu else (max(1, _BLOCK // size), size)
    columns = -(-min(columns, size) // _GROUP) * _GROUP
    # One buffer for all tiles: fresh memory would cost as much as the products.
    distances = vectors.new_empty(min(rows, len(vectors)), columns)
    for block in vectors.split(rows):
        yield _search(block, codebook, half_norms, distances[: len(block)])


def _search(
    vectors: Tensor, codebook: Tensor, half_norms: Tensor, distances: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(indices, values of the nearest, those of the second nearest); overwrites ``distances``."""
    closest = indices = second = None
    columns = distances.shape[1]
    for first in range(0, len(codebook), columns):
        part = slice(first, first + columns)
        entries = codebook[part]
        distances[:, len(entries) :] = torch.inf
        torch.addmm(
            half_norms[part], vectors, entries.t(), alpha=-1, out=distances[:, : len(entries)]
        )
        values, places, runners_up = _two_smallest(distances)
        if closest is None or indices is None or second is None:
            closest, indices, second = values, places + first, runners_up
            continue
        second = torch.minimum(torch.maximum(closest, values), torch.minimum(second, runners_up))
        closer = values < closest
        closest = torch.where(closer, values, closest)
        indices = torch.where(closer, places + first, indices)
    assert closest is not None and indices is not None and second is not None
    return indices, closest, second


def _two_smallest(distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row (n, columns) the smallest value, its first place, and the second smallest."""
    groups = distances.unflatten(1, (-1, _GROUP))
    smallest = groups.amin(dim=2)
    values, where = smallest.min(dim=1)
    rows = torch.arange(len(distances), device=distances.device)
    group = groups[rows, where]
    places = group.argmin(dim=1)
    # The second smallest lies in the same group, or is the smallest of another.
    smallest[rows, where] = torch.inf
    group[rows, places] = torch.inf
    second = torch.minimum(smallest.amin(dim=1), group.amin(dim=1))
    return values, places + where * _GROUP, second

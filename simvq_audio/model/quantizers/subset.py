"""Part of another quantiser's codebook, for nested codebooks."""

from __future__ import annotations

import torch
from torch import Tensor

from simvq_audio.model.quantizers.base import TableQuantizer


class Subset(TableQuantizer):
    """Nearest neighbour among some entries of ``full``; not for training.

    Args:
        full: whose entries they are; shared, not copied.
        entries: (codebook_size,) indices into its codebook.
    """

    entries: Tensor

    def __init__(self, full: TableQuantizer, entries: Tensor) -> None:
        super().__init__()
        self._full = full
        self.register_buffer("entries", entries)

    def codebook(self) -> Tensor:
        """The entries (codebook_size, latent_dim) float32."""
        return self._full.codebook()[self.entries]

    def entries_of(self, indices: Tensor) -> Tensor:
        """(batch, frames) indices -> their entries (batch, frames, latent_dim)."""
        return self.codebook()[indices]

    def start(
        self,
        latents: Tensor,
        generator: torch.Generator,
        *,
        entries_from_latents: bool = True,
        kmeans_rounds: int = 0,
    ) -> None:
        """Not possible.

        Raises:
            ValueError: always.
        """
        raise ValueError("a nested codebook has the entries of another one; train that")

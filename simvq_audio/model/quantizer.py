"""SimVQ: vector quantisation with a frozen basis under one linear layer (arXiv 2411.02038)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvq_audio.model.config import QuantizerConfig
from simvq_audio.model.nearest import nearest_entries


class Quantized(NamedTuple):
    """What the quantiser returns.

    Attributes:
        latent: (batch, latent_dim, frames) chosen entries; the gradient goes straight through.
        indices: (batch, frames) int64.
        loss: scalar, codebook term + beta x commitment term, means over all elements.
    """

    latent: Tensor
    indices: Tensor
    loss: Tensor


class SimVQ(nn.Module):
    """Nearest neighbour in ``W(C)``: C frozen and random, W the only thing that learns.

    ``basis`` is C (codebook_size, latent_dim), drawn from N(0, 1/latent_dim) and kept in the
    model file, since nothing else could bring it back. ``proj`` is W.

    Source: Zhu et al., "Addressing Representation Collapse in Vector Quantized Models with One
    Linear Layer", and its published audio code (with a bias in W, beta on the encoder's side).
    """

    basis: Tensor
    commitment: float = 0.25  # beta; the trainer sets its own

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        k, d = config.codebook_size, config.latent_dim
        self.register_buffer("basis", torch.randn(k, d) * d**-0.5)
        self.proj = nn.Linear(d, d, bias=config.bias)
        self._cache: tuple[tuple[object, ...], Tensor, Tensor] | None = None

    def train(self, mode: bool = True) -> SimVQ:
        """Change mode as ``Module.train`` does; what was cached under the old W is dropped."""
        self._cache = None
        return super().train(mode)

    def codebook(self) -> Tensor:
        """The effective codebook W(C), (codebook_size, latent_dim) float32, without gradient.

        In evaluation mode it is kept between calls, and computed anew when W or C has changed in
        place or been replaced. In training mode it is computed at every call: fused optimisers
        change W without raising its version (torch 2.11).
        """
        return self._codebook_and_norms()[0]

    def forward(self, latent: Tensor) -> Quantized:
        """Quantise (batch, latent_dim, frames); see ``Quantized``."""
        # Autocast would run the projection in half precision, and training would then learn a
        # codebook that inference does not have.
        with torch.autocast(latent.device.type, enabled=False):
            z = latent.float().transpose(1, 2)
            indices = self._search(z)
            # W of the chosen rows equals the chosen rows of W(C): no gradient at size K x d.
            entries = F.linear(self.basis[indices], self.proj.weight, self.proj.bias)
            codebook_term = F.mse_loss(entries, z.detach())
            commitment_term = F.mse_loss(z, entries.detach())
            loss = codebook_term + self.commitment * commitment_term
            straight_through = z + (entries - z).detach()
        return Quantized(straight_through.transpose(1, 2), indices, loss)

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        """(batch, latent_dim, frames) -> indices (batch, frames) int64."""
        with torch.autocast(latent.device.type, enabled=False):
            return self._search(latent.float().transpose(1, 2))

    def decode(self, indices: Tensor) -> Tensor:
        """(batch, frames) indices -> (batch, latent_dim, frames) entries of W(C).

        Raises:
            IndexError: an index lies outside the codebook (on the CPU).
        """
        return self.codebook()[indices].transpose(1, 2)

    def _search(self, z: Tensor) -> Tensor:
        """Index of the nearest entry for each of (..., latent_dim) float32 vectors."""
        codebook, half_norms = self._codebook_and_norms()
        flat = z.detach().reshape(-1, z.shape[-1])
        return nearest_entries(flat, codebook, half_norms).view(z.shape[:-1])

    def _codebook_and_norms(self) -> tuple[Tensor, Tensor]:
        """(W(C), half the squared norm of each row)."""
        if self.training:
            return self._project()
        # In-place changes (load_state_dict, plain optimisers) raise a tensor's version; moves and
        # replacements change its storage. train() drops the cache as well.
        key = tuple(
            (t.data_ptr(), t._version, t.device)
            for t in (self.proj.weight, self.proj.bias, self.basis)
            if t is not None
        )
        if self._cache is None or self._cache[0] != key:
            self._cache = (key, *self._project())
        return self._cache[1], self._cache[2]

    @torch.no_grad()
    def _project(self) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.basis.device.type, enabled=False):
            codebook = F.linear(self.basis, self.proj.weight, self.proj.bias)
        return codebook, 0.5 * codebook.square().sum(dim=1)

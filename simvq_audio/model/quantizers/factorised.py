"""Factorised vector quantisation: unit vectors in few dimensions (ViT-VQGAN, DAC)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvq_audio.model.quantizers.base import Quantized, Quantizer, straight_through
from simvq_audio.model.quantizers.config import FactorisedVQConfig
from simvq_audio.model.quantizers.fsq import least_squares, principal_axes
from simvq_audio.model.quantizers.nearest import nearest_entries
from simvq_audio.model.quantizers.start import cell_means, draw


class FactorisedVQ(Quantizer):
    """Linear layer to few dimensions, nearest entry by angle, linear layer back.

    Latents and entries are scaled to unit length before they are compared, in the losses, and in
    what the second layer sees. ``entries`` is (codebook_size, code_dim), of any length.

    Source: Yu et al., "Vector-quantized Image Modeling with Improved VQGAN" (arXiv 2110.04627),
    section 3.2. The Descript audio codec (arXiv 2306.06546) has it too, with the entries unscaled
    in losses and output.
    """

    config: FactorisedVQConfig

    def __init__(self, config: FactorisedVQConfig) -> None:
        super().__init__()
        self.config = config
        self.project_in = nn.Linear(config.latent_dim, config.code_dim)
        self.entries = nn.Parameter(torch.randn(config.codebook_size, config.code_dim))
        self.project_out = nn.Linear(config.code_dim, config.latent_dim)

    def forward(self, latent: Tensor) -> Quantized:
        """Quantise (batch, latent_dim, frames); see ``Quantized``. Losses are of unit vectors."""
        with torch.autocast(latent.device.type, enabled=False):
            unit = self._unit(latent)
            indices = self._search(unit)
            entries = F.normalize(F.embedding(indices, self.entries), dim=-1)
            losses = {
                "codebook": F.mse_loss(entries, unit.detach()),
                "commitment": F.mse_loss(unit, entries.detach()),
            }
            chosen = self.project_out(straight_through(unit, entries))
        return Quantized(chosen.transpose(1, 2), indices, losses)

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        """(batch, latent_dim, frames) -> indices (batch, frames) int64."""
        with torch.autocast(latent.device.type, enabled=False):
            return self._search(self._unit(latent))

    def decode(self, indices: Tensor) -> Tensor:
        """(batch, frames) indices -> (batch, latent_dim, frames).

        Raises:
            IndexError: an index lies outside the codebook (on the CPU).
        """
        return self.project_out(F.normalize(self.entries[indices], dim=-1)).transpose(1, 2)

    def fast_parameters(self) -> list[nn.Parameter]:
        """The table."""
        return [self.entries]

    @torch.no_grad()
    def start(
        self,
        latents: Tensor,
        generator: torch.Generator,
        *,
        entries_from_latents: bool = True,
        kmeans_rounds: int = 0,
    ) -> None:
        """The first layer gets the latents' principal axes, scaled to unit variance.

        Entries are drawn from latents after it, or stay as they are: of any direction. The second
        layer gets the least-squares map from the chosen entries to the latents.
        """
        if len(latents) < 2:
            raise ValueError("at least two latents are needed for a covariance")
        flat = latents.double()
        weight, bias = principal_axes(flat, self.config.code_dim)
        self.project_in.weight.copy_(weight)
        self.project_in.bias.copy_(bias)
        unit = self._unit(latents.float().T[None])[0]
        if entries_from_latents:
            drawn, noise = draw(unit, self.config.codebook_size, generator)
            self.entries.copy_(F.normalize(drawn + 0.1 * noise, dim=-1))
        for _ in range(kmeans_rounds):
            hit, means = cell_means(unit, self._search(unit), self.config.codebook_size)
            self.entries[hit] = F.normalize(means, dim=-1)
        chosen = F.normalize(self.entries[self._search(unit)], dim=-1)
        weight, bias = least_squares(chosen.double(), flat)
        self.project_out.weight.copy_(weight)
        self.project_out.bias.copy_(bias)

    def _unit(self, latent: Tensor) -> Tensor:
        """(batch, latent_dim, frames) -> unit vectors (batch, frames, code_dim)."""
        return F.normalize(self.project_in(latent.float().transpose(1, 2)), dim=-1)

    def _search(self, unit: Tensor) -> Tensor:
        """Index of the entry at the smallest angle for each of (..., code_dim) unit vectors."""
        flat = unit.detach().reshape(-1, unit.shape[-1])
        table = F.normalize(self.entries.detach(), dim=-1)
        return nearest_entries(flat, table).view(unit.shape[:-1])

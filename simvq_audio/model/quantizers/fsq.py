"""Finite scalar quantisation: a grid in few dimensions (arXiv 2309.15505)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simvq_audio.model.quantizers.base import Quantized, Quantizer, straight_through
from simvq_audio.model.quantizers.config import FSQConfig

# Bound of a dimension beyond its outermost values, as in the paper's code.
_MARGIN = 1e-3


class FSQ(Quantizer):
    """Linear layer to few dimensions, each bounded and rounded; linear layer back.

    A dimension of L levels has the values -floor(L/2) ... ceil(L/2) - 1, divided by floor(L/2). The
    index of a frame counts them with the first dimension fastest.

    Source: Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple".
    """

    config: FSQConfig
    levels: Tensor
    strides: Tensor

    def __init__(self, config: FSQConfig) -> None:
        super().__init__()
        self.config = config
        levels = torch.tensor(config.levels)
        strides = torch.cat([torch.ones(1, dtype=torch.long), levels[:-1].cumprod(0)])
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("strides", strides, persistent=False)
        self.project_in = nn.Linear(config.latent_dim, len(levels))
        self.project_out = nn.Linear(len(levels), config.latent_dim)

    def forward(self, latent: Tensor) -> Quantized:
        """Quantise (batch, latent_dim, frames); see ``Quantized``. It has no loss."""
        with torch.autocast(latent.device.type, enabled=False):
            bounded = self._bound(self.project_in(latent.float().transpose(1, 2)))
            steps = straight_through(bounded, bounded.round())
            chosen = self.project_out(steps / (self.levels // 2))
        return Quantized(chosen.transpose(1, 2), self._indices(steps.detach()), {})

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        """(batch, latent_dim, frames) -> indices (batch, frames) int64."""
        with torch.autocast(latent.device.type, enabled=False):
            steps = self._bound(self.project_in(latent.float().transpose(1, 2)))
        return self._indices(steps)

    def decode(self, indices: Tensor) -> Tensor:
        """(batch, frames) indices -> (batch, latent_dim, frames)."""
        return self.project_out(self._grid(indices)).transpose(1, 2)

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

        The second gets the least-squares map from the grid's points back to the latents.
        """
        if len(latents) < 2:
            raise ValueError("at least two latents are needed for a covariance")
        flat = latents.double()
        weight, bias = principal_axes(flat, self.project_in.out_features)
        self.project_in.weight.copy_(weight)
        self.project_in.bias.copy_(bias)
        grid = self._grid(self.encode(latents.float().T[None])[0])
        weight, bias = least_squares(grid.double(), flat)
        self.project_out.weight.copy_(weight)
        self.project_out.bias.copy_(bias)

    def _bound(self, x: Tensor) -> Tensor:
        """(..., dimensions) -> bounded by the outermost values."""
        half = (self.levels - 1) * (1 + _MARGIN) / 2
        # An even number of levels is not symmetric around a rounded zero.
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(x + torch.atanh(offset / half)) * half - offset

    def _indices(self, steps: Tensor) -> Tensor:
        digits = steps.round().long() + self.levels // 2
        return (digits * self.strides).sum(dim=-1)

    def _grid(self, indices: Tensor) -> Tensor:
        """Indices -> points (..., dimensions), -1 to 1."""
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < (
            self.config.codebook_size
        ):
            raise IndexError("an index lies outside the codebook")
        half = self.levels // 2
        return ((indices[..., None] // self.strides) % self.levels - half) / half


def principal_axes(latents: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Weight (kept, d) and bias (kept,) that map latents (n, d) to their first components.

    Each component has unit variance; the first is the largest.
    """
    mean = latents.mean(dim=0)
    values, vectors = torch.linalg.eigh((latents - mean).T.cov())
    # eigh gives the largest last.
    values = values[-kept:].flip(0).clamp(min=1e-12)
    axes = vectors[:, -kept:].flip(1).T / values.sqrt()[:, None]
    return axes, -axes @ mean


def least_squares(points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (d, k) and bias (d,) of the linear layer from points (n, k) to targets (n, d)."""
    rows = torch.cat([points, torch.ones_like(points[:, :1])], dim=1)
    # The normal equations: some thousand rows, some ten columns.
    damping = 1e-6 * len(rows) * torch.eye(rows.shape[1]).to(rows)
    solution = torch.linalg.solve(rows.T @ rows + damping, rows.T @ targets)
    return solution[:-1].T, solution[-1]

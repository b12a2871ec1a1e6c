"""What the study asks of a quantiser, whoever wrote it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from simvq_audio.model.quantizer import Quantized


class Bottleneck(nn.Module, ABC):
    """A quantiser in the autoencoder.

    Attributes:
        codebook_size: number of different codes of a frame, K.
        fast: whether its parameters learn at ``Setting.fast_factor`` times the learning rate.
    """

    codebook_size: int
    fast: bool = True

    @abstractmethod
    def forward(self, latent: Tensor) -> Quantized:
        """(batch, latent_dim, frames) -> entries with a gradient, codes below K, and a loss."""

    @abstractmethod
    def encode(self, latent: Tensor) -> Tensor:
        """(batch, latent_dim, frames) -> codes (batch, frames) int64, as inference has them."""

    @abstractmethod
    def decode(self, indices: Tensor) -> Tensor:
        """Codes (batch, frames) -> entries (batch, latent_dim, frames)."""

    @abstractmethod
    def start(self, latents: Tensor, generator: torch.Generator, frames: int) -> None:
        """Put the entries where the latents are.

        Args:
            latents: (n, latent_dim) float32, of the warmed-up encoder.
            generator: decides what is drawn; on the CPU.
            frames: latents in a training step.
        """


class Unquantized(Bottleneck):
    """No quantiser: what the autoencoder could do at most. All codes are 0."""

    codebook_size = 1

    def forward(self, latent: Tensor) -> Quantized:
        indices = latent.new_zeros(latent.shape[0], latent.shape[2], dtype=torch.long)
        return Quantized(latent, indices, latent.new_zeros(()))

    def encode(self, latent: Tensor) -> Tensor:
        return self(latent).indices

    def decode(self, indices: Tensor) -> Tensor:
        raise NotImplementedError("a latent that was not quantised has no codes")

    def start(self, latents: Tensor, generator: torch.Generator, frames: int) -> None:
        pass


def draw_entries(latents: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw entries at random from latents: (n, d) -> (size, d).

    Where there are fewer latents than entries, those that repeat one lie a little beside it, or
    only one of them could ever be used.
    """
    order = torch.randperm(len(latents), generator=generator)
    picks = order.repeat(-(-size // len(latents)))[:size].to(latents.device)
    noise = torch.randn(size, latents.shape[1], generator=generator).to(latents.device)
    noise[: len(latents)] = 0
    return latents[picks] + 0.1 * latents.std(dim=0) * noise


@torch.no_grad()
def fit_projections(
    into: nn.Linear,
    out: nn.Linear,
    latents: Tensor,
    quantize: nn.Module,
    rotation: torch.Generator | None = None,
) -> None:
    """Start a quantiser that works in few dimensions where the latents are.

    ``into`` gets the principal axes, scaled to unit variance; ``out`` what brings the quantised
    values back to the latents with the smallest squared error.

    Args:
        into, out: latent_dim -> few dimensions, and back.
        latents: (n, latent_dim).
        quantize: the whole quantiser in evaluation mode, (1, n, latent_dim) -> what ``out`` gave
            as its first result.
        rotation: for quantisers that give each dimension the same number of values: the axes are
            whitened by half only and turned at random (drawn by this), so that every dimension
            has its share of the largest ones.
    """
    mean = latents.mean(dim=0)
    values, vectors = torch.linalg.eigh((latents - mean).double().T.cov())
    kept = into.out_features
    # eigh gives the largest last; the first dimension is to have the largest.
    values = values[-kept:].flip(0).clamp(min=1e-12)
    axes = vectors[:, -kept:].flip(1).T
    if rotation is None:
        axes = axes / values.sqrt()[:, None]
    else:
        turn = torch.linalg.qr(torch.randn(kept, kept, generator=rotation)).Q
        axes = turn.to(axes) @ (axes / values.pow(0.25)[:, None])
        axes = axes / values.sqrt().mean().sqrt()
    axes = axes.to(latents)
    into.weight.copy_(axes)
    into.bias.copy_(-axes @ mean)
    seen: list[Tensor] = []
    hook = out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    quantize(latents[None])
    hook.remove()
    codes = seen[0].reshape(len(latents), -1)
    with_one = torch.cat([codes, torch.ones_like(codes[:, :1])], dim=1).double()
    # Least squares through the normal equations: some thousand rows, some ten columns.
    solution = torch.linalg.solve(
        with_one.T @ with_one + 1e-6 * len(codes) * torch.eye(with_one.shape[1]).to(with_one),
        with_one.T @ latents.double(),
    )
    out.weight.copy_(solution[:-1].T)
    out.bias.copy_(solution[-1])

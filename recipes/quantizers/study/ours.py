"""The SimVQ of this package, and the variants of it that are compared."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simvq_audio.errors import MissingExtraError
from simvq_audio.model.config import QuantizerConfig
from simvq_audio.model.quantizer import Quantized, SimVQ
from simvq_audio.training.quantizer_start import (
    draw_basis_from_latents,
    match_codebook_to_latents,
    move_basis_to_means,
)
from study.bottleneck import Bottleneck


class Simvq(Bottleneck):
    """``simvq_audio.model.quantizer.SimVQ``.

    Args:
        codebook_size, latent_dim: its sizes.
        bias: whether W has one.
        basis_from_latents: C is drawn from the latents at the start; otherwise it stays Gaussian.
        kmeans_rounds: so many rounds of k-means then move C to the means of its cells.
        trained_basis: C learns besides W.
        rotation: the gradient goes through a rotation (Fifty et al., arXiv 2410.06424; the code
            is vector-quantize-pytorch's) instead of straight through.
        fast: W learns at ``Setting.fast_factor`` times the learning rate.
    """

    def __init__(
        self,
        codebook_size: int,
        latent_dim: int,
        *,
        bias: bool = True,
        basis_from_latents: bool = True,
        kmeans_rounds: int = 0,
        trained_basis: bool = False,
        rotation: bool = False,
        fast: bool = True,
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.fast = fast
        self.simvq = SimVQ(QuantizerConfig(codebook_size, latent_dim, bias=bias))
        self._basis_from_latents = basis_from_latents
        self._kmeans_rounds = kmeans_rounds
        self._rotation = rotation
        if trained_basis:
            basis = self.simvq.basis
            del self.simvq.basis
            self.simvq.basis = nn.Parameter(basis)

    def forward(self, latent: Tensor) -> Quantized:
        quantized = self.simvq(latent)
        if not self._rotation:
            return quantized
        try:
            from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to
        except ImportError as error:
            raise missing_package() from error
        # Without gradient, the straight-through values are the entries.
        entries = quantized.latent.detach().transpose(1, 2)
        rotated = rotate_to(latent.transpose(1, 2), entries).transpose(1, 2)
        return quantized._replace(latent=rotated)

    def encode(self, latent: Tensor) -> Tensor:
        return self.simvq.encode(latent)

    def decode(self, indices: Tensor) -> Tensor:
        return self.simvq.decode(indices)

    def start(self, latents: Tensor, generator: torch.Generator, frames: int) -> None:
        batch = latents.T[None]
        match_codebook_to_latents(self.simvq, batch)
        if self._basis_from_latents:
            draw_basis_from_latents(self.simvq, batch, generator)
        for _ in range(self._kmeans_rounds):
            move_basis_to_means(self.simvq, batch)


def missing_package() -> MissingExtraError:
    """What to say where vector-quantize-pytorch is not installed."""
    return MissingExtraError(
        "the study needs vector-quantize-pytorch; install it with: pip install 'simvq-audio[study]'"
    )

"""The interface of quantisers to the codec and the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simvq_audio.model.quantizers.nearest import nearest_entries


class Quantized(NamedTuple):
    """What a quantiser returns in training.

    Attributes:
        latent: (batch, latent_dim, frames) chosen entries, with a gradient to the latent.
        indices: as from ``Quantizer.encode``.
        losses: scalars by name. "codebook" moves entries to latents, "commitment" latents to
            entries; both are means over all elements. Some kinds have others, or none.
    """

    latent: Tensor
    indices: Tensor
    losses: dict[str, Tensor]


class Quantizer(nn.Module, ABC):
    """A bottleneck: latent -> codes -> latent.

    Codes are indices (batch, frames) int64, or (batch, codebooks, frames) with several per frame.

    Attributes:
        config: has ``latent_dim`` and ``codebook_sizes``, the number of entries of each codebook.
    """

    config: Any

    @abstractmethod
    def forward(self, latent: Tensor) -> Quantized:
        """Quantise (batch, latent_dim, frames) in training; see ``Quantized``."""

    @abstractmethod
    def encode(self, latent: Tensor) -> Tensor:
        """(batch, latent_dim, frames) -> indices."""

    @abstractmethod
    def decode(self, indices: Tensor) -> Tensor:
        """Indices -> (batch, latent_dim, frames).

        Raises:
            IndexError: an index lies outside the codebook (on the CPU).
        """

    @abstractmethod
    def start(
        self,
        latents: Tensor,
        generator: torch.Generator,
        *,
        entries_from_latents: bool = True,
        kmeans_rounds: int = 0,
    ) -> None:
        """Move the entries to the latents of a model in training.

        Args:
            latents: (n, latent_dim), several for each entry.
            generator: for what is drawn at random; on the CPU.
            entries_from_latents: draw entries from the latents. Otherwise the random entries are
                transformed to the latents' mean and covariance.
            kmeans_rounds: rounds of k-means after that.

        Quantisers without a table ignore the last two.

        Raises:
            ValueError: there are fewer than two latents.
        """

    def fast_parameters(self) -> list[nn.Parameter]:
        """Parameters with a learning rate several times the common one."""
        return []

    def training_state(self) -> dict[str, Tensor]:
        """State that only training needs; kept in checkpoints."""
        return {}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Restore what ``training_state`` returned."""


class TableQuantizer(Quantizer):
    """A quantiser with one codebook that is searched for the nearest entry."""

    @abstractmethod
    def codebook(self) -> Tensor:
        """The entries (codebook_size, latent_dim) float32, without gradient."""

    @abstractmethod
    def entries_of(self, indices: Tensor) -> Tensor:
        """(batch, frames) indices -> their entries (batch, frames, latent_dim), with gradient."""

    def losses(self, z: Tensor, entries: Tensor) -> dict[str, Tensor]:
        """Losses of latents and the entries next to them, both (batch, frames, latent_dim)."""
        return {
            "codebook": F.mse_loss(entries, z.detach()),
            "commitment": F.mse_loss(z, entries.detach()),
        }

    def pass_gradient(self, z: Tensor, entries: Tensor) -> Tensor:
        """The entries, with a gradient to the latents."""
        return straight_through(z, entries)

    def forward(self, latent: Tensor) -> Quantized:
        """Quantise (batch, latent_dim, frames); see ``Quantized``."""
        # Autocast would project in half precision, and training would then learn a codebook that
        # inference does not have.
        with torch.autocast(latent.device.type, enabled=False):
            z = latent.float().transpose(1, 2)
            indices = self.search(z)
            entries = self.entries_of(indices)
            losses = self.losses(z, entries)
            chosen = self.pass_gradient(z, entries)
        return Quantized(chosen.transpose(1, 2), indices, losses)

    def codebook_and_norms(self) -> tuple[Tensor, Tensor]:
        """The entries and half the squared norm of each."""
        codebook = self.codebook()
        return codebook, 0.5 * codebook.square().sum(dim=1)

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        """(batch, latent_dim, frames) -> indices (batch, frames) int64."""
        with torch.autocast(latent.device.type, enabled=False):
            return self.search(latent.float().transpose(1, 2))

    def decode(self, indices: Tensor) -> Tensor:
        """(batch, frames) indices -> entries (batch, latent_dim, frames).

        Raises:
            IndexError: an index lies outside the codebook (on the CPU).
        """
        return self.codebook()[indices].transpose(1, 2)

    def search(self, z: Tensor) -> Tensor:
        """Index of the nearest entry for each of (..., latent_dim) float32 vectors."""
        codebook, half_norms = self.codebook_and_norms()
        flat = z.detach().reshape(-1, z.shape[-1])
        return nearest_entries(flat, codebook, half_norms).view(z.shape[:-1])


def straight_through(z: Tensor, entries: Tensor) -> Tensor:
    """The entries, with their gradient passed to ``z`` unchanged."""
    return z + (entries - z).detach()


def rotate_through(z: Tensor, entries: Tensor) -> Tensor:
    """The entries, with their gradient passed to ``z`` through a rotation and a scale.

    Both (..., latent_dim). The transformation from each vector to its entry is treated as a
    constant, which preserves the angle between gradient and entry.

    Source: Fifty et al., "Restructuring Vector Quantization with the Rotation Trick" (arXiv
    2410.06424), section 4.
    """
    with torch.no_grad():
        tiny = torch.finfo(z.dtype).tiny
        length = z.norm(dim=-1, keepdim=True).clamp(min=tiny)
        target_length = entries.norm(dim=-1, keepdim=True)
        before, after = z / length, entries / target_length.clamp(min=tiny)
        between = nn.functional.normalize(before + after, dim=-1)
        scale = target_length / length
    reflected = 2 * between * (between * z).sum(dim=-1, keepdim=True)
    turned = 2 * after * (before * z).sum(dim=-1, keepdim=True)
    return scale * (z - reflected + turned)

"""Quantisers with a table of entries that learn by gradient or by moving averages."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from simvq_audio.model.quantizers.base import Quantized, TableQuantizer
from simvq_audio.model.quantizers.config import EmaVQConfig, VQConfig
from simvq_audio.model.quantizers.start import start_table


class _Table(TableQuantizer):
    """Entries (codebook_size, latent_dim), drawn from N(0, 1/latent_dim) as SimVQ's basis is."""

    def __init__(self, config: VQConfig | EmaVQConfig) -> None:
        super().__init__()
        self.config = config
        k, d = config.codebook_size, config.latent_dim
        self.entries = nn.Parameter(torch.randn(k, d) * d**-0.5)

    def codebook(self) -> Tensor:
        """The entries (codebook_size, latent_dim), without gradient."""
        return self.entries.detach()

    def entries_of(self, indices: Tensor) -> Tensor:
        """(batch, frames) indices -> their entries (batch, frames, latent_dim)."""
        return F.embedding(indices, self.entries)

    @torch.no_grad()
    def start(
        self,
        latents: Tensor,
        generator: torch.Generator,
        *,
        entries_from_latents: bool = True,
        kmeans_rounds: int = 0,
    ) -> None:
        """See ``Quantizer.start``."""
        start_table(
            self.entries,
            latents,
            generator,
            entries_from_latents=entries_from_latents,
            kmeans_rounds=kmeans_rounds,
        )


class VQ(_Table):
    """Plain vector quantisation: each entry learns from the latents that chose it.

    Source: van den Oord et al., "Neural Discrete Representation Learning" (arXiv 1711.00937).
    """

    config: VQConfig

    def fast_parameters(self) -> list[nn.Parameter]:
        """The table: an entry learns from its own few latents only."""
        return [self.entries]


class EmaVQ(_Table):
    """Entries are moving averages of the latents that chose them; rare ones are replaced.

    Averages move in the forward pass of training mode, over all processes. ``uses`` is how often
    each entry was chosen in a step, as the same moving average; entry times uses is the
    average of sums in the source.

    Source: van den Oord et al. (arXiv 1711.00937), appendix A.1; replacement as in Jukebox (arXiv
    2005.00341).
    """

    config: EmaVQConfig
    uses: Tensor

    def __init__(self, config: EmaVQConfig) -> None:
        super().__init__(config)
        self.entries.requires_grad_(False)
        # Zero before the first step, which sets it to an even share.
        self.register_buffer("uses", torch.zeros(config.codebook_size), persistent=False)

    def losses(self, z: Tensor, entries: Tensor) -> dict[str, Tensor]:
        """The commitment loss; entries move by averages."""
        return {"commitment": F.mse_loss(z, entries)}

    def forward(self, latent: Tensor) -> Quantized:
        """Quantise (batch, latent_dim, frames); see ``Quantized``."""
        quantized = super().forward(latent)
        if self.training:
            flat = latent.detach().float().transpose(1, 2).reshape(-1, latent.shape[1])
            self._move(flat, quantized.indices.reshape(-1))
        return quantized

    def training_state(self) -> dict[str, Tensor]:
        """How often entries were chosen."""
        return {"uses": self.uses}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Restore what ``training_state`` returned."""
        if "uses" in state:
            self.uses.copy_(state["uses"])

    @torch.no_grad()
    def _move(self, latents: Tensor, indices: Tensor) -> None:
        """One step of the averages, from latents (n, latent_dim) and their indices.

        Does not wait for the device; latents that are not finite change nothing.
        """
        size, decay = self.config.codebook_size, self.config.decay
        ones = latents.new_ones(len(latents))
        chosen = latents.new_zeros(size).scatter_add_(0, indices, ones)
        sums = torch.zeros_like(self.entries).index_add_(0, indices, latents)
        newcomers = latents[torch.randint(len(latents), (size,), device=latents.device)]
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(chosen)
            dist.all_reduce(sums)
            dist.broadcast(newcomers, 0)
        even = chosen.sum() / size
        before = torch.where(self.uses.sum() > 0, self.uses, even)
        uses = decay * before + (1 - decay) * chosen
        moved = (decay * before[:, None] * self.entries + (1 - decay) * sums) / uses[:, None]
        dead = uses < self.config.dead_share * even
        moved = torch.where(dead[:, None], newcomers, moved)
        uses = torch.where(dead, even, uses)
        good = torch.isfinite(sums).all()
        self.entries.copy_(torch.where(good, moved, self.entries))
        self.uses.copy_(torch.where(good, uses, self.uses))

"""Residual vector quantisation: several codes per frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from simvq_audio.model.quantizers.base import (
    Quantized,
    Quantizer,
    TableQuantizer,
    straight_through,
)
from simvq_audio.model.quantizers.config import ResidualConfig


class Residual(Quantizer):
    """Stages with a codebook each; every one quantises what the ones before it left.

    The sum of the chosen entries takes the gradient straight through. A loss is the sum of the
    stages' losses of that name.

    Source: SoundStream (arXiv 2107.03312).

    Args:
        make: builds a stage.
    """

    config: ResidualConfig

    def __init__(self, config: ResidualConfig, make: Callable[[Any], Quantizer]) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(make(stage) for stage in config.stages)

    def _quantizers(self) -> list[TableQuantizer]:
        return cast("list[TableQuantizer]", list(self.stages))

    def forward(self, latent: Tensor) -> Quantized:
        """Quantise (batch, latent_dim, frames); indices are (batch, stages, frames)."""
        with torch.autocast(latent.device.type, enabled=False):
            latent = latent.float()
            rest, indices = latent, []
            losses: dict[str, Tensor] = {}
            for stage in self._quantizers():
                quantized = stage(rest)
                rest = rest - quantized.latent.detach()
                indices.append(quantized.indices)
                for name, loss in quantized.losses.items():
                    losses[name] = losses[name] + loss if name in losses else loss
            chosen = straight_through(latent, latent - rest)
        return Quantized(chosen, torch.stack(indices, dim=1), losses)

    @torch.no_grad()
    def encode(self, latent: Tensor) -> Tensor:
        """(batch, latent_dim, frames) -> indices (batch, stages, frames) int64."""
        rest, indices = latent.float(), []
        for stage in self._quantizers():
            indices.append(stage.encode(rest))
            rest = rest - stage.decode(indices[-1])
        return torch.stack(indices, dim=1)

    def decode(self, indices: Tensor) -> Tensor:
        """Indices (batch, stages, frames) -> sums of entries (batch, latent_dim, frames)."""
        entries = [stage.decode(indices[:, i]) for i, stage in enumerate(self._quantizers())]
        return torch.stack(entries).sum(dim=0)

    def start(
        self,
        latents: Tensor,
        generator: torch.Generator,
        *,
        entries_from_latents: bool = True,
        kmeans_rounds: int = 0,
    ) -> None:
        """Start each stage at what the ones before it leave of the latents."""
        rest = latents.float()
        for stage in self._quantizers():
            stage.start(
                rest,
                generator,
                entries_from_latents=entries_from_latents,
                kmeans_rounds=kmeans_rounds,
            )
            batch = rest.T[None]
            rest = (batch - stage.decode(stage.encode(batch)))[0].T

    def fast_parameters(self) -> list[nn.Parameter]:
        """Those of all stages."""
        return [parameter for stage in self._quantizers() for parameter in stage.fast_parameters()]

    def training_state(self) -> dict[str, Tensor]:
        """Those of all stages, by number and name."""
        return {
            f"{number}.{name}": value
            for number, stage in enumerate(self._quantizers())
            for name, value in stage.training_state().items()
        }

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Restore what ``training_state`` returned."""
        for number, stage in enumerate(self._quantizers()):
            prefix = f"{number}."
            own = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
            stage.load_training_state(own)

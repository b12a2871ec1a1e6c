"""Singular values of W and live dimensions of latents and codebook, over training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from simvq_audio.model.quantizers import Quantizer
from simvq_audio.model.quantizers.base import TableQuantizer
from simvq_audio.model.quantizers.simvq import SimVQ

# A direction is live if its variance is at least this share of the largest.
_LIVE_SHARE = 0.01


@dataclass(frozen=True)
class Spectrum:
    """At one step; None where there is no W or no table.

    Attributes:
        w_largest, w_median, w_smallest: singular values of W.
        live_latent, live_codebook: directions with at least 1 % of the largest one's variance.
    """

    w_largest: float | None
    w_median: float | None
    w_smallest: float | None
    live_latent: int
    live_codebook: int | None

    @classmethod
    @torch.no_grad()
    def of(cls, latent: Tensor, quantizer: Quantizer) -> Spectrum:
        """Of latents (batch, latent_dim, frames) and a quantiser."""
        w: tuple[float | None, ...] = (None, None, None)
        if isinstance(quantizer, SimVQ):
            values = torch.linalg.svdvals(quantizer.proj.weight.double())
            w = tuple(v.item() for v in (values[0], values.median(), values[-1]))
        table = quantizer.codebook() if isinstance(quantizer, TableQuantizer) else None
        return cls(
            *w,
            live_dimensions(latent.transpose(1, 2).flatten(0, 1)),
            None if table is None else live_dimensions(table),
        )


def live_dimensions(points: Tensor) -> int:
    """Of points (n, d): principal axes with at least 1 % of the first one's variance."""
    values = torch.linalg.eigvalsh(points.double().T.cov())
    return int((values >= _LIVE_SHARE * values[-1]).sum())

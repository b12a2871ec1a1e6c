"""Latents and codebook over training, projected on two dimensions for pictures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from simvq_audio.model.quantizers import Quantizer

_ENTRIES = 400


class Snapshots:
    """Collects latents and entries; projects all of them in the end.

    The two dimensions are the first principal axes of the last latents, to show movement.

    Args:
        seed: for the choice of entries.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._picks: Tensor | None = None
        self._taken: list[tuple[int, Tensor, Tensor, Tensor]] = []

    @torch.no_grad()
    def take(self, step: int, latent: Tensor, quantizer: Quantizer) -> None:
        """Keep some latents (batch, latent_dim, frames) and their entries."""
        sizes = quantizer.config.codebook_sizes
        training = quantizer.training
        quantizer.eval()
        found = quantizer.encode(latent)
        if len(sizes) == 1:
            found = found[:, None]
        if self._picks is None:
            drawn = [torch.randint(size, (_ENTRIES,), generator=self._generator) for size in sizes]
            if len(sizes) == 1:
                drawn = [torch.randperm(sizes[0], generator=self._generator)[:_ENTRIES]]
            self._picks = torch.stack(drawn).to(latent.device)
        hit = found.transpose(1, 2).flatten(0, 1).unique(dim=0).T
        entries, chosen = (
            quantizer.decode(codes if len(sizes) == 1 else codes[None])[0].T
            for codes in (self._picks, hit)
        )
        quantizer.train(training)
        flat = latent.transpose(1, 2).flatten(0, 1)
        self._taken.append((step, flat.cpu(), entries.cpu(), chosen.cpu()))

    def projected(self) -> dict[str, np.ndarray]:
        """Arrays by name: "steps" (n,), and for each i of them "latents-i", "entries-i" (drawn
        from the codebook) and "hit-i" (those nearest to a latent), (points, 2) float16 each.
        """
        last = self._taken[-1][1].double()
        mean = last.mean(dim=0)
        axes = torch.linalg.eigh((last - mean).T.cov()).eigenvectors[:, -2:].flip(1)
        step = float(((last - mean) @ axes).abs().max().clamp(min=1e-6)) / 128

        def project(points: Tensor) -> np.ndarray:
            flat = ((points.double() - mean) @ axes).numpy()
            # Rounded to less than a pixel, for a smaller file.
            return (np.round(flat / step) * step).clip(-60_000, 60_000).astype(np.float16)

        arrays = {"steps": np.array([step for step, *_ in self._taken])}
        for number, (_, latents, entries, chosen) in enumerate(self._taken):
            arrays[f"latents-{number}"] = project(latents)
            arrays[f"entries-{number}"] = project(entries)
            arrays[f"hit-{number}"] = project(chosen[:_ENTRIES])
        return arrays

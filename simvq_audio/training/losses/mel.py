"""Differences of log-mel magnitudes, over several windows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simvq_audio.errors import needs_extra
from simvq_audio.training.losses.config import MelConfig
from simvq_audio.training.losses.pair import SignalPair, energy

# Least squared magnitude, for finite gradients in silence.
_QUIET = 1e-18


class MelLoss(nn.Module):
    """Mean absolute difference of log-mel magnitudes, averaged over scales; in nepers.

    Source: HiFi-GAN (arXiv 2010.05646) for one scale; DAC (arXiv 2306.06546) for several, with
    the number of bands growing with the window so that no filter is empty.
    """

    def __init__(self, config: MelConfig, sample_rate: int) -> None:
        super().__init__()
        with needs_extra("train"):
            from torchaudio.functional import melscale_fbanks
        self.config = config
        self.hann_windows = {window for window, _, _ in config.scales}
        self.longest = max(self.hann_windows)
        norm = "slaney" if config.filters == "slaney" else None
        for index, (window, _, bands) in enumerate(config.scales):
            filters = melscale_fbanks(
                window // 2 + 1, 0.0, sample_rate / 2, bands, sample_rate, norm, config.filters
            )
            self.register_buffer(f"filters_{index}", filters.T.contiguous(), persistent=False)

    def forward(self, pair: SignalPair) -> Tensor:
        """-> scalar."""
        distances = []
        for index, (window, hop, _) in enumerate(self.config.scales):
            filters = self.get_buffer(f"filters_{index}")
            ours, theirs = (
                (filters @ energy(spectrum).clamp(min=_QUIET).sqrt())
                .clamp(min=self.config.floor)
                .log()
                for spectrum in pair.spectra(window, hop)
            )
            distances.append((ours - theirs).abs().mean())
        return torch.stack(distances).mean()

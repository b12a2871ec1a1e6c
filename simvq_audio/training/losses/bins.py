"""Differences of magnitudes of single bins, which resolve harmonics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simvq_audio.training.losses.pair import SignalPair

# The longest window of the default mel loss at 24 kHz, so that both share an STFT.
_WINDOW_SECONDS = 2048 / 24_000
# Least mean square of a bin: -100 dB of full scale.
_FLOOR = 1e-10
# Where an ERB begins to grow with frequency, Hz: 1000 / 4.37.
_ERB_CORNER = 228.8
# Below the pitch of any voice there is only rumble.
_LOWEST = 50.0


class BinsLoss(nn.Module):
    """Mean absolute difference of the log magnitudes of single bins, in nepers.

    From 1.5 kHz mel bands are wider than the distance of a low voice's harmonics, and above 8 kHz a
    steady tone looks like noise in them. Bins of 12 Hz resolve both. From 50 Hz, bins are weighted
    by their share of the ear's frequency scale (25 times as much at 100 Hz as at 8 kHz), since most
    bins are at frequencies where speech is noise, and few are near a fundamental.

    Source: the log-magnitude term of Yamamoto et al., "Parallel WaveGAN" (arXiv 1910.11480), at
    one resolution; the scale is that of equivalent rectangular bandwidths (Glasberg and Moore,
    "Derivation of auditory filter shapes from notched-noise data", 1990).

    Args:
        sample_rate: in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.longest = 2 * round(_WINDOW_SECONDS * sample_rate / 2)
        self.hann_windows = {self.longest}
        frequencies = torch.linspace(0, sample_rate / 2, self.longest // 2 + 1)
        weights = (frequencies >= _LOWEST) / (frequencies + _ERB_CORNER)
        self.weights: Tensor
        self.register_buffer("weights", (weights / weights.sum())[:, None], persistent=False)

    def forward(self, pair: SignalPair) -> Tensor:
        """-> scalar: the mean over bins, frames and the batch, 0 for equal signals."""
        powers = pair.powers(self.longest, self.longest // 4)
        ours, theirs = (0.5 * power.clamp(min=_FLOOR).log() for power in powers)
        return (self.weights * (ours - theirs).abs()).sum(dim=1).mean()

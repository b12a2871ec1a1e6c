"""Differences of autocorrelation: whether a voice stays as periodic as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from simvq_audio.training.losses.spectral import Pair

# Four periods of a low voice; also the longest window of the default mel loss, at 24 kHz.
_WINDOW_SECONDS = 2048 / 24_000
# Pitch is looked for at these frequencies, in what lies below the third.
_LOWEST_HZ, _HIGHEST_HZ, _TOP_HZ = 60.0, 500.0, 4000.0
# Frames of a lower mean square hold no voice.
_LEAST_LEVEL = 1e-6


class PeriodicityLoss(nn.Module):
    """Mean absolute difference of normalised autocorrelations at the lags of pitch.

    The autocorrelation is that of the magnitude spectrum, which gives weak harmonics a say. It
    does not hear when a period begins, only whether the next one is like it. Frames count by the
    square of their own periodicity in the original, so that noise may stay noise.

    Source: autocorrelation of compressed spectra as pitch trackers use it (Tolonen and
    Karjalainen, "A Computationally Efficient Multipitch Analysis Model", 2000).

    Args:
        sample_rate: in Hz.
    """

    band: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.longest = 2 * round(_WINDOW_SECONDS * sample_rate / 2)
        self.hann_windows = {self.longest}
        self._lags = slice(round(sample_rate / _HIGHEST_HZ), round(sample_rate / _LOWEST_HZ) + 1)
        frequencies = torch.arange(self.longest // 2 + 1) * (sample_rate / self.longest)
        self.register_buffer("band", (frequencies <= _TOP_HZ).float()[:, None], persistent=False)

    def forward(self, pair: Pair) -> Tensor:
        """-> scalar: the weighted mean over frames and the batch, 0 for equal signals."""
        powers = pair.powers(self.longest, self.longest // 4)
        ours, theirs = (self._autocorrelation(power) for power in powers)
        periodicity = theirs.amax(dim=1).clamp(min=0)
        weight = periodicity.square() * (powers[1].sum(dim=1) > _LEAST_LEVEL)
        difference = (ours - theirs).abs().mean(dim=1)
        return (difference * weight).sum() / weight.sum().clamp(min=1.0)

    def _autocorrelation(self, powers: Tensor) -> Tensor:
        """(batch, bins, frames) -> (batch, lags, frames), 1 where a period repeats."""
        magnitude = (powers + 1e-18).sqrt() * self.band
        correlation = torch.fft.irfft(magnitude, dim=1)
        return correlation[:, self._lags] / correlation[:, :1].clamp(min=1e-12)

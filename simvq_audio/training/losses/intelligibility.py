"""Correlation of band envelopes, as STOI measures it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from simvq_audio.training.losses.spectral import Pair

# The window is the loudness loss', so that one STFT does for both; 24 hops are STOI's 384 ms.
_WINDOW_SECONDS = 0.032
_SEGMENT = 24
# Third-octave bands and the lowest one's centre in Hz.
_BANDS, _LOWEST = 15, 150.0
# Where a reconstruction exceeds the original by more than this it counts as this, in dB.
_LARGEST_DB = 15.0
# Frames so far below the loudest are pauses, in dB; so are those of a lower mean square than this.
_RANGE_DB = 40.0
_LEAST_LEVEL = 1e-6
# Added to each band's mean square: envelopes of background so far down have no shape.
_QUIET = 1e-10


class IntelligibilityLoss(nn.Module):
    """1 minus the mean correlation of third-octave envelopes over 384 ms: 1 - STOI, nearly.

    STOI works on 10 kHz with windows of 25.6 ms and cuts pauses out before; here the spectra are
    those of the loudness loss, and segments count by their share of frames that are no pauses.

    Source: Taal et al., "An Algorithm for Intelligibility Prediction of Time-Frequency Weighted
    Noisy Speech", IEEE TASLP 2011.

    Args:
        sample_rate: in Hz.
    """

    bands: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.longest = 2 * round(_WINDOW_SECONDS * sample_rate / 2)
        self.hann_windows = {self.longest}
        frequencies = torch.arange(self.longest // 2 + 1) * (sample_rate / self.longest)
        centres = _LOWEST * 2 ** (torch.arange(_BANDS)[:, None] / 3)
        above, below = frequencies >= centres * 2 ** (-1 / 6), frequencies < centres * 2 ** (1 / 6)
        self.register_buffer("bands", (above & below).float(), persistent=False)

    def forward(self, pair: Pair) -> Tensor:
        """-> scalar: the mean over the batch, 0 for equal signals."""
        powers = pair.powers(self.longest, self.longest // 2)
        ours, theirs = (self.bands @ power + _QUIET for power in powers)
        frames = theirs.sum(dim=1)
        least = frames.amax(dim=1, keepdim=True) * 10 ** (-_RANGE_DB / 10)
        spoken = frames > least.clamp(min=_LEAST_LEVEL)
        length = min(_SEGMENT, frames.shape[1])
        share = spoken.float().unfold(1, length, 1).mean(dim=2)[:, None]
        ours, theirs = (power.sqrt().unfold(2, length, 1) for power in (ours, theirs))
        scale = theirs.norm(dim=3, keepdim=True) / ours.norm(dim=3, keepdim=True)
        limit = 1 + 10 ** (_LARGEST_DB / 20)
        correlation = torch.cosine_similarity(
            _centred(torch.minimum(ours * scale, limit * theirs)), _centred(theirs), dim=3
        )
        # Some crops hold no speech at all; where a whole batch does, there is nothing to learn.
        weight = share.expand_as(correlation)
        return ((1 - correlation) * weight).sum() / weight.sum().clamp(min=1.0)


def _centred(envelopes: Tensor) -> Tensor:
    return envelopes - envelopes.mean(dim=3, keepdim=True)

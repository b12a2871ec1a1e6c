"""STOI's correlation of band envelopes, as a loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simvq_audio.training.losses.pair import SignalPair

# STOI's frames, transforms of twice their length, and segments of 384 ms.
_WINDOW_SECONDS = 0.0256
_PADDING = 2
_SEGMENT = 30
# Third-octave bands and the lowest one's centre in Hz.
_BANDS, _LOWEST = 15, 150.0
# STOI works at 10 kHz, so its bands end here, in Hz.
_HIGHEST = 5000.0
# Limit, in dB, by which a reconstruction may exceed the original.
_LARGEST_DB = 15.0
# Frames this far below the loudest are pauses, in dB; so are those with a lower mean square.
_RANGE_DB = 40.0
_LEAST_LEVEL = 1e-6
# Added to each band's mean square, so that the envelopes of quiet background are flat.
_QUIET = 1e-12


class StoiLoss(nn.Module):
    """1 minus the mean correlation of third-octave envelopes over 384 ms: about 1 - STOI.

    Frames, bands and segments are STOI's, at the signal's own rate instead of 10 kHz. Pauses are
    removed from the frames, where STOI removes them from the waveform.

    Source: Taal et al., "An Algorithm for Intelligibility Prediction of Time-Frequency Weighted
    Noisy Speech", IEEE TASLP 2011.

    Args:
        sample_rate: in Hz.
    """

    bands: Tensor
    heard: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.window = 2 * round(_WINDOW_SECONDS * sample_rate / 2)
        self.hann_windows = {self.window}
        self.longest = _PADDING * self.window
        frequencies = torch.arange(self.longest // 2 + 1) * (sample_rate / self.longest)
        centres = _LOWEST * 2 ** (torch.arange(_BANDS)[:, None] / 3)
        above, below = frequencies >= centres * 2 ** (-1 / 6), frequencies < centres * 2 ** (1 / 6)
        self.register_buffer("bands", (above & below).float(), persistent=False)
        self.register_buffer("heard", (frequencies < _HIGHEST).float(), persistent=False)

    def forward(self, pair: SignalPair) -> Tensor:
        """-> scalar: the mean over the batch's segments, 0 for equal signals.

        Items with less speech than a segment are ignored; if all have less, the loss is 0.
        """
        powers = pair.powers(self.window, self.window // 2, _PADDING)
        spoken = _spoken(self.heard @ powers[1])
        # Frames of speech first, in order, so that segments skip the pauses.
        order = torch.argsort((~spoken).byte(), dim=1, stable=True)
        count, length = spoken.sum(dim=1), min(_SEGMENT, order.shape[1])
        ours, theirs = (
            _segments((self.bands @ power + _QUIET).sqrt(), order, length) for power in powers
        )
        scale = theirs.norm(dim=3, keepdim=True) / ours.norm(dim=3, keepdim=True)
        limit = 1 + 10 ** (_LARGEST_DB / 20)
        correlation = torch.cosine_similarity(
            _centred(torch.minimum(ours * scale, limit * theirs)), _centred(theirs), dim=3
        )
        begins = torch.arange(correlation.shape[2], device=count.device)
        weight = (begins + length <= count[:, None])[:, None].expand_as(correlation)
        return ((1 - correlation) * weight).sum() / weight.sum().clamp(min=1)


def _spoken(levels: Tensor) -> Tensor:
    """(batch, frames) mean squares -> which are speech, bool."""
    least = levels.amax(dim=1, keepdim=True) * 10 ** (-_RANGE_DB / 10)
    return levels > least.clamp(min=_LEAST_LEVEL)


def _segments(envelopes: Tensor, order: Tensor, length: int) -> Tensor:
    """(batch, bands, frames), frames in a new order -> (batch, bands, segments, length)."""
    return envelopes.gather(2, order[:, None].expand_as(envelopes)).unfold(2, length, 1)


def _centred(envelopes: Tensor) -> Tensor:
    return envelopes - envelopes.mean(dim=3, keepdim=True)

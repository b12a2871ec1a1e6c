"""PESQ's audible differences of loudness, as a loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from simvq_audio.errors import ConfigError
from simvq_audio.training.losses.pair import SignalPair

# ITU-T P.862.2 works at 16 kHz; a window of the same seconds has the same bins.
_RATE = 16_000
_WINDOW_SECONDS = 0.032
# Its bands: bins in each, and the factor on their sum; width in Bark; hearing threshold in dB.
_BINS = (
    1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2,
    3, 3, 3, 3, 4, 3, 4, 5, 4, 5, 6, 6, 7, 8, 9, 9, 12, 12, 15, 16, 18, 21, 25, 20,
)  # fmt: skip
_FACTORS = (
    100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 50.0, 100.0, 100.0, 100.0, 100.0,
    100.0, 53.05, 110.0, 118.0, 65.0, 68.76, 70.0, 71.43, 75.0, 76.84, 80.97, 88.65, 63.86, 68.16,
    72.55, 75.58, 58.38, 80.95, 64.14, 54.38, 73.82, 64.44, 59.18, 65.52, 61.40, 58.14, 57.00,
    64.13, 54.31, 61.11, 55.08, 56.85, 55.63, 53.14, 54.99, 79.55,
)  # fmt: skip
_BARK_WIDTHS = (
    0.157, 0.318, 0.322, 0.327, 0.331, 0.336, 0.341, 0.345, 0.350, 0.355, 0.360, 0.365, 0.370,
    0.375, 0.380, 0.385, 0.390, 0.395, 0.400, 0.406, 0.411, 0.416, 0.422, 0.427, 0.433, 0.439,
    0.444, 0.450, 0.456, 0.462, 0.468, 0.474, 0.480, 0.486, 0.492, 0.498, 0.504, 0.511, 0.517,
    0.524, 0.530, 0.537, 0.544, 0.550, 0.557, 0.564, 0.571, 0.578, 0.585,
)  # fmt: skip
_THRESHOLDS_DB = (
    77.1, 63.9, 48.5, 36.9, 30.7, 25.9, 20.2, 16.6, 12.5, 9.9, 6.9, 4.9, 2.8, 1.0, -0.1, -1.4,
    -2.5, -3.4, -4.1, -4.8, -5.3, -5.7, -5.9, -6.0, -6.0, -6.0, -6.0, -5.8, -5.4, -5.1, -4.7,
    -4.3, -4.0, -3.6, -3.3, -3.1, -3.0, -3.0, -2.9, -2.8, -2.8, -2.8, -2.9, -3.2, -3.7, -4.3,
    -4.4, -3.8, -2.7,
)  # fmt: skip
# The input filter of the wide-band mode: coefficients of z^0, z^-1 and z^-2.
_FILTER = ((2.740826, -5.4816519, 2.740826), (1.0, -1.9444777, 0.94597794))
_POWER_SCALE, _LOUDNESS_SCALE, _ZWICKER_POWER = 6.910853e-6, 0.1866055, 0.23
# Both signals are scaled to this mean square between the two frequencies, unless they are below
# -60 dB of full scale, where there is no speech but hiss.
_LEVEL, _LEAST_LEVEL = 1e7, 1e-6
_LEVEL_BAND_HZ = (325.0, 3250.0)
# A frame below this is a pause. A band holds speech where it exceeds its hearing threshold by this
# factor.
_PAUSE, _CLEARLY = 1e7, 100.0
# Added to powers, so that ratios of small ones are near 1; and the ranges of the ratios.
_BAND_OFFSET, _FRAME_OFFSET, _ASYMMETRY_OFFSET = 1e3, 5e3, 50.0
_BAND_RATIOS, _FRAME_RATIOS, _ASYMMETRY_RANGE = (0.01, 100.0), (3e-4, 5.0), (3.0, 12.0)
_ASYMMETRY_POWER = 1.2
_DEAD_ZONE = 0.25
_MOST_DISTURBANCE = 45.0
# Frames per segment whose disturbances are joined by a norm of this order; segments overlap by
# half.
_SEGMENT, _SEGMENT_ORDER = 20, 6
_SYMMETRIC, _ASYMMETRIC = 0.1, 0.0309


class PesqLoss(nn.Module):
    """Symmetric and asymmetric disturbance of P.862.2, weighted: 4.5 minus the raw PESQ score.

    Additions count more than losses, and differences below a quarter of the smaller loudness are
    ignored. Time alignment, which a codec does not need, realignment of bad intervals, and the
    larger weight of a file's end are left out. The corrections for level and filtering are
    differentiated: if they were constants, training would make recordings quieter by decibels.

    Source: ITU-T P.862 and P.862.2. As a loss: Martin-Donas et al., "A Deep Learning Loss Function
    Based on the Perceptual Evaluation of the Speech Quality", IEEE Signal Processing Letters 2018.

    Args:
        sample_rate: in Hz.

    Raises:
        ConfigError: it lies below 16 kHz, where the wide-band score ends.
    """

    bands: Tensor
    widths: Tensor
    thresholds: Tensor
    exponents: Tensor
    level_band: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        if sample_rate < _RATE:
            raise ConfigError(
                f"the PESQ loss needs a sample rate of {_RATE} Hz or more, not {sample_rate}; "
                "set loss.pesq to 0"
            )
        self.longest = 2 * round(_WINDOW_SECONDS * sample_rate / 2)
        self.hann_windows = {self.longest}
        counts = torch.tensor(_BINS)
        frequencies = torch.arange(int(counts.sum())) * (sample_rate / self.longest)
        band_of_bin = torch.repeat_interleave(torch.arange(len(_BINS)), counts)
        member = torch.nn.functional.one_hot(band_of_bin, len(_BINS)).T.double()
        # The standard's powers are squares of an unscaled transform of 32 ms at 16 kHz.
        scale = _POWER_SCALE * 0.375 / 2 * (_RATE * _WINDOW_SECONDS) ** 2
        bands = member * torch.tensor(_FACTORS)[:, None] * scale * _input_gain(frequencies)
        thresholds = 10 ** (torch.tensor(_THRESHOLDS_DB, dtype=torch.float64) / 10)
        centres = torch.tensor(_BARK_WIDTHS).cumsum(0)
        # Zwicker's exponent is larger in the lowest bands.
        exponents = _ZWICKER_POWER * (6 / (centres + 2)).clamp(1, 2) ** 0.15
        low, high = _LEVEL_BAND_HZ
        inside = (frequencies >= low) & (frequencies <= high)
        self.register_buffer("level_band", inside[:, None].float(), persistent=False)
        for name, rows in (
            ("bands", bands),
            ("widths", torch.tensor(_BARK_WIDTHS)[:, None]),
            ("thresholds", thresholds[:, None]),
            ("exponents", exponents[:, None]),
        ):
            # The first band is the signal's mean, which is inaudible.
            self.register_buffer(name, rows[1:].float(), persistent=False)

    def forward(self, pair: SignalPair) -> Tensor:
        """-> scalar: the mean over the batch, 0 for equal signals."""
        powers = [
            power[:, : self.bands.shape[1]]
            for power in pair.powers(self.longest, self.longest // 2)
        ]
        decoded, original = (self.bands @ (self._gain(power) * power) for power in powers)
        original = original * self._band_ratio(decoded, original)
        decoded = decoded * self._frame_ratio(decoded, original)
        loudness, wanted = self._loudness(decoded), self._loudness(original)
        difference = loudness - wanted
        audible = (difference.abs() - _DEAD_ZONE * torch.minimum(loudness, wanted)).clamp(min=0)
        added = ((decoded + _ASYMMETRY_OFFSET) / (original + _ASYMMETRY_OFFSET)) ** _ASYMMETRY_POWER
        least, most = _ASYMMETRY_RANGE
        added = torch.where(added < least, 0.0, added.clamp(max=most))
        weighted = self.widths * audible
        symmetric = (weighted.square().sum(dim=1) * self.widths.sum() + 1e-6).sqrt()
        asymmetric = (weighted * added).sum(dim=1)
        loud = ((self._audible(original).sum(dim=1) + 1e5) / _LEVEL) ** 0.04
        score = _SYMMETRIC * _joined(symmetric / loud) + _ASYMMETRIC * _joined(asymmetric / loud)
        return score.mean()

    def _gain(self, powers: Tensor) -> Tensor:
        """Factor from (batch, bins, frames) to the level of the standard, (batch, 1, 1)."""
        level = (powers * self.level_band).sum(dim=1).mean(dim=1)
        return (_LEVEL / level.clamp(min=_LEAST_LEVEL))[:, None, None]

    def _band_ratio(self, decoded: Tensor, original: Tensor) -> Tensor:
        """Ratio of the reconstruction's long-term spectrum to the original's, (batch, bands, 1)."""
        spoken = self._audible(original, _CLEARLY).sum(dim=1, keepdim=True) >= _PAUSE
        ours, theirs = (
            (self._audible(powers, _CLEARLY) * spoken).mean(dim=2, keepdim=True)
            for powers in (decoded, original)
        )
        return ((ours + _BAND_OFFSET) / (theirs + _BAND_OFFSET)).clamp(*_BAND_RATIOS)

    def _frame_ratio(self, decoded: Tensor, original: Tensor) -> Tensor:
        """Factor from each frame to the original's power, (batch, 1, frames)."""
        ours, theirs = (
            self._audible(powers).sum(dim=1, keepdim=True) + _FRAME_OFFSET
            for powers in (decoded, original)
        )
        ratio = theirs / ours
        smoothed = torch.cat([ratio[..., :1], 0.8 * ratio[..., 1:] + 0.2 * ratio[..., :-1]], dim=2)
        return smoothed.clamp(*_FRAME_RATIOS)

    def _audible(self, powers: Tensor, times: float = 1.0) -> Tensor:
        """Powers, 0 where they are below ``times`` the hearing threshold."""
        return torch.where(powers > times * self.thresholds, powers, 0.0)

    def _loudness(self, powers: Tensor) -> Tensor:
        """Zwicker's loudness of (batch, bands, frames) powers, in sone."""
        above = (0.5 + 0.5 * powers / self.thresholds).clamp(min=1.0) ** self.exponents - 1
        return _LOUDNESS_SCALE * (2 * self.thresholds) ** self.exponents * above


def _joined(disturbance: Tensor) -> Tensor:
    """(batch, frames) -> (batch,): a high norm over each segment, then the root mean square."""
    clipped = disturbance.clamp(1e-3, _MOST_DISTURBANCE)
    length = min(_SEGMENT, clipped.shape[1])
    segments = clipped.unfold(1, length, max(1, length // 2))
    worst = segments.pow(_SEGMENT_ORDER).mean(dim=2).pow(2 / _SEGMENT_ORDER)
    return worst.mean(dim=1).sqrt()


def _input_gain(frequencies: Tensor) -> Tensor:
    """Power gain of the input filter at frequencies in Hz."""
    delay = torch.exp(-2j * math.pi * frequencies.double() / _RATE)
    forward, backward = (
        torch.stack([weight * delay**power for power, weight in enumerate(row)]).sum(dim=0)
        for row in _FILTER
    )
    return (forward / backward).abs().square()

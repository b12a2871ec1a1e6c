"""Keeps material of a low bandwidth from teaching the model that there is nothing above."""

from __future__ import annotations

import torch
from torch import Tensor

# Where the flat part of a spectrum ends, as a share of where all of it ends. Measured on speech: at
# 16 kHz it falls by 10 dB from 7.4 to 7.6 kHz and by 60 dB to 8 kHz; recordings that end at 10 and
# 11 kHz begin to fall at 9.4 and 10.2 kHz.
_FLAT_SHARE = 0.92


def limit_bandwidth(waveforms: Tensor, bandwidths: Tensor, sample_rate: int) -> Tensor:
    """Remove what lies above each item's bandwidth, and its roll-off below.

    Applied to original and reconstruction alike, so that what the model does above the bandwidth
    of a recording neither costs nor pays. The slope that ends a recording goes as well: a model
    that hears it puts notches there into recordings that do not end there. Items whose bandwidth is
    half the sample rate stay whole. The filter is a brick wall over the whole crop, differentiable.

    Args:
        waveforms: (batch, samples).
        bandwidths: (batch,), in Hz.
        sample_rate: in Hz.

    Returns:
        (batch, samples).
    """
    samples = waveforms.shape[-1]
    spectrum = torch.fft.rfft(waveforms)
    hz = torch.fft.rfftfreq(samples, 1 / sample_rate, device=waveforms.device)
    nyquist = sample_rate / 2
    ends = torch.where(bandwidths < nyquist, _FLAT_SHARE * bandwidths, nyquist)
    return torch.fft.irfft(spectrum * (hz <= ends[:, None]), samples)

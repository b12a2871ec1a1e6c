"""Keeps recordings of low bandwidth from teaching the model silence above it."""

from __future__ import annotations

import torch
from torch import Tensor

# End of the flat part of a spectrum, as a share of the bandwidth. In speech at 16 kHz, the spectrum
# falls by 10 dB from 7.4 to 7.6 kHz; recordings that end at 10 and 11 kHz fall from 9.4 and 10.2
# kHz.
_FLAT_SHARE = 0.92


def limit_bandwidth(waveforms: Tensor, bandwidths: Tensor, sample_rate: int) -> Tensor:
    """Remove what lies above each item's bandwidth, and its roll-off below.

    Applied to original and reconstruction, so that losses ignore what the model does above the
    bandwidth of a recording. The roll-off is removed as well: a model that learns it puts notches
    into recordings of full band. Items whose bandwidth is half the sample rate are not changed. The
    filter is a brick wall over the whole crop, and differentiable.

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

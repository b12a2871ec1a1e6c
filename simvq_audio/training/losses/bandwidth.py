"""Keeps material of a low bandwidth from teaching the model that there is nothing above."""

from __future__ import annotations

import torch
from torch import Tensor


def limit_bandwidth(waveforms: Tensor, bandwidths: Tensor, sample_rate: int) -> Tensor:
    """Remove what lies above each item's bandwidth.

    Applied to original and reconstruction alike, so that what the model does above the bandwidth
    of a recording neither costs nor pays. The filter is a brick wall over the whole crop,
    differentiable.

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
    return torch.fft.irfft(spectrum * (hz <= bandwidths[:, None]), samples)

"""Checks of the waveforms that users pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from simvq_audio.errors import AudioError


def as_waveform(waveform: Any, channels: int | None = None) -> np.ndarray:
    """A waveform as (channels, samples) float32.

    Args:
        waveform: NumPy array or tensor on any device, floating point with full scale 1, (samples,)
            or (channels, samples).
        channels: required number of channels; None: any.

    Raises:
        AudioError: another type, shape or number of channels, or it holds NaN or infinity.
    """
    if hasattr(waveform, "detach"):  # a tensor; torch itself is not needed here
        waveform = waveform.detach().cpu().numpy()
    array = np.asarray(waveform)
    if array.dtype.kind != "f":
        raise AudioError(
            f"the waveform must be floating point with full scale 1, not {array.dtype}"
        )
    array = array.astype(np.float32, copy=False)
    if array.ndim == 1:
        array = array[np.newaxis]
    if array.ndim != 2:
        raise AudioError(
            f"the waveform must be (samples,) or (channels, samples), not {array.shape}"
        )
    if channels is not None and len(array) != channels:
        raise AudioError(f"the waveform has {len(array)} channels, not {channels}")
    finite = np.isfinite(array)
    if not finite.all():
        channel, sample = np.argwhere(~finite)[0]
        raise AudioError(f"the waveform holds {array[channel, sample]} at sample {sample}")
    return array

"""Spectrograms and pictures of them."""

from __future__ import annotations

import io
import math

import numpy as np

from simvq_audio.errors import AudioError, needs_extra

WINDOW_SECONDS = 0.032
HOP_SECONDS = 0.008
# Wide enough for a screen; longer recordings have larger steps.
MAX_COLUMNS = 1200
# Range of colours below the loudest point, in dB.
DYNAMIC_RANGE = 80.0
COLOURS = "magma"
_QUIETEST = 1e-8
_WEBP_QUALITY = 60


def spectrogram(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Short-time levels with a Hann window of 32 ms.

    Columns are evenly spaced, 8 ms apart, or further if they would be more than 1200. Waveforms of
    one length and rate have the same columns.

    Args:
        waveform: (samples,), full scale 1.
        sample_rate: Hz.

    Returns:
        (bins, columns) dB, 0 for a sine of full scale; bins evenly from 0 to half the rate.

    Raises:
        AudioError: there are no samples.
    """
    if not len(waveform):
        raise AudioError("a recording without samples has no spectrogram")
    size = max(16, round(WINDOW_SECONDS * sample_rate))
    columns = math.ceil(len(waveform) / sample_rate / HOP_SECONDS)
    columns = max(2, min(MAX_COLUMNS, columns))
    window = np.hanning(size)
    # Each column is in the middle of its part of the recording.
    centres = (np.arange(columns) + 0.5) * len(waveform) / columns
    padded = np.pad(waveform, (size // 2, size))
    frames = padded[centres.astype(int)[:, None] + np.arange(size)] * window
    magnitudes = np.abs(np.fft.rfft(frames, axis=1)).T * (2 / window.sum())
    return 20 * np.log10(np.maximum(magnitudes, _QUIETEST))


def picture(levels: np.ndarray, loudest: float) -> bytes:
    """A spectrogram as a WebP image: a pixel per bin and column, low frequencies at the bottom.

    Args:
        levels: (bins, columns) dB.
        loudest: the level of the brightest colour; the darkest is 80 dB below.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with needs_extra("eval"):
        from matplotlib.image import imsave
    buffer = io.BytesIO()
    imsave(
        buffer,
        levels,
        vmin=loudest - DYNAMIC_RANGE,
        vmax=loudest,
        cmap=COLOURS,
        origin="lower",
        format="webp",
        pil_kwargs={"quality": _WEBP_QUALITY},
    )
    return buffer.getvalue()

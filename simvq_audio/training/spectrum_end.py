"""The bandwidth of recordings."""

from __future__ import annotations

import numpy as np

_WINDOW = 1024
_BLACKMAN_HARRIS = (0.35875, -0.48829, 0.14128, -0.01168)
_SMOOTHING_BINS = 5
_BELOW_PEAK_DB = 70.0
_ABOVE_ROUNDING_DB = 6.0
_ROUNDING_POWER = (1 / 32_768) ** 2 / 12
_NEARLY_ALL = 0.95


class SpectrumEnd:
    """Estimates the bandwidth of a recording from its long-term spectrum, block by block.

    The estimate is the highest frequency at which the mean power spectrum (Blackman-Harris windows
    of 1024 samples, smoothed over 5 bins) is less than 70 dB below its peak and more than 6 dB
    above the rounding noise of 16 bits. From 95 % of half the sample rate it is rounded up to half
    the sample rate, since anti-alias filters end a little below. Silence counts as full band.

    Read speech of full band at 16 and 24 kHz is recognised, and MP3 with a limit at 10 kHz gives
    10.1 kHz (median of 25). Codecs that add noise above the limit, such as Opus, hide it.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        # Side lobes below -90 dB; those of a Hann window would fill 200 Hz above a steep end.
        phase = 2 * np.pi * np.arange(_WINDOW) / _WINDOW
        terms = [a * np.cos(k * phase) for k, a in enumerate(_BLACKMAN_HARRIS)]
        self._window = np.sum(terms, axis=0).astype(np.float32)
        self._power = np.zeros(_WINDOW // 2 + 1)
        self._windows = 0
        self._rest = np.empty(0, np.float32)

    def add(self, block: np.ndarray) -> None:
        """Add a block, (samples, channels) float."""
        mono = np.concatenate([self._rest, block.mean(axis=1)])
        count = len(mono) // _WINDOW
        windows = mono[: count * _WINDOW].reshape(count, _WINDOW)
        self._rest = mono[count * _WINDOW :]
        self._take(windows)

    def _take(self, windows: np.ndarray) -> None:
        self._power += (np.abs(np.fft.rfft(windows * self._window)) ** 2).sum(axis=0)
        self._windows += len(windows)

    def bandwidth_hz(self) -> float:
        """The estimate, after the last block."""
        if not self._windows:
            # Shorter than one window.
            self._take(np.pad(self._rest, (0, _WINDOW - len(self._rest)))[None])
        kernel = np.ones(_SMOOTHING_BINS) / _SMOOTHING_BINS
        power = np.convolve(self._power / self._windows, kernel, mode="same")
        rounding = _ROUNDING_POWER * float((self._window**2).sum())
        floor = max(
            power.max() * 10 ** (-_BELOW_PEAK_DB / 10), rounding * 10 ** (_ABOVE_ROUNDING_DB / 10)
        )
        above = np.flatnonzero(power > floor)
        nyquist = self._sample_rate / 2
        end = (above[-1] + 1) * self._sample_rate / _WINDOW if len(above) else nyquist
        return float(nyquist if end >= _NEARLY_ALL * nyquist else end)

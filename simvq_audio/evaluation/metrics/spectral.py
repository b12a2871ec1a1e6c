"""Distances of waveforms and of spectra."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from simvq_audio.errors import needs_extra
from simvq_audio.evaluation.metric import Metric, UnscorableError
from simvq_audio.evaluation.metrics.guards import audible, finite
from simvq_audio.evaluation.trial import Trial

_MEL_FLOOR = 1e-7  # power, of a full scale of 1
_LSD_FLOOR = 1e-10  # power, where a sine of full scale has 1: -100 dB


class MelDistance(Metric):
    """Mean absolute difference of log-mel spectra, in dB.

    Power spectra of 512 samples (Hann, frames centred on multiples of 160 samples, zeros beyond
    the ends), 80 bands of Slaney's mel scale with filters of equal area from 0 to 8 kHz, powers
    floored at 1e-7, 10 log10, then the mean over bands and frames: librosa's
    ``melspectrogram`` with ``n_fft=512, hop_length=160, n_mels=80``.
    """

    name = "mel"
    title = "Mel distance"
    unit = "dB"
    higher_is_better = False
    source = "L1 of 80-band log-mel power spectra, librosa's melspectrogram"
    sample_rate = 16_000
    digits = 2
    packages = ("librosa",)

    def __init__(self) -> None:
        with needs_extra("eval"):
            from librosa.feature import melspectrogram
        self._mel = melspectrogram

    def score(self, trial: Trial) -> float:
        """0 for equal spectra."""
        reference, decoded = trial.at(self.sample_rate)
        if not len(reference):
            raise UnscorableError("the original is empty")
        return finite(np.abs(self._decibels(reference) - self._decibels(decoded)).mean())

    def _decibels(self, waveform: np.ndarray) -> np.ndarray:
        mel = self._mel(y=waveform, sr=self.sample_rate, n_fft=512, hop_length=160, n_mels=80)
        return 10 * np.log10(np.maximum(mel, _MEL_FLOOR))


class LogSpectralDistance(Metric):
    """Root mean square difference of log spectra in a band of frequencies, in dB.

    At the recording's rate: power spectra of 32 ms (Hann) every 8 ms, normalised so that a
    sine of full scale has 1, powers floored at -100 dB; the root of the mean square
    over the band's bins, then the mean over frames.
    """

    unit = "dB"
    higher_is_better = False
    source = "Gray and Markel 1976, doi 10.1109/TASSP.1976.1162849, within a band"
    digits = 2
    _band: ClassVar[tuple[int, int]]
    """Lowest and highest frequency, in Hz."""

    def score(self, trial: Trial) -> float:
        """0 for equal spectra; g for a signal that is g dB louder."""
        low, high = self._band
        if trial.sample_rate < 2 * high:
            raise UnscorableError(
                f"a recording at {trial.sample_rate} Hz does not reach to {high} Hz"
            )
        reference, decoded = trial.once("lsd spectra", lambda: _log_spectra(trial))
        hertz = np.linspace(0, trial.sample_rate / 2, reference.shape[1])
        band = (hertz >= low) & (hertz < high)
        reference, decoded = reference[:, band], decoded[:, band]
        if not (reference > 10 * np.log10(_LSD_FLOOR)).any():
            raise UnscorableError(f"the original has nothing between {low} and {high} Hz")
        return finite(np.sqrt(np.square(reference - decoded).mean(axis=1)).mean())


class Lsd0To4(LogSpectralDistance):
    """Log-spectral distance of the telephone band and below."""

    name = "lsd_0_4"
    title = "LSD 0-4 kHz"
    _band = (0, 4_000)


class Lsd4To8(LogSpectralDistance):
    """Log-spectral distance of the upper half of wide-band speech."""

    name = "lsd_4_8"
    title = "LSD 4-8 kHz"
    _band = (4_000, 8_000)


class Lsd8To12(LogSpectralDistance):
    """Log-spectral distance of the upper band of speech at 24 kHz."""

    name = "lsd_8_12"
    title = "LSD 8-12 kHz"
    _band = (8_000, 12_000)


class SiSdr(Metric):
    """Scale-invariant signal-to-distortion ratio; low for codecs that do not preserve phase."""

    name = "si_sdr"
    title = "SI-SDR"
    unit = "dB"
    higher_is_better = True
    source = "Le Roux et al. 2019, arXiv 1811.02508, by the package auraloss"
    digits = 2
    packages = ("auraloss",)

    def __init__(self) -> None:
        with needs_extra("eval"):
            from auraloss.time import SISDRLoss
        # Without the constant that keeps losses finite, so that undefined scores are not finite.
        self._loss = SISDRLoss(eps=0.0)

    def score(self, trial: Trial) -> float:
        """Not defined for equal signals."""
        import torch

        reference, decoded = audible(*trial.at(self.sample_rate))
        if np.array_equal(reference, decoded):
            raise UnscorableError("decoded without any error: SI-SDR is infinite")
        pair = (torch.from_numpy(x.astype(np.float64))[None] for x in (decoded, reference))
        return finite(-self._loss(*pair).item())


class MultiResolutionStft(Metric):
    """Spectral convergence plus L1 of log magnitudes, over three STFT sizes."""

    name = "mr_stft"
    title = "MR-STFT"
    higher_is_better = False
    source = "Yamamoto et al. 2020, arXiv 1910.11480, by the package auraloss with its defaults"
    packages = ("auraloss",)

    def __init__(self) -> None:
        with needs_extra("eval"):
            from auraloss.freq import MultiResolutionSTFTLoss
        self._loss = MultiResolutionSTFTLoss()

    def score(self, trial: Trial) -> float:
        """0 for equal signals."""
        import torch

        reference, decoded = trial.at(self.sample_rate)
        shortest = max(self._loss.fft_sizes) // 2 + 1
        if len(reference) < shortest:
            raise UnscorableError(f"too short for MR-STFT, which needs {shortest} samples")
        if not reference.any():
            raise UnscorableError("the original is silent")
        pair = (torch.from_numpy(np.float32(x))[None, None] for x in (decoded, reference))
        with torch.no_grad():
            return finite(self._loss(*pair).item())


def _log_spectra(trial: Trial) -> tuple[np.ndarray, np.ndarray]:
    """Spectra of reference and decoded waveform: (frames, bins), in dB.

    Raises:
        UnscorableError: they are shorter than one frame.
    """
    size = round(0.032 * trial.sample_rate)
    hop = round(0.008 * trial.sample_rate)
    if len(trial.reference) < size:
        raise UnscorableError("shorter than one frame of 32 ms")
    window = np.hanning(size + 1)[:-1]
    scale = 2 / window.sum()

    def spectrum(waveform: np.ndarray) -> np.ndarray:
        frames = np.lib.stride_tricks.sliding_window_view(waveform, size)[::hop]
        power = np.square(np.abs(np.fft.rfft(frames * window, axis=1)) * scale)
        return 10 * np.log10(np.maximum(power, _LSD_FLOOR))

    return spectrum(trial.reference), spectrum(trial.decoded)

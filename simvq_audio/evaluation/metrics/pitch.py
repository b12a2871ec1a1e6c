"""Pitch and voicing."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from simvq_audio.errors import needs_extra
from simvq_audio.evaluation.metric import Metric, UnscorableError
from simvq_audio.evaluation.metrics.guards import audible, finite
from simvq_audio.evaluation.trial import Trial

# The papers' range of pitch, in Hz.
_LOWEST, _HIGHEST = 50.0, 550.0

# A larger error is gross, usually an octave.
_GROSS_CENTS = 300.0

Tracks = tuple[np.ndarray, np.ndarray]


def cents_off(reference: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Signed difference of two pitch tracks in cents, in the frames that are voiced in both.

    Args:
        reference, decoded: (frames,) pitch in Hz, NaN if unvoiced.

    Raises:
        UnscorableError: no frame is voiced in both.
    """
    voiced = ~np.isnan(reference) & ~np.isnan(decoded)
    if not voiced.any():
        raise UnscorableError("no frame is voiced in both recordings")
    return 1200 * np.log2(decoded[voiced] / reference[voiced])


def voiced_kept(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Share of the reference's voiced frames that are voiced in the decoded recording, 0 to 1.

    Args:
        reference, decoded: as for ``cents_off``.

    Raises:
        UnscorableError: the reference has no voiced frame.
    """
    true, found = ~np.isnan(reference), ~np.isnan(decoded)
    if not true.any():
        raise UnscorableError("no frame of the original is voiced")
    return float((true & found).sum() / true.sum())


def voicing_f1(reference: np.ndarray, decoded: np.ndarray) -> float:
    """F1 score of "voiced", 0 to 1, against the reference.

    Args:
        reference, decoded: as for ``cents_off``.

    Raises:
        UnscorableError: the reference has no voiced frame. (The papers' code also
            drops recordings of which only the decoded one has none; here they score 0.)
    """
    true, found = ~np.isnan(reference), ~np.isnan(decoded)
    if not true.any():
        raise UnscorableError("no frame of the original is voiced")
    return float(2 * (true & found).sum() / (true.sum() + found.sum()))


class _PitchMetric(Metric):
    """Compares pitch tracks; the tracker runs once for all its metrics."""

    sample_rate = 16_000

    def tracks(self, trial: Trial) -> Tracks:
        """Pitch of the reference and of the decoded recording: (frames,) Hz, NaN: unvoiced."""
        reference, decoded = audible(*trial.at(self.sample_rate))
        if trial.duration < 0.1:
            raise UnscorableError("shorter than 0.1 s")
        return trial.once(
            ("pitch", self._track.__qualname__),
            lambda: (self._track(reference), self._track(decoded)),
        )

    @abstractmethod
    def _track(self, waveform: np.ndarray) -> np.ndarray:
        """(samples,) at 16 kHz -> (frames,) Hz, NaN where unvoiced."""


class _VoicingF1(_PitchMetric):
    higher_is_better = True

    def score(self, trial: Trial) -> float:
        """F1 score of "voiced", 0 to 1."""
        return finite(voicing_f1(*self.tracks(trial)))


class _Pyin(_PitchMetric):
    """Probabilistic YIN: windows of 64 ms every 16 ms, 50 to 550 Hz, else librosa's defaults."""

    packages = ("librosa",)

    def __init__(self) -> None:
        with needs_extra("eval"):
            from librosa import pyin
        self._pyin = pyin

    def _track(self, waveform: np.ndarray) -> np.ndarray:
        pitch, _, _ = self._pyin(
            waveform, fmin=_LOWEST, fmax=_HIGHEST, sr=self.sample_rate, frame_length=1024
        )
        return pitch


class _Crepe(_PitchMetric):
    """CREPE as the papers of Vocos, WavTokenizer and SimVQ run it.

    Model "full", 50 to 550 Hz, frames of 64 ms every 10 ms without padding; unvoiced where the
    periodicity is below 0.21 or the A-weighted level below -60 dB.

    Source: metrics/periodicity.py of WavTokenizer and of SimVQ, which are the same, after CARGAN
    (arXiv 2110.10139); Kim et al. 2018 (arXiv 1802.06182).
    """

    packages = ("torchcrepe", "librosa")

    def __init__(self) -> None:
        with needs_extra("crepe"):
            import librosa
            import torchcrepe
        self._librosa = librosa
        self._crepe = torchcrepe

    def _track(self, waveform: np.ndarray) -> np.ndarray:
        import torch

        crepe = self._crepe
        audio = torch.from_numpy(np.float32(waveform))[None]
        # torchcrepe.predict either holds every frame's activations at once (gigabytes for
        # half a minute) or decodes each batch by itself, which the papers do not do.
        with torch.inference_mode(), _seeded(zlib.crc32(waveform.tobytes())):
            batches = crepe.preprocess(audio, crepe.SAMPLE_RATE, batch_size=128, pad=False)
            salience = torch.cat([crepe.infer(frames, "full") for frames in batches])
            pitch, periodicity = crepe.postprocess(
                salience.T[None], _LOWEST, _HIGHEST, crepe.decode.viterbi, False, True
            )
        pitch, periodicity = pitch[0].numpy(), periodicity[0].numpy()
        periodicity[self._level(waveform) < -60] = 0
        pitch[periodicity < 0.21] = np.nan
        return pitch

    def _level(self, waveform: np.ndarray) -> np.ndarray:
        """A-weighted level of each frame, dB."""
        librosa, size = self._librosa, self._crepe.WINDOW_SIZE
        power = np.square(np.abs(librosa.stft(waveform, n_fft=size, hop_length=160, center=False)))
        hertz = librosa.fft_frequencies(sr=self._crepe.SAMPLE_RATE, n_fft=size)
        with np.errstate(divide="ignore"):  # 0 Hz weighs nothing
            weighted = librosa.perceptual_weighting(power, hertz)
        return weighted.mean(axis=0) - self._crepe.loudness.REF_DB


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, with which torchcrepe dithers pitch."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


class F0Error(_Pyin):
    """Pitch error: median of the absolute difference, robust to octave errors."""

    name = "f0_error"
    title = "F0 error"
    unit = "cents"
    higher_is_better = False
    digits = 1
    source = "median over frames voiced in both; Mauch and Dixon 2014 (pYIN), by librosa"

    def score(self, trial: Trial) -> float:
        """Median |difference| over the frames that are voiced in both."""
        return finite(np.median(np.abs(cents_off(*self.tracks(trial)))))


class GrossPitchError(_Pyin):
    """Share of frames with another pitch."""

    name = "gross_pitch_error"
    title = "Gross pitch error"
    unit = "%"
    higher_is_better = False
    digits = 2
    source = (
        f"frames voiced in both that are off by more than {_GROSS_CENTS:g} cents; "
        "Mauch and Dixon 2014 (pYIN), by librosa"
    )

    def score(self, trial: Trial) -> float:
        """Percent of the frames that are voiced in both."""
        return finite(100 * (np.abs(cents_off(*self.tracks(trial))) > _GROSS_CENTS).mean())


class VoicedKept(_Pyin):
    """Voiced frames of the original that are voiced in the decoded recording."""

    name = "voiced_kept"
    title = "Voiced frames kept"
    unit = "%"
    higher_is_better = True
    digits = 1
    source = "recall of voiced frames; Mauch and Dixon 2014 (pYIN), by librosa"

    def score(self, trial: Trial) -> float:
        """Percent of the original's voiced frames; 0 if the decoded recording has none."""
        return finite(100 * voiced_kept(*self.tracks(trial)))


class VoicingF1(_VoicingF1, _Pyin):
    """Voiced or unvoiced, by pYIN."""

    name = "vuv_f1"
    title = "V/UV F1"
    source = "F1 of voiced frames; Mauch and Dixon 2014 (pYIN), by librosa"


class F0RmseCrepe(_Crepe):
    """Pitch error as the papers measure it: root mean square, dominated by octave errors."""

    name = "f0_rmse_crepe"
    title = "F0 RMSE (CREPE)"
    unit = "cents"
    higher_is_better = False
    digits = 1
    source = "RMSE over frames voiced in both, as in arXiv 2306.00814 (Vocos), by torchcrepe"

    def score(self, trial: Trial) -> float:
        """Root mean square over the frames that are voiced in both."""
        return finite(np.sqrt(np.square(cents_off(*self.tracks(trial))).mean()))


class VoicingF1Crepe(_VoicingF1, _Crepe):
    """Voiced or unvoiced as the papers measure it."""

    name = "vuv_f1_crepe"
    title = "V/UV F1 (CREPE)"
    source = "as in arXiv 2408.16532 (WavTokenizer) and 2411.02038 (SimVQ), by torchcrepe"

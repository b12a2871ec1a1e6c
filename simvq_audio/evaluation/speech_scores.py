"""PESQ and STOI of a decoded recording against its original."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simvq_audio.audio import resample
from simvq_audio.errors import MissingExtraError

SCORE_RATE = 16_000


@dataclass(frozen=True)
class SpeechScores:
    """Scores of one recording.

    Attributes:
        pesq_wb: PESQ wide band (ITU-T P.862.2), about 1.0 to 4.64; None where PESQ finds no
            speech to score.
        stoi, estoi: (extended) short-time objective intelligibility, 0 to 1.
    """

    pesq_wb: float | None
    stoi: float
    estoi: float


def score(original: np.ndarray, decoded: np.ndarray, sample_rate: int) -> SpeechScores:
    """Score mono (samples,) float32 waveforms of one rate, cut to the shorter, at 16 kHz.

    Raises:
        MissingExtraError: pesq or pystoi is not installed.
    """
    try:
        from pesq import NoUtterancesError, pesq
        from pystoi import stoi
    except ImportError as error:
        raise MissingExtraError(
            f"{error.name} is not installed; it comes with: pip install 'simvq-audio[eval]'"
        ) from error
    samples = min(len(original), len(decoded))
    pair = np.stack([original[:samples], decoded[:samples]])
    reference, degraded = resample(pair, sample_rate, SCORE_RATE)
    try:
        quality = float(pesq(SCORE_RATE, reference, degraded, "wb"))
    except NoUtterancesError:
        quality = None
    return SpeechScores(
        quality,
        float(stoi(reference, degraded, SCORE_RATE)),
        float(stoi(reference, degraded, SCORE_RATE, extended=True)),
    )

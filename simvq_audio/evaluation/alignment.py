"""The constant delay of a codec, estimated from decoded recordings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from simvq_audio.errors import SimvqAudioError

_MAX_SECONDS = 0.5
# Envelopes in bands, every millisecond, over windows shorter than syllables.
_ENVELOPE_HOP = 0.001
_ENVELOPE_WINDOW = 0.016
_BANDS = 12
# Levels this far below a band's loudest frame count as silence.
_ENVELOPE_RANGE = 5.0  # nepers of power, 22 dB
# How far the waveforms may correct the estimate of the envelopes, and the correlation needed for
# that.
_REFINE_SECONDS = 0.004
_REFINE_CORRELATION = 0.5
_AGREE_SECONDS = 0.005
# Delays that envelopes cannot distinguish from none, which is more likely.
_ENVELOPE_ERROR = 0.001


class AlignmentError(SimvqAudioError):
    """An original and a decoded recording do not match, or are too short to tell."""


@dataclass(frozen=True)
class Delay:
    """The constant delay of a codec.

    Attributes:
        samples: positive if decoded recordings are late.
        agreement: share of recordings whose own delay is within 5 ms of this; below a half there is
            no constant delay.
        exact: whether the waveforms correlate enough for an estimate to the sample; otherwise it is
            that of envelopes, exact to one or two milliseconds.
    """

    samples: int
    agreement: float
    exact: bool


def estimate_delay(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    sample_rate: int,
    max_seconds: float = _MAX_SECONDS,
) -> Delay:
    """Estimate one delay for all recordings of a codec.

    Envelopes in frequency bands come first, since they survive codecs that make up phases: their
    correlations, summed over recordings, give the delay to one or two milliseconds. If the
    waveforms correlate near it, in either polarity, they give it to the sample.

    Args:
        pairs: (samples,) original and decoded waveforms of one rate; their lengths may differ. Some
            seconds of speech in all are enough.
        sample_rate: of all, in Hz.
        max_seconds: largest delay, of either sign.

    Raises:
        AlignmentError: no pair has at least 0.1 s of sound in both.
    """
    hop = max(1, round(_ENVELOPE_HOP * sample_rate))
    reach = max(2, round(max_seconds * sample_rate / hop))
    fine_reach = reach * hop + round(_REFINE_SECONDS * sample_rate) + hop
    coarse, fine = [], []
    for reference, decoded in pairs:
        if min(len(reference), len(decoded)) < 0.1 * sample_rate:
            continue
        if not (reference.any() and decoded.any()):
            continue
        envelopes = [_envelopes(x, sample_rate, hop) for x in (reference, decoded)]
        coarse.append(_correlation(envelopes[0], envelopes[1], reach).sum(axis=0))
        centred = [x[None] - x.mean(dtype=np.float64) for x in (reference, decoded)]
        fine.append(_correlation(centred[0], centred[1], fine_reach)[0])
    if not coarse:
        raise AlignmentError(
            "no recording has sound in both original and decoded of at least 0.1 s: the delay "
            "cannot be found"
        )
    by_envelope = _peak(np.sum(coarse, axis=0)) - reach
    alone = np.array([_peak(row) - reach for row in coarse])
    agreement = np.mean(np.abs(alone - by_envelope) * hop <= _AGREE_SECONDS * sample_rate)
    centre = round(by_envelope * hop)
    width = round(_REFINE_SECONDS * sample_rate)
    # The polarity is common to all recordings, so the absolute value is taken after the mean.
    near = np.mean(fine, axis=0)[fine_reach + centre - width : fine_reach + centre + width + 1]
    best = int(np.abs(near).argmax())
    exact = bool(abs(near[best]) >= _REFINE_CORRELATION)
    if exact:
        centre += best - width
    elif abs(by_envelope * hop) < _ENVELOPE_ERROR * sample_rate:
        centre = 0
    return Delay(centre, float(agreement), exact)


def align(
    reference: np.ndarray, decoded: np.ndarray, delay: int, sample_rate: int
) -> tuple[np.ndarray, np.ndarray]:
    """Remove a delay and cut both waveforms to their common part.

    Args:
        reference, decoded: (samples,) of one rate.
        delay: of the decoded one, in samples, as ``Delay.samples``.
        sample_rate: in Hz.

    Returns:
        both, views of equal length.

    Raises:
        AlignmentError: more than half a second of the original is missing, which is more than
            frames and delays explain.
    """
    first, second = reference[max(-delay, 0) :], decoded[max(delay, 0) :]
    samples = min(len(first), len(second))
    missing = (len(reference) - samples) / sample_rate
    if missing > _MAX_SECONDS:
        raise AlignmentError(
            f"the decoded recording lacks {missing:.2f} s of the original's "
            f"{len(reference) / sample_rate:.2f} s"
        )
    return first[:samples], second[:samples]


def _envelopes(waveform: np.ndarray, sample_rate: int, hop: int) -> np.ndarray:
    """(samples,) -> (bands, frames): log power, without its mean over time, in unit variance."""
    size = round(_ENVELOPE_WINDOW * sample_rate)
    padded = np.pad(waveform, (size // 2, size - size // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    edges = np.geomspace(100, min(4_000, sample_rate / 2), _BANDS + 1)
    bins = np.unique(np.rint(edges * size / sample_rate).astype(int))
    window = np.hanning(size).astype(np.float32)
    power = np.concatenate(
        [
            np.square(np.abs(np.fft.rfft(block * window)[:, : bins[-1]]))
            # In blocks: the frames overlap sixteen times.
            for block in np.array_split(frames, -(-len(frames) // 4096))
        ]
    )
    bands = np.add.reduceat(power, bins[:-1], axis=1).T
    loudest = bands.max(axis=1, keepdims=True)
    rows = np.log(np.maximum(bands, np.exp(-2 * _ENVELOPE_RANGE) * loudest + 1e-30))
    return _standardised(rows)


def _standardised(rows: np.ndarray) -> np.ndarray:
    rows = rows - rows.mean(axis=1, keepdims=True)
    deviation = rows.std(axis=1, keepdims=True)
    return np.divide(rows, deviation, out=np.zeros_like(rows), where=deviation > 1e-9)


def _correlation(reference: np.ndarray, decoded: np.ndarray, reach: int) -> np.ndarray:
    """(rows, frames) twice -> (rows, 2 reach + 1) coefficients at lags -reach to reach."""
    longest = max(reference.shape[1], decoded.shape[1])
    size = 1 << (longest + reach).bit_length()
    product = np.fft.rfft(decoded, size) * np.fft.rfft(reference, size).conj()
    values = np.fft.irfft(product, size)
    norm = np.sqrt(np.square(reference).sum(axis=1) * np.square(decoded).sum(axis=1))
    lags = np.concatenate([values[:, -reach:], values[:, : reach + 1]], axis=1)
    return lags / np.maximum(norm, 1e-30)[:, None]


def _peak(values: np.ndarray) -> float:
    """Where the highest value is, between samples by a parabola."""
    top = int(values.argmax())
    if not 0 < top < len(values) - 1:
        return float(top)
    left, middle, right = values[top - 1 : top + 2]
    bend = left - 2 * middle + right
    return top + (0.5 * (left - right) / bend if bend < 0 else 0.0)

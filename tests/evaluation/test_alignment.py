"""Known delays are found and removed, through what codecs do to waveforms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import noise, noisy, speech

from simvq_audio.audio import resample
from simvq_audio.evaluation.alignment import AlignmentError, align, estimate_delay

RATE = 16_000


def late(waveform: np.ndarray, delay: int) -> np.ndarray:
    """As a codec gives it: silence before, or the start missing."""
    if delay < 0:
        return waveform[-delay:]
    return np.concatenate([np.zeros(delay, np.float32), waveform])


def vocoder(waveform: np.ndarray, seed: int = 0) -> np.ndarray:
    """The magnitudes of the spectrum with phases of their own: no waveform is kept."""
    size, hop = 512, 128
    window = np.hanning(size + 1)[:-1]
    rng = np.random.default_rng(seed)
    padded = np.pad(waveform, size)
    result = np.zeros(len(padded))
    for start in range(0, len(padded) - size, hop):
        magnitude = np.abs(np.fft.rfft(padded[start : start + size] * window))
        phase = rng.uniform(0, 2 * np.pi, len(magnitude))
        frame = np.fft.irfft(magnitude * np.exp(1j * phase))
        result[start : start + size] += frame * window
    return np.float32(result[size : size + len(waveform)] / 1.5)


@pytest.fixture(scope="module")
def recordings() -> list[np.ndarray]:
    whole = speech(RATE)
    return [whole[:40_000], whole[40_000:80_000], whole[80_000:]]


@pytest.mark.parametrize("delay", [0, 1, 288, 1_337, -1, -200, 7_000])
def test_a_delay_is_found_to_the_sample(recordings, delay):
    found = estimate_delay([(x, late(x, delay)) for x in recordings], RATE)
    assert (found.samples, found.agreement, found.exact) == (delay, 1.0, True)


def test_neither_noise_nor_polarity_nor_level_matter(recordings):
    pairs = [(x, -0.2 * noisy(late(x, 345), 5)) for x in recordings]
    found = estimate_delay(pairs, RATE)
    assert (found.samples, found.exact) == (345, True)


def test_a_delay_of_a_fraction_of_a_sample(recordings):
    """One sample at 48 kHz is a third at 16 kHz."""
    for delay in (1_000, 1_001, 1_002):
        pairs = [
            (x, resample(late(resample(x[None], RATE, 48_000)[0], delay)[None], 48_000, RATE)[0])
            for x in recordings
        ]
        assert estimate_delay(pairs, RATE).samples == round(delay / 3)


@pytest.mark.parametrize("delay", [0, 300, 1_280])
def test_envelopes_tell_where_waveforms_are_lost(recordings, delay):
    found = estimate_delay([(x, vocoder(late(x, delay))) for x in recordings], RATE)
    assert not found.exact
    assert abs(found.samples - delay) <= 0.002 * RATE
    assert found.agreement == 1


def test_no_delay_by_envelopes_is_none_at_all(recordings):
    assert estimate_delay([(x, vocoder(x)) for x in recordings], RATE).samples == 0


def test_recordings_that_do_not_agree(recordings):
    delays = (0, 1_600, 3_200)
    found = estimate_delay([(x, late(x, d)) for x, d in zip(recordings, delays)], RATE)
    assert found.agreement == pytest.approx(1 / 3)


def test_one_strange_recording_does_not_decide(recordings):
    pairs = [(x, late(x, 288)) for x in recordings[:2]]
    found = estimate_delay([*pairs, (recordings[2], noise(30_000))], RATE)
    assert found.samples == 288
    assert found.agreement >= 2 / 3


def test_nothing_to_tell_by(recordings):
    silence = np.zeros_like(recordings[0])
    short = recordings[0][:1_000]
    with pytest.raises(AlignmentError, match="no recording has sound in both"):
        estimate_delay([(recordings[0], silence), (short, short)], RATE)
    # Beside others they do not count.
    pairs = [(recordings[0], silence), (recordings[1], late(recordings[1], 99))]
    assert estimate_delay(pairs, RATE).samples == 99


@settings(max_examples=60, deadline=None)
@given(st.integers(-2_000, 2_000), st.integers(0, 2_000), st.integers(0, 2_000))
def test_aligned_pairs_are_the_same_samples(delay, more, fewer):
    reference = np.arange(20_000)
    decoded = late(reference, delay)
    decoded = np.concatenate([decoded, np.full(more, -1)])[: len(decoded) + more - fewer]
    first, second = align(reference, decoded, delay, RATE)
    assert len(first) == len(second) >= 20_000 - fewer - abs(delay)
    kept = second >= 0
    assert np.array_equal(first[kept], second[kept])
    assert kept.sum() >= len(kept) - more


def test_a_decoded_recording_that_lacks_a_part_is_no_counterpart():
    reference = np.ones(RATE * 3)
    with pytest.raises(AlignmentError, match=r"lacks 0\.60 s of the original's 3\.00 s"):
        align(reference, reference[: round(2.4 * RATE)], 0, RATE)

"""Pitch error and voicing: closed forms, and the papers' protocol step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from signals import noise, noisy, speech, tone, trial

from simvq_audio.evaluation.metric import UnscorableError
from simvq_audio.evaluation.metrics.pitch import (
    F0Error,
    F0RmseCrepe,
    GrossPitchError,
    VoicedKept,
    VoicingF1,
    VoicingF1Crepe,
    cents_off,
    voiced_kept,
    voicing_f1,
)

pytest.importorskip("librosa")
NONE = float("nan")


def test_error_and_voicing_of_known_tracks():
    reference = np.array([100, 100, 200, NONE, NONE, 100])
    decoded = np.array([200, 100, NONE, 100, NONE, 50])
    assert cents_off(reference, decoded) == pytest.approx([1200, 0, -1200])
    # 3 found and true, 1 found only, 1 true only.
    assert voicing_f1(reference, decoded) == pytest.approx(3 / 4)
    assert voiced_kept(reference, decoded) == pytest.approx(3 / 4)
    nothing = np.full(6, NONE)
    assert voicing_f1(reference, nothing) == 0
    assert voiced_kept(reference, nothing) == 0
    for measure in (voicing_f1, voiced_kept):
        with pytest.raises(UnscorableError, match="no frame of the original is voiced"):
            measure(nothing, decoded)
    with pytest.raises(UnscorableError, match="no frame is voiced in both"):
        cents_off(reference, nothing)


def test_octave_errors_are_gross_and_leave_the_median_alone():
    """A fifth of the frames an octave too low: the median error stays, the gross one says so."""
    reference = tone(220, 2.0)
    decoded = reference.copy()
    decoded[: len(decoded) // 5] = tone(110, 2.0)[: len(decoded) // 5]
    pair = trial(reference, decoded)
    assert F0Error().score(pair) < 10
    assert GrossPitchError().score(pair) == pytest.approx(20, abs=3)
    assert VoicedKept().score(pair) == pytest.approx(100, abs=3)


def test_two_tones_are_as_far_apart_as_their_pitches():
    cents = 1200 * np.log2(220 / 200)
    pair = trial(tone(200), tone(220))
    # pYIN's grid is 10 cents wide.
    assert F0Error().score(pair) == pytest.approx(cents, abs=10)
    assert GrossPitchError().score(pair) == 0
    assert VoicingF1().score(pair) == 1
    assert F0Error().score(trial(tone(200), tone(200))) == 0


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_f1_where_a_part_lost_its_voice(share):
    """Of four voiced seconds a share falls silent: precision 1, recall 1 - share."""
    reference = tone(150, 4.0)
    decoded = reference.copy()
    decoded[: round(len(decoded) * share)] = 0
    recall = 1 - share
    expected = 2 * recall / (1 + recall)
    pair = trial(reference, decoded)
    assert VoicingF1().score(pair) == pytest.approx(expected, abs=0.02)
    assert VoicedKept().score(pair) == pytest.approx(100 * recall, abs=2)


def test_what_has_no_pitch_has_no_score():
    for metric in (F0Error, GrossPitchError, VoicedKept, VoicingF1):
        with pytest.raises(UnscorableError, match="voiced"):
            metric().score(trial(noise(16_000), noise(16_000, 1)))
        with pytest.raises(UnscorableError, match="the original is silent"):
            metric().score(trial(np.zeros(16_000), tone(100)))
        with pytest.raises(UnscorableError, match=r"shorter than 0\.1 s"):
            metric().score(trial(tone(100)[:900], tone(100)[:900]))


def test_the_tracker_runs_once_for_both_metrics(monkeypatch):
    import librosa

    calls = []
    pyin = librosa.pyin
    monkeypatch.setattr(librosa, "pyin", lambda *a, **named: calls.append(0) or pyin(*a, **named))
    pair = trial(tone(200, 0.5), tone(220, 0.5))
    F0Error().score(pair)
    VoicingF1().score(pair)
    assert len(calls) == 2  # original and decoded


@pytest.fixture(scope="module")
def tiny_crepe():
    """torchcrepe with its small network in place of the large: the protocol is the same."""
    torchcrepe = pytest.importorskip("torchcrepe")
    load = torchcrepe.load.model

    def load_tiny(device, capacity):
        assert capacity == "full"
        load(device, "tiny")
        torchcrepe.infer.capacity = capacity

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchcrepe.load, "model", load_tiny)
        yield torchcrepe
    del torchcrepe.infer.capacity  # whoever comes next loads what it asks for


def papers_tracks(torchcrepe, waveform):
    """metrics/periodicity.py of the papers' code, with torchcrepe's public API."""
    torchaudio = pytest.importorskip("torchaudio")
    import librosa

    audio = torch.from_numpy(waveform)[None]
    pitch, periodicity = torchcrepe.predict(
        audio, 16_000, fmin=50.0, fmax=550, model="full", return_periodicity=True, pad=False
    )
    power = torchaudio.functional.spectrogram(
        audio, 0, torch.hann_window(1024), 1024, 160, 1024, 2, False, center=False
    )
    weighted = librosa.perceptual_weighting(
        power.numpy(), librosa.fft_frequencies(sr=16_000, n_fft=1024)
    )
    periodicity[torch.from_numpy(weighted - 20).mean(1) < -60] = 0
    pitch[periodicity < 0.21] = torch.nan
    return pitch[0].numpy()


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_crepe_follows_the_papers(tiny_crepe):
    reference = np.concatenate([np.zeros(8_000, np.float32), speech()[:32_000], tone(140, 0.5)])
    decoded = noisy(reference, 10)
    tracks = F0RmseCrepe().tracks(trial(reference, decoded))
    for ours, waveform in zip(tracks, (reference, decoded)):
        theirs = papers_tracks(tiny_crepe, waveform)
        assert 0.1 < np.isnan(theirs).mean() < 0.9
        assert np.array_equal(np.isnan(ours), np.isnan(theirs))
        # Each run dithers pitches by up to 20 cents.
        both = ~np.isnan(theirs)
        assert np.abs(1200 * np.log2(ours[both] / theirs[both])).max() <= 40


def test_crepe_tells_tones_apart_and_repeats_itself(tiny_crepe):
    # The level that decides on silence is a mean over all frequencies, so there has to be noise.
    low, high = noisy(tone(200), 30), noisy(tone(220), 30)
    pair = trial(low, high)
    score = F0RmseCrepe().score(pair)
    assert score == pytest.approx(1200 * np.log2(220 / 200), abs=20)
    assert F0RmseCrepe().score(trial(low, high)) == score
    assert VoicingF1Crepe().score(pair) == pytest.approx(1)

"""Distances of waveforms and spectra, against packages and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from signals import noise, noisy, speech, tone, trial

from simvq_audio.evaluation.metric import UnscorableError
from simvq_audio.evaluation.metrics.spectral import (
    Lsd0To4,
    Lsd4To8,
    Lsd8To12,
    MelDistance,
    MultiResolutionStft,
    SiSdr,
)

librosa = pytest.importorskip("librosa")
auraloss = pytest.importorskip("auraloss")
BANDS = [Lsd0To4, Lsd4To8, Lsd8To12]


@pytest.mark.parametrize("ratio", [-5.0, 0.0, 17.0, 60.0])
def test_si_sdr_of_a_scaled_signal_and_orthogonal_noise(ratio):
    time = np.arange(16_000) / 16_000
    signal = np.sin(2 * np.pi * 100 * time)
    other = np.sin(2 * np.pi * 333 * time)  # whole periods: orthogonal, of the same energy
    decoded = -0.3 * (signal + 10 ** (-ratio / 20) * other)
    assert SiSdr().score(trial(signal, decoded)) == pytest.approx(ratio, abs=1e-3)


def test_si_sdr_where_it_is_not_defined():
    sound = speech()
    with pytest.raises(UnscorableError, match="infinite"):
        SiSdr().score(trial(sound, sound))
    with pytest.raises(UnscorableError, match="the decoded recording is silent"):
        SiSdr().score(trial(sound, 0 * sound))
    with pytest.raises(UnscorableError, match="the original is silent"):
        SiSdr().score(trial(0 * sound, sound))
    # A constant has nothing left once its mean is gone.
    with pytest.raises(UnscorableError, match="the result is"):
        SiSdr().score(trial(np.ones(1000), noise(1000)))


def test_scores_are_those_of_auraloss():
    pair = trial(speech(), noisy(speech()))
    given = [torch.from_numpy(x)[None] for x in (pair.decoded, pair.reference)]
    assert SiSdr().score(pair) == pytest.approx(-auraloss.time.SISDRLoss()(*given).item(), abs=1e-3)
    stft = auraloss.freq.MultiResolutionSTFTLoss()(*(x[None] for x in given)).item()
    assert MultiResolutionStft().score(pair) == pytest.approx(stft, rel=1e-5)
    assert MultiResolutionStft().score(trial(speech(), speech())) == 0


def test_mr_stft_where_it_is_not_defined():
    with pytest.raises(UnscorableError, match="needs 1025 samples"):
        MultiResolutionStft().score(trial(noise(1024), noise(1024)))
    with pytest.raises(UnscorableError, match="the original is silent"):
        MultiResolutionStft().score(trial(np.zeros(4000), noise(4000)))


def test_mel_distance_is_librosas_power_mels_in_decibels():
    reference = speech()
    decoded = noisy(reference)
    mels = [
        librosa.feature.melspectrogram(y=x, sr=16_000, n_fft=512, hop_length=160, n_mels=80)
        for x in (reference, decoded)
    ]
    ours, theirs = (librosa.power_to_db(mel, amin=1e-7, top_db=None) for mel in mels)
    expected = np.abs(ours - theirs).mean()
    assert MelDistance().score(trial(reference, decoded)) == pytest.approx(expected, rel=1e-5)


def test_mel_distance_and_lsd_of_a_known_gain():
    reference = noise(24_000)
    louder = reference * 10 ** (6 / 20)
    assert MelDistance().score(trial(reference, louder)) == pytest.approx(6, abs=1e-3)
    for metric in BANDS:
        assert metric().score(trial(reference, louder, 24_000)) == pytest.approx(6, abs=1e-3)
        assert metric().score(trial(reference, reference, 24_000)) == 0


def test_lsd_counts_its_band_alone():
    """A codec's loss above 4 kHz changes only that band's score."""
    spectrum = np.fft.rfft(noise(24_000))
    hertz = np.fft.rfftfreq(24_000, 1 / 24_000)
    decoded = np.fft.irfft(spectrum * np.where((hertz > 3_900) & (hertz < 8_100), 0.1, 1.0))
    reference = np.fft.irfft(spectrum)
    # A bin at a band's edge sees its neighbours through the window.
    low, middle, high = (m().score(trial(reference, decoded, 24_000)) for m in BANDS)
    assert middle == pytest.approx(20, abs=0.1)
    assert low < 4 and high < 4


def test_lsd_is_the_root_of_the_mean_square_over_bins_then_the_mean_over_frames():
    """Half of the frames 10 dB louder: 5 dB. Half of the band 10 dB louder: 10 / sqrt(2)."""
    reference = noise(16_000 * 4)
    halves = reference * np.repeat([1, np.sqrt(10)], 16_000 * 2)
    assert Lsd0To4().score(trial(reference, halves)) == pytest.approx(5, abs=0.05)
    spectrum = np.fft.rfft(reference)
    gain = np.where(np.linspace(0, 8_000, len(spectrum)) < 2_000, np.sqrt(10), 1)
    filtered = np.fft.irfft(spectrum * gain)
    assert Lsd0To4().score(trial(reference, filtered)) == pytest.approx(10 / 2**0.5, abs=0.15)


def test_bands_that_a_recording_does_not_hold():
    with pytest.raises(UnscorableError, match="at 16000 Hz does not reach to 12000 Hz"):
        Lsd8To12().score(trial(noise(16_000), noise(16_000)))
    with pytest.raises(UnscorableError, match="nothing between 8000 and 12000 Hz"):
        low = tone(200, sample_rate=24_000) * np.hanning(24_000)
        Lsd8To12().score(trial(low, noise(24_000), 24_000))
    with pytest.raises(UnscorableError, match="one frame of 32 ms"):
        Lsd0To4().score(trial(noise(500), noise(500)))

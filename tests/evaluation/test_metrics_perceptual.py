"""PESQ and STOI: the packages' numbers, and a reason where they have none."""

from __future__ import annotations

import numpy as np
import pytest
from signals import noise, noisy, speech, trial

from simvq_audio.audio import resample
from simvq_audio.errors import MissingExtraError
from simvq_audio.evaluation.metric import UnscorableError
from simvq_audio.evaluation.metrics import perceptual
from simvq_audio.evaluation.metrics.perceptual import Estoi, PesqNb, PesqWb, Stoi

pesq = pytest.importorskip("pesq").pesq
stoi = pytest.importorskip("pystoi").stoi
ALL = [PesqWb, PesqNb, Stoi, Estoi]


def test_scores_are_those_of_the_packages():
    reference = speech(24_000)
    decoded = noisy(reference)
    pair = trial(reference, decoded, 24_000)
    for metric, rate, mode in ((PesqWb, 16_000, "wb"), (PesqNb, 8_000, "nb")):
        at_rate = resample(np.stack([reference, decoded]), 24_000, rate)
        assert metric().score(pair) == pytest.approx(pesq(rate, *at_rate, mode), abs=1e-6)
    # pystoi is given the recording's own rate, as the papers do.
    assert Stoi().score(pair) == stoi(reference, decoded, 24_000)
    extended = stoi(reference, decoded, 24_000, extended=True)
    assert Estoi().score(pair) == pytest.approx(extended, abs=1e-9)  # it adds tiny noise


def test_long_recordings_are_scored_in_a_process_of_their_own_alike():
    reference = np.tile(speech(), 6)[: 21 * 16_000]
    pair = trial(reference, noisy(reference))
    assert pair.duration > perceptual._SAFE_SECONDS
    assert PesqWb().score(pair) == pesq(16_000, pair.reference, pair.decoded, "wb")


def test_pesq_may_end_its_process_but_not_ours(monkeypatch):
    """As it does when it writes beyond its arrays, which is not sure to happen every time."""
    long = trial(np.tile(speech(), 6), np.tile(speech(), 6))
    monkeypatch.setattr(perceptual, "_CHILD", "import os; os.abort()")
    with pytest.raises(UnscorableError, match="more than 50 utterances"):
        PesqNb().score(long)
    # What is no fault of the recording is none of its problems.
    monkeypatch.setattr(perceptual, "_CHILD", "raise SystemExit('no memory')")
    with pytest.raises(RuntimeError, match="no memory"):
        PesqNb().score(long)


@pytest.mark.parametrize("metric", ALL)
def test_silence_has_no_score(metric):
    sound, silence = speech(), np.zeros_like(speech())
    with pytest.raises(UnscorableError, match="the original is silent"):
        metric().score(trial(silence, sound))
    with pytest.raises(UnscorableError, match="the decoded recording is silent"):
        metric().score(trial(sound, silence))
    with pytest.raises(UnscorableError, match="the original is empty"):
        metric().score(trial(sound[:0], sound[:0]))


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.2])
def test_what_is_too_short_has_no_score(metric, seconds):
    sound = speech()[8_000 : 8_000 + round(16_000 * seconds)]
    with pytest.raises(UnscorableError, match="too short for"):
        metric().score(trial(sound, noisy(sound)))


@pytest.mark.parametrize("seconds", [0.31, 0.35, 0.38])
def test_stois_number_for_a_failure_is_none_of_its_scores(seconds):
    sound = noise(round(16_000 * seconds))
    with pytest.warns(RuntimeWarning, match="Not enough STFT frames"):
        assert stoi(sound, sound, 16_000) == 1e-5
    for metric in (Stoi, Estoi):
        with pytest.raises(UnscorableError, match="too short for STOI"):
            metric().score(trial(sound, sound))


def test_no_utterance_has_no_pesq():
    burst = np.zeros(48_000)
    burst[20_000:20_160] = noise(160)  # 10 ms
    with pytest.raises(UnscorableError, match="PESQ finds no utterance"):
        PesqWb().score(trial(burst, burst))


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pystoi", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'simvq-audio\[eval\]'"):
        Stoi()

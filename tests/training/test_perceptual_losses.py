"""The losses that follow PESQ and STOI, against the packages that compute both."""

from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
from pesq import pesq
from pystoi import stoi

from simvq_audio.audio import read_audio, resample
from simvq_audio.errors import ConfigError
from simvq_audio.training.losses import LossConfig, MelConfig, SpectralLosses

RATE = 24_000


def speech() -> np.ndarray:
    """(samples,) float64, some seconds."""
    waveform, rate = read_audio(Path(__file__).parents[2] / "examples" / "hello.wav")
    return resample(waveform[:1], rate, RATE)[0].astype(np.float64)


def degraded(kind: str, amount: int) -> np.ndarray:
    """``amount``: level of the noise in dB, cut-off of the low-pass in Hz, or number of bits."""
    clean = speech()
    if kind == "noise":
        noise = np.random.default_rng(1).standard_normal(len(clean))
        return clean + clean.std() * 10 ** (-amount / 20) * noise
    if kind == "low-pass":
        return soxr.resample(soxr.resample(clean, RATE, 2 * amount), 2 * amount, RATE)[: len(clean)]
    return np.round(clean * 2 ** (amount - 1)) / 2 ** (amount - 1)


TERMS = LossConfig(mel=0.0, pesq=1.0, stoi=1.0), MelConfig()


def losses(ours: np.ndarray, original: np.ndarray, rate: int = RATE) -> dict[str, float]:
    pair = (torch.from_numpy(x.astype(np.float32))[None] for x in (ours, original))
    return {name: value.item() for name, value in SpectralLosses(*TERMS, rate)(*pair).items()}


def wide_band(x: np.ndarray) -> np.ndarray:
    return soxr.resample(x, RATE, 16_000).astype(np.float32)


CASES = [("noise", 40), ("noise", 25), ("noise", 10), ("low-pass", 2000), ("rounded", 7)]


@pytest.mark.parametrize(("kind", "amount"), CASES)
def test_loudness_loss_is_what_pesq_takes_off(kind, amount):
    clean, ours = speech(), degraded(kind, amount)
    raw = 4.5 - losses(ours, clean)["pesq"]
    score = 0.999 + 4 / (1 + np.exp(-1.3669 * raw + 3.8224))
    expected = pesq(16_000, wide_band(clean), wide_band(ours), "wb")
    assert score == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(("kind", "amount"), CASES)
def test_intelligibility_loss_is_what_stoi_takes_off(kind, amount):
    clean, ours = speech(), degraded(kind, amount)
    # Bands that were filtered away hold rounding errors, which STOI correlates too.
    tolerance = 0.03 if kind == "low-pass" else 0.002
    expected = stoi(clean, ours, RATE)
    assert 1 - losses(ours, clean)["stoi"] == pytest.approx(expected, abs=tolerance)


def test_intelligibility_loss_cuts_pauses_out():
    clean, ours = speech(), degraded("noise", 10)
    pause = 1e-4 * np.random.default_rng(2).standard_normal((2, RATE // 2))
    cut = len(clean) // 2
    paused = [np.concatenate([x[:cut], p, x[cut:]]) for x, p in zip((clean, ours), pause)]
    expected = stoi(*paused, RATE)
    assert 1 - losses(paused[1], paused[0])["stoi"] == pytest.approx(expected, abs=0.005)


def test_intelligibility_of_an_item_does_not_depend_on_silent_ones():
    clean, ours = (torch.from_numpy(x).float() for x in (speech(), degraded("noise", 10)))
    loss, silence = SpectralLosses(*TERMS, RATE), torch.zeros_like(clean)
    alone = loss(ours[None], clean[None])["stoi"]
    beside = loss(torch.stack([ours, silence]), torch.stack([clean, silence]))["stoi"]
    assert beside.item() == pytest.approx(alone.item(), rel=1e-5)
    assert loss(silence[None], silence[None])["stoi"].item() == 0


def test_added_sound_costs_more_than_missing_sound():
    clean = speech()
    time = np.arange(len(clean)) / RATE
    tone = clean.std() * np.sin(2 * np.pi * 3000 * time) * (np.sin(4 * np.pi * time) > 0)
    added = losses(clean + tone, clean)["pesq"]
    missing = losses(clean, clean + tone)["pesq"]
    assert added > 1.1 * missing


def test_level_does_not_matter():
    clean, ours = speech(), degraded("noise", 20)
    plain, quieter = losses(ours, clean), losses(0.8 * ours, clean)
    for name, value in plain.items():
        assert quieter[name] == pytest.approx(value, rel=1e-3), name


def test_gradients_follow_the_value_along_level_and_tilt():
    clean = speech()
    ours = torch.from_numpy(degraded("noise", 15)).float()[None]
    original = torch.from_numpy(clean).float()[None]
    loss = SpectralLosses(*TERMS, RATE)
    for direction in (ours, ours - ours.roll(1)):
        x = ours.clone().requires_grad_()
        for name, value in loss(x, original).items():
            (gradient,) = torch.autograd.grad(value, x, retain_graph=True)
            slope = (gradient * direction).sum().item()
            low, high = (loss(ours + step * direction, original)[name] for step in (-0.02, 0.02))
            assert slope == pytest.approx((high - low).item() / 0.04, abs=0.05), name


def test_hiss_in_silence_is_heard():
    silence = np.zeros(RATE)
    hiss = 1e-3 * np.random.default_rng(0).standard_normal(RATE)
    quieter = losses(0.1 * hiss, silence)["pesq"]
    assert losses(hiss, silence)["pesq"] > 1.2 * quieter > 0.1
    assert losses(silence, silence)["pesq"] < 1e-3


def test_both_are_the_same_at_every_rate():
    clean, ours = speech(), degraded("noise", 20)
    at_24 = losses(ours, clean)
    at_16 = losses(wide_band(ours), wide_band(clean), 16_000)
    for name, value in at_24.items():
        assert at_16[name] == pytest.approx(value, rel=0.05), name


def test_rates_below_wide_band_are_refused():
    with pytest.raises(ConfigError, match="16000 Hz or more, not 8000"):
        SpectralLosses(LossConfig(pesq=1.0), MelConfig(), 8000)

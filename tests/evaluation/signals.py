"""Signals to score."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simvq_audio.audio import read_audio, resample
from simvq_audio.evaluation.trial import Trial


def speech(sample_rate: int = 16_000) -> np.ndarray:
    """(samples,) float32, some seconds."""
    waveform, rate = read_audio(Path(__file__).parents[2] / "examples" / "hello.wav")
    return resample(waveform[:1], rate, sample_rate)[0]


def noise(samples: int, seed: int = 0) -> np.ndarray:
    """(samples,) float32, of level 0.1."""
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(samples)).astype(np.float32)


def noisy(waveform: np.ndarray, decibels: float = 20) -> np.ndarray:
    """With noise at a level in dB below it."""
    added = noise(len(waveform), 7)
    level = np.sqrt(np.square(waveform).mean() / np.square(added).mean())
    return waveform + added * np.float32(level * 10 ** (-decibels / 20))


def tone(hertz: float, seconds: float = 1.0, sample_rate: int = 16_000) -> np.ndarray:
    """(samples,) float32: ten harmonics of one pitch."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    partials = [np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 11)]
    return (0.1 * np.sum(partials, axis=0)).astype(np.float32)


def trial(reference: np.ndarray, decoded: np.ndarray, sample_rate: int = 16_000, **more) -> Trial:
    return Trial(np.float32(reference), np.float32(decoded), sample_rate, **more)

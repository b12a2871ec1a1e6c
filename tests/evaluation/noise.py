"""Recordings of noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile


def write_noise(
    path: Path, seconds: float = 0.5, sample_rate: int = 16_000, channels: int = 1
) -> np.ndarray:
    """Write and return noise, (samples, channels), of another seed and loudness for each name."""
    rng = np.random.default_rng(sum(path.name.encode()))
    shape = round(seconds * sample_rate), channels
    samples = 0.1 * rng.uniform(0.3, 1.0) * rng.standard_normal(shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, sample_rate, subtype="PCM_16")
    return samples

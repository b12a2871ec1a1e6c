"""The study's modules on the path, and a folder of speech and a setting small enough for tests."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

STUDY = Path(__file__).parents[2] / "recipes" / "quantizers"
RATE = 16_000

# What the study's modules import each other by.
if str(STUDY) not in sys.path:
    sys.path.insert(0, str(STUDY))

pytest.importorskip("vector_quantize_pytorch")

SHAPE = "n_fft = 320\nhop_length = 160\ndim = 16\nhidden_dim = 32\nblocks = 1\n"
TINY = f"""
base = "{STUDY}/study.toml"
steps = 6
log_every = 2
[model]
sample_rate = {RATE}
[model.encoder]
{SHAPE}
[model.quantizer]
latent_dim = 8
[model.decoder]
{SHAPE}
[data]
batch_size = 2
crop_seconds = 0.2
[optimizer]
warmup_steps = 1
decay_steps = 2
[quantizer_start]
unquantized_steps = 2
statistics_batches = 3
[[discriminators.families]]
kind = "stft"
channels = 1
n_ffts = [128]
[mel]
scales = [[256, 128, 16]]
[validation]
recordings = 1
max_seconds = 2.0
"""


def noisy_speech(seconds: float, seed: int) -> np.ndarray:
    """Bursts of harmonics in noise: enough of speech for PESQ and STOI."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * (110 + 20 * seed) * k * time) / k for k in range(1, 20))
    bursts = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * time)
    noise = generator.standard_normal(len(time))
    return (0.1 * tone * bursts + 0.01 * noise).astype(np.float32)


@pytest.fixture(scope="session")
def speech(tmp_path_factory) -> Path:
    """A folder with "packed" training speech, "dev" recordings and "tiny.toml"."""
    from simvq_audio.training.packed import PackWriter

    folder = tmp_path_factory.mktemp("speech")
    (folder / "packed").mkdir()
    (folder / "dev").mkdir()
    with PackWriter(folder / "packed", RATE) as writer:
        for seed in range(3):
            writer.add(f"r{seed}", f"s{seed}", noisy_speech(1.0, seed), RATE / 2)
    soundfile.write(folder / "dev" / "a.wav", noisy_speech(2.0, 7), RATE)
    (folder / "tiny.toml").write_text(TINY)
    return folder

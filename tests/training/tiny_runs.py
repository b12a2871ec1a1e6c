"""A run small enough for tests, and its parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.fabric import make_fabric
from simvq_audio.training.packed import PackWriter
from simvq_audio.training.trainer import Trainer

RATE = 8000
CROP_SECONDS = 0.2

# Written out as TOML would have it, so that the recipe can be given the same run as a file.
TINY = f"""
seed = 3
steps = 40
precision = "fp32"
log_every = 5
checkpoint_every = 5
keep_checkpoints = 2
max_skipped = 4
[model]
name = "tiny"
sample_rate = {RATE}
[model.encoder]
kind = "spectral"
n_fft = 320
hop_length = 80
dim = 16
hidden_dim = 32
blocks = 1
[model.quantizer]
codebook_size = 32
latent_dim = 8
[model.decoder]
n_fft = 320
hop_length = 80
dim = 16
hidden_dim = 32
blocks = 1
[data]
batch_size = 4
crop_seconds = {CROP_SECONDS}
[optimizer]
learning_rate = 1e-3
warmup_steps = 4
decay_steps = 10
[quantizer_start]
unquantized_steps = 6
statistics_batches = 2
[adversary]
start_step = 8
warmup_steps = 4
[[discriminators.families]]
kind = "stft"
n_ffts = [128]
channels = 4
feature_matching = "l1"
[[discriminators.families]]
kind = "period"
periods = [2]
channels = [4, 8]
[mel]
scales = [[128, 32, 12], [256, 64, 24]]
[validation]
every = 10
recordings = 2
max_seconds = 1.5
"""


def tiny(**changes: object) -> TrainingConfig:
    """The tiny configuration with other settings: ``tiny(steps=3, optimizer__ema=0.5)``."""
    from simvq_audio.training.recipes import tomllib

    values = tomllib.loads(TINY)
    for key, value in changes.items():
        *tables, name = key.split("__")
        table = values
        for part in tables:
            table = table.setdefault(part, {})
        table[name] = value
    return TrainingConfig.from_dict(values)


class Noise:
    """A ``CropSource`` of coloured noise, like any other a pure function of its arguments."""

    def __init__(self, bad_steps: frozenset[int] = frozenset()) -> None:
        self.bad_steps = bad_steps
        self.samples = round(CROP_SECONDS * RATE)

    def batch(self, step, size, rank=0, world_size=1):
        rng = np.random.Generator(np.random.PCG64([7, step]))
        noise = rng.standard_normal((size * world_size, self.samples)).astype(np.float32)
        waveforms = torch.from_numpy(0.1 * noise.cumsum(1, dtype=np.float32)) / self.samples**0.5
        if step in self.bad_steps:
            waveforms[0, 5] = float("nan")
        bandwidths = torch.full((size * world_size,), RATE / 2)
        part = slice(rank * size, (rank + 1) * size)
        return waveforms[part], bandwidths[part]


def make_trainer(out: Path, config: TrainingConfig | None = None, source=None, **more) -> Trainer:
    config = config or tiny()
    return Trainer(config, make_fabric("cpu", config.precision), source or Noise(), out, **more)


def packed(folder: Path) -> Path:
    """Some packed recordings of two speakers."""
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True)
    with PackWriter(folder, RATE) as writer:
        for index in range(4):
            waveform = 0.1 * rng.standard_normal(RATE).cumsum() / 40
            writer.add(f"r{index}", f"s{index % 2}", waveform, RATE / 2)
    return folder


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Every number that a run ends with: networks, averages and moments."""
    found: dict[str, torch.Tensor] = {}

    def collect(name: str, value: object) -> None:
        if isinstance(value, torch.Tensor):
            found[name] = value.detach().clone()
        elif isinstance(value, dict):
            for key, item in value.items():
                collect(f"{name}.{key}", item)

    collect("weights", trainer.networks.weights())
    collect("moments", trainer.networks.moments())
    return found


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different

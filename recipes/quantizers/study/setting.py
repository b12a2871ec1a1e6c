"""What every run of a study shares, so that only the quantiser differs between them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simvq_audio.atomic import atomic_path
from simvq_audio.config_checks import require, require_at_least, require_number
from simvq_audio.errors import ConfigError
from simvq_audio.model.config import DecoderConfig, SpectralEncoderConfig, from_plain
from simvq_audio.training.config import OptimizerConfig
from simvq_audio.training.losses import SpectralLossConfig
from simvq_audio.training.losses.config import MelLossConfig

FILE = "setting.json"


@dataclass(frozen=True)
class Setting:
    """The autoencoder, its training and what is scored; the defaults fit two CPU cores.

    Attributes:
        sample_rate: in Hz.
        bandwidth_hz: all audio is cut off there, in training and in scoring. Recordings of 16 and
            24 kHz differ most in what lies above 8 kHz: a codebook that has to tell them apart is
            half empty on speech of one kind.
        n_fft, hop_length: of the encoder's STFT and the decoder's inverse STFT, in samples.
        dim, blocks: width and number of ConvNeXt blocks, of the encoder and of the decoder.
        latent_dim: width of the latent.
        steps: of a run, unquantised ones included.
        unquantized_steps: at the beginning; done once a seed and shared by every row that does
            not start cold.
        start_latents: how many latents the quantisers are started from, at the least.
        batch_size, crop_seconds: audio of a step.
        learning_rate, ramp_steps, decay_steps: a short ramp, then constant, then a straight line
            down to zero.
        fast_factor: how much faster tables and W learn, in rows that say so.
        mel_weight, quantizer_weight: of the two terms of the loss.
        mel_scales: (window, hop, bands) of the mel loss, in samples.
        scored_recordings: how many recordings are decoded and scored; codes are counted on all.
        max_seconds: recordings are cut to this length.
        log_every: in steps.
        window: steps over which use and perplexity in training are counted.
    """

    sample_rate: int = 24_000
    bandwidth_hz: float = 8000.0
    n_fft: int = 1280
    hop_length: int = 320
    dim: int = 160
    blocks: int = 3
    latent_dim: int = 32
    steps: int = 550
    unquantized_steps: int = 200
    start_latents: int = 262_144
    batch_size: int = 6
    crop_seconds: float = 1.0
    learning_rate: float = 1e-3
    ramp_steps: int = 50
    decay_steps: int = 150
    fast_factor: float = 40.0
    mel_weight: float = 20.0
    quantizer_weight: float = 4.0
    mel_scales: tuple[tuple[int, int, int], ...] = (
        (512, 256, 48),
        (1024, 512, 80),
        (2048, 1024, 128),
    )
    scored_recordings: int = 16
    max_seconds: float = 6.0
    log_every: int = 25
    window: int = 100

    def __post_init__(self) -> None:
        for name in ("latent_dim", "steps", "start_latents", "batch_size", "log_every", "window"):
            require_at_least(self, name, 1)
        require_at_least(self, "unquantized_steps", 0)
        require_at_least(self, "scored_recordings", 1)
        for name in ("bandwidth_hz", "crop_seconds", "fast_factor", "max_seconds"):
            require_number(self, name, above_zero=True)
        require_number(self, "quantizer_weight")
        require(self.unquantized_steps < self.steps, "unquantized_steps must lie below steps")
        object.__setattr__(self, "mel_scales", tuple(tuple(row) for row in self.mel_scales))
        # The parts check the rest of the values.
        _ = self.encoder, self.decoder, self.losses, self.optimizer

    @property
    def encoder(self) -> SpectralEncoderConfig:
        return SpectralEncoderConfig(**self._shape)

    @property
    def decoder(self) -> DecoderConfig:
        return DecoderConfig(**self._shape)

    @property
    def _shape(self) -> dict[str, int]:
        """What encoder and decoder have in common."""
        return {
            "n_fft": self.n_fft,
            "hop_length": self.hop_length,
            "dim": self.dim,
            "hidden_dim": 3 * self.dim,
            "blocks": self.blocks,
        }

    @property
    def losses(self) -> SpectralLossConfig:
        return SpectralLossConfig(mel=MelLossConfig(self.mel_weight, scales=self.mel_scales))

    @property
    def optimizer(self) -> OptimizerConfig:
        return OptimizerConfig(
            learning_rate=self.learning_rate,
            weight_decay=0.0,
            warmup_steps=self.ramp_steps,
            decay_steps=self.decay_steps,
        )

    @property
    def crop_samples(self) -> int:
        return round(self.crop_seconds * self.sample_rate)

    @property
    def frames_per_step(self) -> int:
        return self.batch_size * -(-self.crop_samples // self.hop_length)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, lists for tuples."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def read_setting(path: Path) -> Setting:
    """Read a setting, as JSON.

    Raises:
        ConfigError: it cannot be read, or holds an unknown key or a value out of range.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
    return from_plain(Setting, values, str(path))


def setting_of(runs: Path, chosen: Path | None = None) -> Setting:
    """The setting of a folder of runs; written there by whoever comes first.

    Args:
        chosen: a file with another setting than the default.

    Raises:
        ConfigError: ``chosen`` is not what the folder's runs were made with.
    """
    file = runs / FILE
    if not file.exists():
        setting = read_setting(chosen) if chosen else Setting()
        runs.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(setting.to_dict(), indent=1) + "\n", encoding="utf-8")
    setting = read_setting(file)
    if chosen and read_setting(chosen) != setting:
        raise ConfigError(
            f"the runs in {runs} were made with another setting than {chosen}; choose another --out"
        )
    return setting

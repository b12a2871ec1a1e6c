"""How a model is trained: frozen dataclasses, read from TOML."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simvq_audio.errors import ConfigError
from simvq_audio.model.config import ModelConfig, from_plain

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class DataConfig:
    """Batches; see ``PackedSpeech`` for the last two.

    Attributes:
        batch_size: crops a step.
        crop_seconds: length of a crop.
    """

    batch_size: int = 8
    crop_seconds: float = 1.5
    speaker_power: float = 0.5
    gain_db: float = 12.0


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, and the learning rate over time: linear warm-up, constant, linear decay to zero.

    Attributes:
        decay_steps: length of the decay, which ends at the run's last step.
        clip_norm: gradients are scaled down to this norm.
        ema: decay a step of the averaged weights that are saved as the model.
    """

    learning_rate: float = 5e-4
    betas: tuple[float, ...] = (0.8, 0.99)
    weight_decay: float = 0.01
    warmup_steps: int = 500
    decay_steps: int = 2000
    clip_norm: float = 1.0
    ema: float = 0.999


@dataclass(frozen=True)
class QuantizerStartConfig:
    """The quantiser's start-up.

    Attributes:
        unquantized_steps: steps in which the latent passes by the quantiser; then W is set from
            the latents' covariance.
        statistics_batches: batches whose latents the covariance is taken over.
        learning_rate_factor: W learns so much faster than the rest. Its entries are large, since
            the basis is small (N(0, 1/latent_dim)), and Adam's steps do not scale with them: at
            factor 1 the latents outgrow the codebook and perplexity falls from the start on.
    """

    unquantized_steps: int = 900
    statistics_batches: int = 16
    learning_rate_factor: float = 40.0


@dataclass(frozen=True)
class AdversaryConfig:
    """Multi-scale STFT discriminators.

    Attributes:
        start_step: first step with discriminators.
        warmup_steps: steps in which they learn while the generator does not hear them.
        n_ffts: one discriminator a window length, in samples.
        channels: of the inner convolutions.
    """

    start_step: int = 10_000
    warmup_steps: int = 200
    learning_rate: float = 5e-4
    n_ffts: tuple[int, ...] = (2048, 1024, 512)
    channels: int = 16


@dataclass(frozen=True)
class LossConfig:
    """Weights of the generator's loss terms."""

    mel: float = 15.0
    quantizer: float = 1.0
    adversarial: float = 1.0
    feature_matching: float = 5.0


@dataclass(frozen=True)
class TrainingConfig:
    """A whole run.

    Attributes:
        seed: of weights, batches and everything else random.
        steps: where the run ends.
        bf16: run matrix products in bfloat16 (autocast).
        checkpoint_every, log_every, validate_every: in steps.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    quantizer_start: QuantizerStartConfig = field(default_factory=QuantizerStartConfig)
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    seed: int = 0
    steps: int = 20_000
    bf16: bool = True
    log_every: int = 50
    checkpoint_every: int = 500
    validate_every: int = 2000

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingConfig:
        """Build from nested plain values.

        Raises:
            ConfigError: a key is unknown, of the wrong type or out of range.
        """
        values = dict(values)
        for part in dataclasses.fields(cls):
            if part.name not in values or part.default_factory is dataclasses.MISSING:
                continue
            make = part.default_factory
            if make is ModelConfig:
                values[part.name] = ModelConfig.from_dict(values[part.name])
            else:
                values[part.name] = from_plain(make, values[part.name], part.name)
        return from_plain(cls, values, "the configuration")

    @classmethod
    def load(cls, path: Path) -> TrainingConfig:
        """Read a TOML file.

        Raises:
            ConfigError: the file is missing, no TOML, or does not fit.
        """
        try:
            return cls.from_dict(tomllib.loads(path.read_text()))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values that ``from_dict`` takes back."""
        return {**dataclasses.asdict(self), "model": self.model.to_dict()}

"""How a model is trained: frozen dataclasses, checked at construction, read from TOML."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simvq_audio.config_checks import (
    require,
    require_at_least,
    require_choice,
    require_number,
)
from simvq_audio.errors import ConfigError
from simvq_audio.model.config import ModelConfig, from_plain
from simvq_audio.training.discriminators.config import DiscriminatorConfig
from simvq_audio.training.discriminators.config import compact as compact_discriminators
from simvq_audio.training.losses.config import SpectralLossConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRECISIONS = ("fp32", "bf16", "fp16")
SCHEDULES = ("constant", "cosine", "linear")
VALIDATION_SCORES = ("mel", "pesq_wb", "stoi")


@dataclass(frozen=True)
class DataConfig:
    """Batches.

    Attributes:
        batch_size: crops a step, over all processes.
        crop_seconds: length of a crop.
        speaker_power: 0 draws every second of audio equally often, 1 every speaker; between, rare
            speakers count for more than their share.
        gain_db: each crop is made quieter by up to this many decibels.
        workers: threads that make batches ahead of time; 0 makes them when they are needed.
        hold_on_device: keep the whole packed set in the device's memory and cut crops there.
    """

    batch_size: int = 8
    crop_seconds: float = 1.5
    speaker_power: float = 0.5
    gain_db: float = 12.0
    workers: int = 1
    hold_on_device: bool = False

    def __post_init__(self) -> None:
        require_at_least(self, "batch_size", 1)
        require_number(self, "crop_seconds", above_zero=True)
        require_number(self, "speaker_power")
        require_number(self, "gain_db")
        require_at_least(self, "workers", 0)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW for both networks (Adam where ``weight_decay`` is 0), and what happens around it.

    Attributes:
        learning_rate: the generator's; the discriminators' stands in ``AdversaryConfig``.
        weight_decay: of matrices and kernels; vectors and the quantiser's W are left alone.
        schedule, warmup_steps, decay_steps, final_factor: see ``learning_rate_factor``.
        clip_norm: gradients are shortened to this norm; 0 does not.
        accumulate: parts that a batch is cut into to save memory; the gradient is their mean.
        ema: decay a step of the averaged weights that are saved as the model.
    """

    learning_rate: float = 5e-4
    betas: tuple[float, ...] = (0.8, 0.99)
    weight_decay: float = 0.01
    schedule: str = "constant"
    warmup_steps: int = 500
    decay_steps: int = 2000
    final_factor: float = 0.0
    clip_norm: float = 5.0
    accumulate: int = 1
    ema: float = 0.999

    def __post_init__(self) -> None:
        require_number(self, "learning_rate", above_zero=True)
        require(
            len(self.betas) == 2
            and all(isinstance(b, (int, float)) and 0 <= b < 1 for b in self.betas),
            f"OptimizerConfig.betas must be two numbers from 0 to below 1, not {self.betas!r}",
        )
        require_choice(self, "schedule", SCHEDULES)
        for name in ("weight_decay", "clip_norm"):
            require_number(self, name)
        for name in ("warmup_steps", "decay_steps"):
            require_at_least(self, name, 0)
        require_at_least(self, "accumulate", 1)
        _require_fraction(self, "final_factor")
        _require_fraction(self, "ema")


@dataclass(frozen=True)
class QuantizerStartConfig:
    """The quantiser's start-up; not made in a run that starts from a model.

    Attributes:
        unquantized_steps: steps in which the latent passes by the quantiser; then W is set from
            the latents' covariance. 0: W stays as it was drawn.
        basis_from_latents: draw C anew as well; see ``draw_basis_from_latents``.
        kmeans_rounds: then move C to the means of its cells so many times; see
            ``move_basis_to_means``.
        anew: start the quantiser of a model that training begins from (``--init``) once more, from
            the latents that the model has on the new data. The decoder has to learn all codes
            anew, so it is for data of another kind, or a codebook that has fallen out of use.
        statistics_batches: batches whose latents all this is taken from: 16 do for the covariance,
            k-means wants some ten latents for each entry of C.
        learning_rate_factor: W learns so much faster than the rest. Its entries are large, since
            the basis is small (N(0, 1/latent_dim)), and Adam's steps do not scale with them: at
            factor 1 the latents outgrow the codebook and perplexity falls from the start on.
    """

    unquantized_steps: int = 900
    basis_from_latents: bool = False
    kmeans_rounds: int = 0
    anew: bool = False
    statistics_batches: int = 16
    learning_rate_factor: float = 40.0

    def __post_init__(self) -> None:
        require_at_least(self, "unquantized_steps", 0)
        require_at_least(self, "kmeans_rounds", 0)
        require(
            self.basis_from_latents or not self.kmeans_rounds,
            "QuantizerStartConfig.kmeans_rounds needs basis_from_latents = true",
        )
        require_at_least(self, "statistics_batches", 1)
        require_number(self, "learning_rate_factor", above_zero=True)


@dataclass(frozen=True)
class AdversaryConfig:
    """When and how the discriminators learn.

    Attributes:
        start_step: first step with discriminators.
        warmup_steps: steps in which they learn while the generator does not hear them.
        hold_generator: the generator does not move during their warm-up at all. For fine-tuning:
            fresh discriminators know nothing, and what the model can do should not be lost to them.
        clip_norm: as the generator's.
        window_seconds: they judge a window of each crop, so long and anew at random each step; 0
            judges whole crops. On a CPU they take two thirds of a step's time, and the other
            losses like long crops more than they do.
    """

    start_step: int = 10_000
    warmup_steps: int = 200
    hold_generator: bool = False
    learning_rate: float = 5e-4
    clip_norm: float = 50.0
    window_seconds: float = 0.0

    def __post_init__(self) -> None:
        require_at_least(self, "start_step", 0)
        require_at_least(self, "warmup_steps", 0)
        require_number(self, "learning_rate", above_zero=True)
        require_number(self, "clip_norm")
        require_number(self, "window_seconds")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the generator's losses that are not spectral (those have theirs in ``spectral``).

    Attributes:
        quantizer: of the quantiser's loss. Its entries and latents follow each other at any
            weight; much above 3 (beside a mel weight of 15), latents shrink and perplexity falls.
        commitment: of the encoder's side within the quantiser's loss (beta).
        adversarial, feature_matching: of what ``generator_losses`` returns.
    """

    quantizer: float = 3.0
    commitment: float = 0.25
    adversarial: float = 1.0
    feature_matching: float = 5.0

    def __post_init__(self) -> None:
        for name in ("quantizer", "commitment", "adversarial", "feature_matching"):
            require_number(self, name)


@dataclass(frozen=True)
class ValidationConfig:
    """What is scored while training.

    Attributes:
        every: in steps; the scores are those of the averaged weights.
        recordings: how many of the set, spread evenly over it.
        max_seconds: recordings are cut to this length.
        best_by: the score that decides which checkpoint and model are kept as the best: "mel"
            (lowest), "pesq_wb" or "stoi" (highest).
    """

    every: int = 2000
    recordings: int = 16
    max_seconds: float = 10.0
    best_by: str = "mel"

    def __post_init__(self) -> None:
        require_at_least(self, "every", 1)
        require_at_least(self, "recordings", 1)
        require_number(self, "max_seconds", above_zero=True)
        require_choice(self, "best_by", VALIDATION_SCORES)


@dataclass(frozen=True)
class TrainingConfig:
    """A whole run.

    Attributes:
        seed: of weights, batches and everything else random.
        steps: where the run ends.
        precision: "fp32", or "bf16" or "fp16" for matrix products and convolutions (autocast;
            weights stay in float32). fp16 needs a GPU; prefer bf16.
        compile: let ``torch.compile`` fuse the generator's layers. The discriminators stay as they
            are: two gradients are taken through one pass of theirs, and a compiled graph would
            compute both in full each time.
        log_every, checkpoint_every: in steps.
        keep_checkpoints: how many of the newest stay.
        max_skipped: the run ends with an error after so many steps in a row without finite
            gradients, as seen when a line is logged.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    quantizer_start: QuantizerStartConfig = field(default_factory=QuantizerStartConfig)
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)
    discriminators: DiscriminatorConfig = field(default_factory=compact_discriminators)
    spectral: SpectralLossConfig = field(default_factory=SpectralLossConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    seed: int = 0
    steps: int = 20_000
    precision: str = "bf16"
    compile: bool = False
    log_every: int = 50
    checkpoint_every: int = 500
    keep_checkpoints: int = 3
    max_skipped: int = 50

    def __post_init__(self) -> None:
        require_choice(self, "precision", PRECISIONS)
        require_at_least(self, "seed", 0)
        for name in ("steps", "log_every", "checkpoint_every", "keep_checkpoints", "max_skipped"):
            require_at_least(self, name, 1)
        require(
            self.data.batch_size % self.optimizer.accumulate == 0,
            f"data.batch_size ({self.data.batch_size}) must be a multiple of "
            f"optimizer.accumulate ({self.optimizer.accumulate})",
        )
        require(
            self.adversary.window_seconds <= self.data.crop_seconds,
            f"adversary.window_seconds ({self.adversary.window_seconds:g}) must not be longer than "
            f"data.crop_seconds ({self.data.crop_seconds:g})",
        )

    @property
    def crop_samples(self) -> int:
        """Length of a crop in samples of the model's rate."""
        return round(self.data.crop_seconds * self.model.sample_rate)

    @property
    def judged_samples(self) -> int:
        """How much of a crop the discriminators judge, in samples of the model's rate."""
        return round(self.adversary.window_seconds * self.model.sample_rate) or self.crop_samples

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingConfig:
        """Build from nested plain values.

        Raises:
            ConfigError: a key is unknown, of the wrong type or out of range.
        """
        values = dict(values)
        for name, make in _PARTS.items():
            if name in values:
                values[name] = make(values[name])
        return from_plain(cls, values, "the configuration")

    @classmethod
    def load(cls, path: Path) -> TrainingConfig:
        """Read a TOML file.

        Raises:
            ConfigError: the file is missing, no TOML, or does not fit.
        """
        try:
            return cls.from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values that ``from_dict`` takes back."""
        return {
            **dataclasses.asdict(self),
            "model": self.model.to_dict(),
            "discriminators": self.discriminators.to_dict(),
            "spectral": self.spectral.to_dict(),
        }


def _table(cls: type, name: str) -> Callable[[Any], Any]:
    return lambda values: from_plain(cls, values, name)


_PARTS: dict[str, Callable[[Any], Any]] = {
    "model": ModelConfig.from_dict,
    "data": _table(DataConfig, "data"),
    "optimizer": _table(OptimizerConfig, "optimizer"),
    "quantizer_start": _table(QuantizerStartConfig, "quantizer_start"),
    "adversary": _table(AdversaryConfig, "adversary"),
    "discriminators": DiscriminatorConfig.from_dict,
    "spectral": SpectralLossConfig.from_dict,
    "loss": _table(LossConfig, "loss"),
    "validation": _table(ValidationConfig, "validation"),
}


def _require_fraction(config: Any, name: str) -> None:
    require_number(config, name)
    require(
        getattr(config, name) <= 1,
        f"{type(config).__name__}.{name} must lie from 0 to 1, not {getattr(config, name)!r}",
    )

"""Configurations of training, checked when made, read from TOML."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from simvq_audio.model.config import ModelConfig
from simvq_audio.schema import (
    Count,
    Flag,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    configuration,
    parse,
    plain,
)
from simvq_audio.training.discriminators.config import DiscriminatorConfig, compact, named
from simvq_audio.training.losses.config import LossConfig, MelConfig
from simvq_audio.training.recipes import read_recipe

_Momentum = Annotated[float, Field(strict=True, ge=0, lt=1)]


@configuration
class DataConfig:
    """Batches.

    Attributes:
        batch_size: crops per step, over all processes.
        crop_seconds: length of a crop.
        speaker_power: 0 draws every second of audio equally often, 1 every speaker; values between
            draw rare speakers more often than their share.
        gain_db: each crop is made quieter by up to this many decibels.
        workers: threads that prepare batches in advance; 0: none.
        hold_on_device: keep the packed set in the device's memory and cut crops there.
    """

    batch_size: Count = 8
    crop_seconds: Positive = 1.5
    speaker_power: NonNegative = 0.5
    gain_db: NonNegative = 12.0
    workers: Natural = 1
    hold_on_device: Flag = False


@configuration
class OptimizerConfig:
    """AdamW for both networks (Adam where ``weight_decay`` is 0), with its schedule.

    Attributes:
        learning_rate: the generator's; the discriminators' is in ``AdversaryConfig``.
        quantizer_factor: factor on the learning rate of the quantiser's fast parameters (SimVQ's W,
            a table of entries).
        weight_decay: of matrices and kernels; not of vectors and the quantiser's fast parameters.
        schedule, warmup_steps, decay_steps, final_factor: see ``step.learning_rate_factor``.
        clip_norm: maximum norm of gradients; 0: no limit.
        ema: decay per step of the averaged weights that are saved as the model.
    """

    learning_rate: Positive = 5e-4
    quantizer_factor: Positive = 40.0
    betas: tuple[_Momentum, _Momentum] = (0.8, 0.99)
    weight_decay: NonNegative = 0.01
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: Natural = 500
    decay_steps: Natural = 2000
    final_factor: Fraction = 0.0
    clip_norm: NonNegative = 5.0
    ema: Fraction = 0.999


@configuration
class QuantizerStartConfig:
    """The quantiser's start; not made in a run that starts from a model.

    Attributes:
        unquantized_steps: steps in which the latent bypasses the quantiser, which is then started
            from latents. 0: its random entries are kept.
        entries_from_latents, kmeans_rounds: see ``Quantizer.start``.
        statistics_batches: batches whose latents are used: 16 are enough for a covariance, k-means
            needs about ten latents per entry.
    """

    unquantized_steps: Natural = 900
    entries_from_latents: Flag = False
    kmeans_rounds: Natural = 0
    statistics_batches: Count = 16


@configuration
class AdversaryConfig:
    """When and how the discriminators learn.

    Attributes:
        start_step: first step with discriminators.
        warmup_steps: steps in which they learn and the generator ignores them.
        hold_generator: the generator is not trained during their warm-up; for fine-tuning, where
            new discriminators would damage the model.
        clip_norm: as the generator's.
        window_seconds: they judge a window of each crop, at a random position; 0: the whole crop.
            They are the most expensive part of a step, and the other losses gain more from long
            crops.
    """

    start_step: Natural = 10_000
    warmup_steps: Natural = 200
    hold_generator: Flag = False
    learning_rate: Positive = 5e-4
    clip_norm: NonNegative = 50.0
    window_seconds: NonNegative = 0.0


@configuration
class ValidationConfig:
    """Validation during training.

    Attributes:
        every: in steps; the averaged weights are scored.
        recordings: number of recordings, spread evenly over the set.
        max_seconds: recordings are cut to this length.
        half: "choose": only speakers of that half, so that the others can be reported
            (``evaluation.recordings``); "all": all speakers.
        best_by: the score of the checkpoint and model that are kept as the best: "mel"
            (lowest), "pesq_wb", "stoi" or "judges" (highest). "judges" also scores DistillMOS,
            speaker similarity and pitch, which are not losses, and combines them
            (``validation.judgement``).
    """

    every: Count = 2000
    recordings: Count = 16
    max_seconds: Positive = 10.0
    half: Literal["all", "choose"] = "all"
    best_by: Literal["mel", "pesq_wb", "stoi", "judges"] = "mel"


@configuration
class TrainingConfig:
    """A whole run.

    Attributes:
        model: what is trained; a run that starts from a model (``--init``) takes that model's.
        freeze: parts of the model that are not trained: "encoder", "quantizer",
            "decoder". With the first two frozen, a decoder is trained for existing codes.
        teacher: a model (as for ``--init``) whose latents the encoder learns, so that it gives the
            same codes (``LossConfig.distil``).
        seed: of all randomness.
        steps: last step of the run.
        precision: "fp32", or "bf16" for matrix products and convolutions (autocast; weights stay in
            float32).
        log_every, checkpoint_every: in steps.
        keep_checkpoints: number of the newest that are kept.
        max_skipped: the run ends with an error after this many steps in a row without finite
            gradients; checked when a line is logged.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    quantizer_start: QuantizerStartConfig = field(default_factory=QuantizerStartConfig)
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)
    discriminators: Annotated[DiscriminatorConfig, BeforeValidator(named)] = field(
        default_factory=compact
    )
    mel: MelConfig = field(default_factory=MelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    freeze: tuple[Literal["encoder", "quantizer", "decoder"], ...] = ()
    teacher: str | None = None
    seed: Natural = 0
    steps: Count = 20_000
    precision: Literal["fp32", "bf16"] = "bf16"
    log_every: Count = 50
    checkpoint_every: Count = 500
    keep_checkpoints: Count = 3
    max_skipped: Count = 50

    def __post_init__(self) -> None:
        if self.adversary.window_seconds > self.data.crop_seconds:
            raise ValueError(
                f"adversary.window_seconds ({self.adversary.window_seconds:g}) must not be longer "
                f"than data.crop_seconds ({self.data.crop_seconds:g})"
            )
        if {"encoder", "quantizer", "decoder"} <= set(self.freeze):
            raise ValueError("freeze leaves nothing of the model to train")
        if (self.teacher is None) != (self.loss.distil == 0):
            raise ValueError("teacher and loss.distil need each other")

    @property
    def crop_samples(self) -> int:
        """Length of a crop in samples of the model's rate."""
        return round(self.data.crop_seconds * self.model.sample_rate)

    @property
    def judged_samples(self) -> int:
        """Length of the window that the discriminators judge, in samples of the model's rate."""
        return round(self.adversary.window_seconds * self.model.sample_rate) or self.crop_samples

    @classmethod
    def from_dict(cls, values: Any, where: str = "the configuration") -> TrainingConfig:
        """Build from nested plain values.

        Raises:
            ConfigError: a key is unknown, of the wrong type or out of range.
        """
        return parse(cls, values, where)

    @classmethod
    def load(cls, path: Path) -> TrainingConfig:
        """Read a TOML file; see ``read_recipe``.

        Raises:
            ConfigError: the file is missing, not TOML, or invalid.
        """
        return cls.from_dict(read_recipe(path), str(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain values that ``from_dict`` takes back."""
        return plain(self)

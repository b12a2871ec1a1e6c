"""The training loop: one generator step, one discriminator step, from one forward pass."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simvq_audio.errors import ConfigError, SimvqAudioError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.storage import load_model, save_model
from simvq_audio.model.usage import code_counts, perplexity, utilisation
from simvq_audio.training.checkpoint import load_checkpoint, save_checkpoint
from simvq_audio.training.config import OptimizerConfig, TrainingConfig
from simvq_audio.training.discriminator import MultiScaleStftDiscriminator
from simvq_audio.training.losses import (
    MultiScaleMelLoss,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
    limit_bandwidth,
)
from simvq_audio.training.packed import PackedSpeech
from simvq_audio.training.quantizer_start import match_codebook_to_latents

# After this many steps in a row without finite gradients the run is beyond saving.
_MAX_SKIPPED = 50


class TrainingDiverged(SimvqAudioError):
    """Losses or gradients stayed non-finite."""


class Trainer:
    """Trains an ``Autoencoder``; everything that a resumed run needs is in its checkpoint.

    Args:
        config: the run's configuration.
        data: where batches come from.
        out: run folder: ``checkpoint.pt``, ``model.safetensors`` (averaged weights, always a valid
            model), ``metrics.jsonl`` and ``config.json``.
        device: where to train.
    """

    def __init__(
        self, config: TrainingConfig, data: PackedSpeech, out: Path, device: torch.device
    ) -> None:
        self.config = config
        self.data = data
        self.out = out
        self.device = device
        torch.manual_seed(config.seed)
        self.model = Autoencoder(config.model).to(device)
        self.discriminator = MultiScaleStftDiscriminator(config.adversary).to(device)
        self.mel_loss = MultiScaleMelLoss(config.model.sample_rate).to(device)
        self.averaged = {k: v.detach().clone() for k, v in self.model.named_parameters()}
        quantizer = list(self.model.quantizer.parameters())
        self.generator_optimizer = _optimizer(self.model, config.optimizer, without=quantizer)
        self.generator_optimizer.add_param_group(
            {
                "params": quantizer,
                "weight_decay": 0.0,
                "scale": config.quantizer_start.learning_rate_factor,
            }
        )
        self.discriminator_optimizer = _optimizer(self.discriminator, config.optimizer)
        self.step = 0
        self.skipped = 0
        self._skipped_in_a_row = 0
        self._quantizer_started = config.quantizer_start.unquantized_steps == 0

    # -- starting and stopping -----------------------------------------------------------------

    def start_from_model(self, path: Path) -> None:
        """Take the weights of a model file; optimisers and discriminators start fresh.

        Raises:
            ModelError: the file cannot be read.
            ConfigError: it was built from another configuration.
        """
        model, header = load_model(path, self.device)
        if header.config != self.config.model:
            raise ConfigError(f"{path} has another model configuration than this run")
        self.model.load_state_dict(model.state_dict())
        for name, parameter in self.model.named_parameters():
            self.averaged[name].copy_(parameter.detach())
        self._quantizer_started = True

    def resume(self) -> None:
        """Go on from ``out/checkpoint.pt``.

        Raises:
            ModelError: there is none, or it is damaged.
        """
        state = load_checkpoint(self.out / "checkpoint.pt")
        self.model.load_state_dict(state["model"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.generator_optimizer.load_state_dict(state["generator_optimizer"])
        self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
        # The configuration may have changed on purpose since the checkpoint was written.
        self.generator_optimizer.param_groups[-1]["scale"] = (
            self.config.quantizer_start.learning_rate_factor
        )
        for name, value in state["averaged"].items():
            self.averaged[name].copy_(value)
        self.step = state["step"]
        self.skipped = state["skipped"]
        self._quantizer_started = state["quantizer_started"]

    def save(self) -> None:
        """Write ``checkpoint.pt`` and ``model.safetensors``, each whole or not at all."""
        save_checkpoint(
            self.out / "checkpoint.pt",
            {
                "model": self.model.state_dict(),
                "discriminator": self.discriminator.state_dict(),
                "generator_optimizer": self.generator_optimizer.state_dict(),
                "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
                "averaged": self.averaged,
                "step": self.step,
                "skipped": self.skipped,
                "quantizer_started": self._quantizer_started,
            },
        )
        save_model(
            self.out / "model.safetensors",
            self.config.model,
            {**self.model.state_dict(), **self.averaged},
            {"training": f"{self.step} steps"},
        )

    # -- the loop ------------------------------------------------------------------------------

    def run(
        self, should_stop: Callable[[], bool], report: Callable[[dict[str, Any]], None]
    ) -> None:
        """Train until the last step or until ``should_stop()``; checkpoints go on being written.

        Raises:
            TrainingDiverged: too many steps in a row without finite gradients.
        """
        config = self.config
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "config.json").write_text(json.dumps(config.to_dict(), indent=1))
        window: list[dict[str, Tensor]] = []
        counts = torch.zeros(config.model.quantizer.codebook_size, dtype=torch.long)
        counts = counts.to(self.device)
        since = time.perf_counter()
        while self.step < config.steps and not should_stop():
            if not self._quantizer_started and self._quantizing():
                self._start_quantizer()
            losses, indices = self.train_step()
            window.append(losses)
            if indices is not None:
                counts += code_counts(indices, config.model.quantizer.codebook_size)
            self.step += 1
            if self.step % config.log_every == 0:
                now = time.perf_counter()
                row = {"step": self.step, "seconds_per_step": (now - since) / len(window)}
                row |= _means(window)
                if counts.any():
                    row["perplexity"] = perplexity(counts).item()
                    row["utilisation"] = utilisation(counts).item()
                row["learning_rate"] = self._learning_rate_factor() * (
                    config.optimizer.learning_rate
                )
                row["skipped"] = self.skipped
                with open(self.out / "metrics.jsonl", "a") as log:
                    log.write(json.dumps(row) + "\n")
                report(row)
                window, since = [], now
                counts.zero_()
            if self.step % config.checkpoint_every == 0:
                self.save()
        self.save()

    def train_step(self) -> tuple[dict[str, Tensor], Tensor | None]:
        """One update of the generator and, in its time, of the discriminators.

        Returns:
            detached loss terms, and the batch's indices (batch, frames) unless unquantised.
        """
        config = self.config
        factor = self._learning_rate_factor()
        _set_learning_rate(self.generator_optimizer, factor * config.optimizer.learning_rate)
        _set_learning_rate(self.discriminator_optimizer, factor * config.adversary.learning_rate)
        original, bandwidths = self.data.batch(self.step, config.data.batch_size)
        original, bandwidths = original.to(self.device), bandwidths.to(self.device)
        sample_rate = config.model.sample_rate
        with self._autocast():
            reconstruction, _, quantized = self.model(original, quantize=self._quantizing())
        original = limit_bandwidth(original, bandwidths, sample_rate)
        limited = limit_bandwidth(reconstruction.float(), bandwidths, sample_rate)

        losses = {"mel": self.mel_loss(limited, original)}
        total = config.loss.mel * losses["mel"]
        if quantized is not None:
            losses["quantizer"] = quantized.loss
            total = total + config.loss.quantizer * quantized.loss
        if self.step >= config.adversary.start_step:
            total = total + self._adversarial_step(original, limited, losses)
        self.generator_optimizer.zero_grad(set_to_none=True)
        total.backward()
        losses["gradient_norm"] = nn.utils.clip_grad_norm_(
            self.model.parameters(), config.optimizer.clip_norm
        )
        self._apply(self.generator_optimizer, losses["gradient_norm"])
        with torch.no_grad():
            parameters = dict(self.model.named_parameters())
            # Short runs would otherwise average over their own random start.
            decay = min(config.optimizer.ema, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(
                list(self.averaged.values()),
                [parameters[name] for name in self.averaged],
                1 - decay,
            )
        return {k: v.detach() for k, v in losses.items()}, (
            quantized.indices if quantized is not None else None
        )

    def _adversarial_step(
        self, original: Tensor, reconstruction: Tensor, losses: dict[str, Tensor]
    ) -> Tensor:
        """Update the discriminators; return the generator's term.

        Both updates come from one pass of the discriminators over original and reconstruction: the
        generator's gradient is taken at the reconstruction and handed on as a linear term.
        """
        config = self.config
        handed_over = reconstruction.detach().requires_grad_()
        with self._autocast():
            real, real_features = self.discriminator(original)
            fake, fake_features = self.discriminator(handed_over)
        term = reconstruction.new_zeros(())
        warm = self.step >= config.adversary.start_step + config.adversary.warmup_steps
        if warm:
            losses["adversarial"] = adversarial_loss(fake)
            losses["feature_matching"] = feature_matching_loss(real_features, fake_features)
            generator_loss = (
                config.loss.adversarial * losses["adversarial"]
                + config.loss.feature_matching * losses["feature_matching"]
            )
            (gradient,) = torch.autograd.grad(generator_loss, handed_over, retain_graph=True)
            term = (reconstruction * gradient).sum()
        losses["discriminator"] = discriminator_loss(real, fake)
        parameters = list(self.discriminator.parameters())
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        losses["discriminator"].backward(inputs=parameters)
        norm = nn.utils.clip_grad_norm_(parameters, 10 * config.optimizer.clip_norm)
        self._apply(self.discriminator_optimizer, norm)
        return term

    def _apply(self, optimizer: torch.optim.Optimizer, gradient_norm: Tensor) -> None:
        """Step unless the gradients are not finite: one bad batch must not end a long run."""
        if torch.isfinite(gradient_norm):
            optimizer.step()
            self._skipped_in_a_row = 0
            return
        self.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= _MAX_SKIPPED:
            raise TrainingDiverged(
                f"no finite gradient for {_MAX_SKIPPED} updates in a row at step {self.step}; "
                "lower the learning rate and resume from an earlier checkpoint"
            )

    @torch.no_grad()
    def _start_quantizer(self) -> None:
        """Set W from the latents of some batches, and its average with it."""
        config = self.config
        latents = []
        for index in range(config.quantizer_start.statistics_batches):
            # Steps beyond the run's last: batches that training itself does not draw.
            batch, _ = self.data.batch(config.steps + index, config.data.batch_size)
            with self._autocast():
                latents.append(self.model.encode_latent(batch.to(self.device)))
        match_codebook_to_latents(self.model.quantizer, torch.cat(latents))
        for name, parameter in self.model.quantizer.named_parameters(prefix="quantizer"):
            self.averaged[name].copy_(parameter)
        self._quantizer_started = True

    def _quantizing(self) -> bool:
        return self._quantizer_started or (
            self.step >= self.config.quantizer_start.unquantized_steps
        )

    def _learning_rate_factor(self) -> float:
        optimizer = self.config.optimizer
        warmup = min(1.0, (self.step + 1) / max(1, optimizer.warmup_steps))
        decay = min(1.0, (self.config.steps - self.step) / max(1, optimizer.decay_steps))
        return warmup * decay

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16)


def _optimizer(
    module: nn.Module, config: OptimizerConfig, without: Sequence[nn.Parameter] = ()
) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels only; each group has a learning rate ``scale``."""
    left_out = {id(parameter) for parameter in without}
    parameters = [p for p in module.parameters() if id(p) not in left_out]
    return torch.optim.AdamW(
        [
            {
                "params": [p for p in parameters if p.dim() > 1],
                "weight_decay": config.weight_decay,
                "scale": 1.0,
            },
            {
                "params": [p for p in parameters if p.dim() <= 1],
                "weight_decay": 0.0,
                "scale": 1.0,
            },
        ],
        betas=tuple(config.betas),
        fused=True,
    )


def _set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["scale"]


def _means(window: list[dict[str, Tensor]]) -> dict[str, float]:
    """Mean of each term over the steps that have it."""
    names = {name for row in window for name in row}
    return {
        name: torch.stack([row[name] for row in window if name in row]).mean().item()
        for name in sorted(names)
    }

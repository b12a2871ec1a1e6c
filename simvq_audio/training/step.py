"""One update of both networks, from one forward pass of each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from simvq_audio.codec.model_source import locate_model
from simvq_audio.errors import ConfigError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.storage import load_model
from simvq_audio.model.usage import quantization_error
from simvq_audio.training.balancer import WaveformGradient
from simvq_audio.training.config import OptimizerConfig, TrainingConfig
from simvq_audio.training.discriminators import Discriminators
from simvq_audio.training.gradients import SkippedSteps, clip, exchange, step_unless
from simvq_audio.training.losses import (
    SpectralLosses,
    discriminator_loss,
    generator_losses,
    limit_bandwidth,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Plan(NamedTuple):
    """What one step does; depends only on the step's number.

    Attributes:
        quantize: the latent is quantised.
        discriminate: the discriminators learn.
        heard: the generator learns from them.
        hold: the generator is not updated.
    """

    quantize: bool
    discriminate: bool
    heard: bool
    hold: bool


class StepResult(NamedTuple):
    """The results of a step, on the device.

    Attributes:
        losses: detached scalars by name, and gradient norms before clipping.
        indices: from the quantiser; None in unquantised steps.
    """

    losses: dict[str, Tensor]
    indices: Tensor | None


class TrainingStep:
    """Both networks, their optimisers and the averaged weights.

    The discriminators run once over originals and reconstructions. The generator's gradient is
    computed at the reconstruction only and passed on to the model as a linear term; the
    discriminators' loss then uses the same graph. In units of a forward pass of the discriminators
    this costs 7 (2 forward, 1 for the generator, 4 for their gradients), two separate passes 10 to
    12. Balanced losses need one more, for the gradient of feature matching.

    A step does not wait for the device, and its randomness depends only on (seed, step, rank).

    Args:
        config: the run's configuration.
        fabric: device, autocast, rank and number of processes.
    """

    def __init__(self, config: TrainingConfig, fabric: Fabric) -> None:
        self.config = config
        self._fabric = fabric
        device = fabric.device
        # Every process draws the same weights.
        torch.manual_seed(config.seed)
        self.model = Autoencoder(config.model).to(device)
        self.model.freeze(config.freeze)
        self.discriminators = Discriminators(config.discriminators).to(device)
        self.average = deepcopy(self.model).eval().requires_grad_(False)
        self.spectral = SpectralLosses(config.loss, config.mel, config.model.sample_rate).to(device)
        self.waveform_gradient = WaveformGradient(config.loss, device)
        self.generator_optimizer = _optimizer(self.model, config, config.optimizer.learning_rate)
        self.discriminator_optimizer = _optimizer(
            self.discriminators, config, config.adversary.learning_rate
        )
        self.skipped = SkippedSteps(device)
        self._teacher = _teacher(config, device)

    def __call__(
        self,
        batch: tuple[Tensor, Tensor],
        step: int,
        plan: Plan,
        learning_rate_factor: float,
    ) -> StepResult:
        """Update both networks.

        Args:
            batch: this process's waveforms (crops, samples) and bandwidths (crops,) in Hz.
            step: its number, which seeds its randomness.
        """
        config = self.config
        torch.manual_seed(_step_seed(config.seed, step, self._fabric.global_rank))
        self.generator_optimizer.zero_grad(set_to_none=True)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        losses, indices = self._backward(*batch, plan)
        with record_function("optimizer"):
            bad = torch.zeros((), device=self._fabric.device)
            if not plan.hold:
                norm, bad = self._update(
                    self.model,
                    self.generator_optimizer,
                    learning_rate_factor,
                    config.optimizer.clip_norm,
                )
                losses["gradient_norm"] = norm
            if plan.discriminate:
                norm, also_bad = self._update(
                    self.discriminators,
                    self.discriminator_optimizer,
                    learning_rate_factor,
                    config.adversary.clip_norm,
                )
                losses["discriminator_gradient_norm"] = norm
                bad = torch.maximum(bad, also_bad)
            self.skipped.update(bad)
            if not plan.hold:
                # Otherwise, short runs would average over their random start.
                self._update_average(min(config.optimizer.ema, (1 + step) / (10 + step)))
        return StepResult(losses, indices)

    def _backward(self, original: Tensor, bandwidths: Tensor, plan: Plan) -> StepResult:
        """Compute both networks' gradients."""
        config, sample_rate = self.config, self.config.model.sample_rate
        with (
            record_function("forward"),
            torch.set_grad_enabled(not plan.hold),
            self._fabric.autocast(),
        ):
            reconstruction, latent, quantized = self.model(original, quantize=plan.quantize)
        target = None
        if self._teacher is not None:
            with record_function("teacher"), torch.no_grad():
                target = self._teacher(original)
        with record_function("losses"):
            original = limit_bandwidth(original, bandwidths, sample_rate)
            limited = limit_bandwidth(reconstruction.float(), bandwidths, sample_rate)
            # The losses of the waveform are differentiated down to this leaf; their gradient is
            # passed on to the model as a linear term.
            waveform = limited.detach().requires_grad_(not plan.hold)
            losses = self.spectral(waveform, original)
            gradient: Any = None if plan.hold else self.waveform_gradient(losses, waveform)
            others = torch.zeros((), device=waveform.device)
            if target is not None:
                losses["distil"] = F.mse_loss(latent.float(), target)
                others = others + config.loss.distil * losses["distil"]
            if quantized is not None:
                error = quantization_error(latent.detach(), quantized.latent.detach())
                losses["quantization_error"] = error
            if quantized is not None and quantized.losses:
                losses["quantizer"] = self._quantizer_loss(quantized.losses)
                others = others + config.loss.quantizer * losses["quantizer"]
        if plan.discriminate:
            with record_function("discriminators"):
                judged, from_judges = self._discriminate(original, waveform, plan.heard)
                losses |= judged
                if from_judges is not None:
                    gradient = gradient + from_judges
        if not plan.hold:
            with record_function("backward"):
                ((limited * gradient).sum() + others).backward()
        return StepResult(
            {name: value.detach() for name, value in losses.items()},
            None if quantized is None else quantized.indices,
        )

    def _quantizer_loss(self, losses: dict[str, Tensor]) -> Tensor:
        """The sum of the quantiser's losses, the commitment with its weight."""
        others = [loss for name, loss in losses.items() if name != "commitment"]
        if "commitment" in losses:
            others.append(self.config.loss.commitment * losses["commitment"])
        return sum(others[1:], start=others[0])

    def _discriminate(
        self, original: Tensor, waveform: Tensor, heard: bool
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Compute the discriminators' gradients.

        They judge one window of the crops; see ``AdversaryConfig.window_seconds``.

        Args:
            waveform: the reconstruction, as a leaf.

        Returns:
            losses by name, and the gradient at ``waveform`` if the generator learns from them.
        """
        config = self.config
        judged = config.judged_samples
        first = int(torch.randint(original.shape[-1] - judged + 1, ()))
        window = slice(first, first + judged)
        handed_over = waveform if heard else waveform.detach()
        with self._fabric.autocast():
            real = self.discriminators(original[:, window])
            fake = self.discriminators(handed_over[:, window])
        losses: dict[str, Tensor] = {}
        gradient = None
        if heard:
            losses = generator_losses(config.discriminators, real, fake)
            gradient = self.waveform_gradient(losses, waveform)
        losses["discriminator"] = discriminator_loss(config.discriminators, real, fake)
        losses["discriminator"].backward(inputs=list(self.discriminators.parameters()))
        return losses, gradient

    def _update(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        learning_rate_factor: float,
        clip_norm: float,
    ) -> tuple[Tensor, Tensor]:
        """Exchange, clip and apply gradients; returns what ``gradients.clip`` does."""
        exchange(network.parameters())
        norm, bad = clip(network.parameters(), clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * learning_rate_factor
        step_unless(optimizer, bad)
        return norm, bad

    @torch.no_grad()
    def _update_average(self, decay: float) -> None:
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.model.parameters()), 1 - decay
        )

    # -- state ---------------------------------------------------------------------------------

    def restart_average(self) -> None:
        """Set the averaged weights to the current ones."""
        self.average.load_state_dict(self.model.state_dict())

    def weights(self) -> dict[str, Any]:
        """Everything but the optimisers' moments."""
        return {
            "model": self.model.state_dict(),
            "discriminators": self.discriminators.state_dict(),
            "average": dict(self.average.named_parameters()),
            "quantizer": self.model.quantizer.training_state(),
        }

    def load_weights(self, state: dict[str, Any]) -> None:
        """Restore what ``weights`` returned, in any precision."""
        self.model.load_state_dict(state["model"])
        self.discriminators.load_state_dict(state["discriminators"])
        self.average.load_state_dict({**self.model.state_dict(), **state["average"]})
        self.model.quantizer.load_training_state(state.get("quantizer", {}))

    def moments(self) -> dict[str, Any]:
        """The optimisers' state, the averages of gradients' norms and the counters."""
        return {
            "generator_optimizer": self.generator_optimizer.state_dict()["state"],
            "discriminator_optimizer": self.discriminator_optimizer.state_dict()["state"],
            "skipped": self.skipped.total,
            "skipped_in_a_row": self.skipped.in_a_row,
            "balance": self.waveform_gradient.state(),
        }

    def load_moments(self, state: dict[str, Any]) -> None:
        """Restore what ``moments`` returned; learning rates are those of this run."""
        for name in ("generator_optimizer", "discriminator_optimizer"):
            optimizer = getattr(self, name)
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state[name], "param_groups": groups})
        self.skipped.total.copy_(state["skipped"])
        self.skipped.in_a_row.copy_(state["skipped_in_a_row"])
        self.waveform_gradient.load_state(state.get("balance", {}))


def learning_rate_factor(
    config: OptimizerConfig, step: int, steps: int, fresh_since: int = 0
) -> float:
    """Factor on the learning rate at ``step`` (from 0) of ``steps``, 0 to 1.

    Args:
        config: ``schedule`` "constant" is 1 until the last ``decay_steps`` steps, in which it falls
            linearly; "cosine" falls along half a cosine after the warm-up. Both end at
            ``final_factor``.
        steps: last step of the run.
        fresh_since: step at which the optimisers started without moments, from which the warm-up
            counts; above 0 after a start from ``carry.pt``. Adam's first steps are as long as its
            learning rate, whatever the gradient.
    """
    warmup = min(1.0, (step - fresh_since + 1) / max(1, config.warmup_steps))
    if config.schedule == "constant":
        begin = steps - config.decay_steps
    else:
        begin = min(config.warmup_steps, steps)
    progress = min(1.0, max(0, step - begin) / max(1, steps - begin))
    fall = 0.5 * (1 - math.cos(math.pi * progress)) if config.schedule == "cosine" else progress
    return warmup * (1 - fall * (1 - config.final_factor))


def _optimizer(
    network: nn.Module, config: TrainingConfig, learning_rate: float
) -> torch.optim.AdamW:
    """AdamW with decay of matrices and kernels only; the quantiser's fast parameters are a group.

    Weights without a gradient (frozen parts, moving averages) are left out.
    """
    fast: list[nn.Parameter] = []
    if isinstance(network, Autoencoder):
        fast = [p for p in network.quantizer.fast_parameters() if p.requires_grad]
    rest = _without(network.parameters(), fast)
    decay = config.optimizer.weight_decay
    groups = [
        ([p for p in rest if p.dim() > 1], learning_rate, decay),
        ([p for p in rest if p.dim() <= 1], learning_rate, 0.0),
        (fast, learning_rate * config.optimizer.quantizer_factor, 0.0),
    ]
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": weight_decay}
            for parameters, rate, weight_decay in groups
            if parameters
        ],
        betas=config.optimizer.betas,
        fused=True,
    )


def _teacher(config: TrainingConfig, device: torch.device) -> nn.Module | None:
    """The encoder that this one follows.

    Raises:
        ModelError: it cannot be found or read.
        ConfigError: its frames or latents are not like this model's.
    """
    if config.teacher is None:
        return None
    model, header = load_model(locate_model(config.teacher), device)
    for name in ("sample_rate", "hop_length"):
        ours, theirs = getattr(config.model, name), getattr(header.config, name)
        if ours != theirs:
            raise ConfigError(f"the teacher's {name} is {theirs}, the model's is {ours}")
    widths = header.config.quantizer.latent_dim, config.model.quantizer.latent_dim
    if widths[0] != widths[1]:
        raise ConfigError("the teacher's latent is {} wide, the model's {}".format(*widths))
    return model.encoder


def _without(parameters: Iterable[nn.Parameter], left_out: list[nn.Parameter]) -> list[Any]:
    known = {id(parameter) for parameter in left_out}
    return [p for p in parameters if p.requires_grad and id(p) not in known]


def _step_seed(seed: int, step: int, rank: int) -> int:
    """A seed for one step of one process, unrelated to those of its neighbours."""
    mixed = seed
    for number in (step, rank):
        # splitmix64's increment and first mixing round.
        mixed = (mixed * 0x9E3779B97F4A7C15 + number + 1) & (2**64 - 1)
        mixed ^= mixed >> 30
        mixed = (mixed * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return mixed >> 1

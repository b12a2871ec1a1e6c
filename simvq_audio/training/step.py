"""One update of both networks, from one forward pass of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.discriminators import Discriminators
from simvq_audio.training.gradients import (
    LossScale,
    SkippedSteps,
    exchange,
    step_unless,
    unscale_and_clip,
)
from simvq_audio.training.losses import (
    SpectralLosses,
    discriminator_loss,
    generator_losses,
    limit_bandwidth,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Plan(NamedTuple):
    """What one step does; decided on the host from the step's number alone.

    Attributes:
        quantize: the latent goes through the quantiser.
        discriminate: the discriminators learn.
        heard: the generator learns from them.
        hold: the generator does not move.
    """

    quantize: bool
    discriminate: bool
    heard: bool
    hold: bool


class Outcome(NamedTuple):
    """What a step reports; all of it on the device.

    Attributes:
        losses: detached scalars by name, and gradient norms before clipping.
        indices: (crops, frames) int64, None in unquantised steps.
    """

    losses: dict[str, Tensor]
    indices: Tensor | None


class TrainingStep:
    """Both networks, their optimisers and the averaged weights.

    The discriminators run once over originals and reconstructions. The generator's gradient is
    taken at the reconstruction, with respect to nothing else, and handed on as a linear term; the
    discriminators' own loss then goes back through the same graph. Counted in forward passes of
    the discriminators this takes 7 (2 forward, 1 for the generator, 4 for their own gradients),
    where two separate passes with a full backward pass each take 10 to 12.

    Nothing in a step waits for the device, and all that is random in it follows from (seed, step,
    rank).

    Args:
        config: the run's configuration.
        fabric: gives device, autocast, rank and number of processes.
    """

    def __init__(self, config: TrainingConfig, fabric: Fabric) -> None:
        self.config = config
        self._fabric = fabric
        device = fabric.device
        # Every process draws the same weights.
        torch.manual_seed(config.seed)
        self.model = Autoencoder(config.model).to(device)
        self.model.quantizer.commitment = config.loss.commitment
        self.discriminators = Discriminators(config.discriminators).to(device)
        self.average = deepcopy(self.model).eval().requires_grad_(False)
        self.spectral = SpectralLosses(config.spectral, config.model.sample_rate).to(device)
        self.generator_optimizer = _optimizer(self.model, config, config.optimizer.learning_rate)
        self.discriminator_optimizer = _optimizer(
            self.discriminators, config, config.adversary.learning_rate
        )
        self.scale = LossScale(config.precision == "fp16", device)
        self.skipped = SkippedSteps(device)
        if config.compile:
            self.model.encoder.compile()
            self.model.decoder.compile()

    def __call__(
        self,
        batch: tuple[Tensor, Tensor],
        step: int,
        plan: Plan,
        learning_rate_factor: float,
        mark: Callable[[str], None] = lambda part: None,
    ) -> Outcome:
        """Update both networks.

        Args:
            batch: this process's waveforms (crops, samples) and bandwidths (crops,) in Hz.
            step: its number, which seeds what is random in it (dropout).
            mark: called with the name of each part of the step as it ends, for profiles.
        """
        config = self.config
        torch.manual_seed(_step_seed(config.seed, step, self._fabric.global_rank))
        self.generator_optimizer.zero_grad(set_to_none=True)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        parts = config.optimizer.accumulate
        outcomes = [
            self._backward(waveforms, bandwidths, plan, mark)
            for waveforms, bandwidths in zip(batch[0].chunk(parts), batch[1].chunk(parts))
        ]
        losses = _means([outcome.losses for outcome in outcomes])
        bad = torch.zeros((), device=self._fabric.device)
        if not plan.hold:
            norm, bad = self._update(
                self.model, self.generator_optimizer, learning_rate_factor, config.optimizer
            )
            losses["gradient_norm"] = norm
        if plan.discriminate:
            norm, also_bad = self._update(
                self.discriminators,
                self.discriminator_optimizer,
                learning_rate_factor,
                config.adversary,
            )
            losses["discriminator_gradient_norm"] = norm
            bad = torch.maximum(bad, also_bad)
        self.scale.update(bad)
        self.skipped.update(bad)
        if not plan.hold:
            # Short runs would otherwise average over their own random start.
            self._update_average(min(config.optimizer.ema, (1 + step) / (10 + step)))
        mark("optimizer")
        indices = [outcome.indices for outcome in outcomes]
        return Outcome(losses, torch.cat(indices) if plan.quantize else None)

    def _backward(
        self, original: Tensor, bandwidths: Tensor, plan: Plan, mark: Callable[[str], None]
    ) -> Outcome:
        """Add the gradients of some crops to both networks' gradients."""
        config, sample_rate = self.config, self.config.model.sample_rate
        weight = self.scale.value / config.optimizer.accumulate
        with torch.set_grad_enabled(not plan.hold), self._fabric.autocast():
            reconstruction, _, quantized = self.model(original, quantize=plan.quantize)
        original = limit_bandwidth(original, bandwidths, sample_rate)
        limited = limit_bandwidth(reconstruction.float(), bandwidths, sample_rate)
        mark("forward")
        losses = self.spectral(limited, original)
        total = self.spectral.total(losses)
        if quantized is not None:
            losses["quantizer"] = quantized.loss
            total = total + config.loss.quantizer * quantized.loss
        total = weight * total
        mark("losses")
        if plan.discriminate:
            total = total + self._discriminate(original, limited, plan.heard, weight, losses)
            mark("discriminators")
        if not plan.hold:
            total.backward()
        mark("backward")
        return Outcome(
            {name: value.detach() for name, value in losses.items()},
            None if quantized is None else quantized.indices,
        )

    def _discriminate(
        self,
        original: Tensor,
        reconstruction: Tensor,
        heard: bool,
        weight: Tensor,
        losses: dict[str, Tensor],
    ) -> Tensor:
        """Add to the discriminators' gradients; return the generator's term, weighted.

        They judge one window of the crops; see ``AdversaryConfig.window_seconds``.
        """
        config = self.config
        judged = config.judged_samples
        first = int(torch.randint(original.shape[-1] - judged + 1, ()))
        original = original[:, first : first + judged]
        reconstruction = reconstruction[:, first : first + judged]
        handed_over = reconstruction.detach().requires_grad_(heard)
        with self._fabric.autocast():
            real = self.discriminators(original)
            fake = self.discriminators(handed_over)
        term = torch.zeros_like(weight)
        if heard:
            losses |= generator_losses(config.discriminators, real, fake)
            generator_loss = weight * (
                config.loss.adversarial * losses["adversarial"]
                + config.loss.feature_matching * losses["feature_matching"]
            )
            (gradient,) = torch.autograd.grad(generator_loss, handed_over, retain_graph=True)
            term = (reconstruction * gradient).sum()
        losses["discriminator"] = discriminator_loss(config.discriminators, real, fake)
        (weight * losses["discriminator"]).backward(inputs=list(self.discriminators.parameters()))
        return term

    def _update(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        learning_rate_factor: float,
        clip: Any,
    ) -> tuple[Tensor, Tensor]:
        """Exchange, clip and apply gradients; see ``unscale_and_clip`` for what comes back."""
        exchange(network.parameters())
        norm, bad = unscale_and_clip(network.parameters(), self.scale.value, clip.clip_norm)
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
        """Set the averaged weights to the present ones."""
        self.average.load_state_dict(self.model.state_dict())

    def weights(self) -> dict[str, Any]:
        """Everything but the optimisers' moments."""
        return {
            "model": self.model.state_dict(),
            "discriminators": self.discriminators.state_dict(),
            "average": dict(self.average.named_parameters()),
        }

    def load_weights(self, state: dict[str, Any]) -> None:
        """Take back what ``weights`` gave, in any precision."""
        self.model.load_state_dict(state["model"])
        self.discriminators.load_state_dict(state["discriminators"])
        self.average.load_state_dict({**self.model.state_dict(), **state["average"]})

    def moments(self) -> dict[str, Any]:
        """The optimisers' state and the counters."""
        return {
            "generator_optimizer": self.generator_optimizer.state_dict()["state"],
            "discriminator_optimizer": self.discriminator_optimizer.state_dict()["state"],
            "scale": self.scale.state_dict(),
            "skipped": self.skipped.total,
            "skipped_in_a_row": self.skipped.in_a_row,
        }

    def load_moments(self, state: dict[str, Any]) -> None:
        """Take back what ``moments`` gave; learning rates and the like stay this run's."""
        for name in ("generator_optimizer", "discriminator_optimizer"):
            optimizer = getattr(self, name)
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state[name], "param_groups": groups})
        self.scale.load_state_dict(state["scale"])
        self.skipped.total.copy_(state["skipped"])
        self.skipped.in_a_row.copy_(state["skipped_in_a_row"])


def _optimizer(
    network: nn.Module, config: TrainingConfig, learning_rate: float
) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels only, with a group of its own for W, if any."""
    w = list(network.quantizer.parameters()) if isinstance(network, Autoencoder) else []
    rest = _without(network.parameters(), w)
    fast = learning_rate * config.quantizer_start.learning_rate_factor
    decay = config.optimizer.weight_decay
    groups = [
        ([p for p in rest if p.dim() > 1], learning_rate, decay),
        ([p for p in rest if p.dim() <= 1], learning_rate, 0.0),
        (w, fast, 0.0),
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


def _without(parameters: Iterable[nn.Parameter], left_out: list[nn.Parameter]) -> list[Any]:
    known = {id(parameter) for parameter in left_out}
    return [parameter for parameter in parameters if id(parameter) not in known]


def _step_seed(seed: int, step: int, rank: int) -> int:
    """A seed for one step of one process, far from those of its neighbours."""
    mixed = seed
    for number in (step, rank):
        # splitmix64's increment and first mixing round.
        mixed = (mixed * 0x9E3779B97F4A7C15 + number + 1) & (2**64 - 1)
        mixed ^= mixed >> 30
        mixed = (mixed * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return mixed >> 1


def _means(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of each entry over rows of the same names."""
    if len(rows) == 1:
        return rows[0]
    return {name: torch.stack([row[name] for row in rows]).mean() for name in rows[0]}

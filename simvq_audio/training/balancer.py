"""The gradient of all losses of the waveform, at the reconstruction."""

from __future__ import annotations

import torch
from torch import Tensor

from simvq_audio.training.gradients import mean_over_processes
from simvq_audio.training.losses.config import LossConfig


class WaveformGradient:
    """The gradient of weighted losses at the reconstruction, plain or balanced.

    Plain: the gradient of their weighted sum. Balanced (``LossConfig.balance``): each loss's
    gradient is divided by the moving average of its norm (the L2 norm of each item's gradient,
    averaged over the batch) and then weighted. A weight is then the share of the loss in the
    gradient, whatever the scale of the loss. The result is divided by the batch size, as the
    gradient of a mean is.

    Source: the balancer of EnCodec (arXiv 2210.13438, section 3.4), with its decay and bias
    correction. Its weights sum to 1; these need not.

    Args:
        config: the weights, and whether they are shares.
        device: of the averages; the host does not wait for it.
    """

    DECAY = 0.99

    def __init__(self, config: LossConfig, device: torch.device) -> None:
        self._weights = {name: weight for name, weight in config.waveform.items() if weight > 0}
        # For each loss's norm: the decaying sum, and the sum of its weights (bias correction).
        self._sums = (
            {name: torch.zeros(2, device=device) for name in self._weights}
            if config.balance
            else None
        )

    def __call__(self, losses: dict[str, Tensor], waveform: Tensor) -> Tensor:
        """Compute the gradient; the losses' graph is kept.

        Args:
            losses: some of the losses of the waveform by name, scalars; their averages are updated.
            waveform: (batch, samples), a leaf that they were computed from.

        Returns:
            (batch, samples).
        """
        weighted = [name for name in losses if name in self._weights]
        if not weighted:
            return torch.zeros_like(waveform)
        if self._sums is None:
            total = torch.stack([self._weights[name] * losses[name] for name in weighted]).sum()
            return _gradient(total, waveform)
        gradients = [_gradient(losses[name], waveform) for name in weighted]
        norms = torch.stack([g.flatten(1).norm(dim=1).mean() for g in gradients])
        mean_over_processes([norms])
        total = torch.zeros_like(waveform)
        for name, gradient, norm in zip(weighted, gradients, norms):
            self._move(self._sums[name], norm)
            weight_sum, norm_sum = self._sums[name]
            average = norm_sum / weight_sum.clamp(min=1 - self.DECAY)
            total += gradient * (self._weights[name] / average.clamp(min=1e-12))
        return total / len(waveform)

    def _move(self, sums: Tensor, norm: Tensor) -> None:
        """Update an average, unless the norm is not finite: such a step is skipped."""
        new = self.DECAY * sums + (1 - self.DECAY) * torch.stack([torch.ones_like(norm), norm])
        sums.copy_(torch.where(torch.isfinite(norm), new, sums))

    def state(self) -> dict[str, Tensor]:
        """The averages."""
        return dict(self._sums or {})

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore ``state``; losses that it lacks start at zero."""
        for name, sums in (self._sums or {}).items():
            if name in state:
                sums.copy_(state[name])


def _gradient(loss: Tensor, waveform: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, waveform, retain_graph=True)
    return gradient

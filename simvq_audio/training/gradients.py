"""Gradients between the backward pass and the optimiser.

Nothing here waits for the device: it decides whether gradients are finite, skips steps and counts
them, and the host reads the counts only when a line is logged.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SkippedSteps:
    """Counts of steps without finite gradients, kept on the device.

    Attributes:
        total: of the whole run; a float scalar.
        in_a_row: up to the last step; a float scalar.
    """

    def __init__(self, device: torch.device) -> None:
        self.total = torch.tensor(0.0, device=device)
        self.in_a_row = torch.tensor(0.0, device=device)

    def update(self, bad: Tensor) -> None:
        """Count a step; ``bad`` is a float scalar, 1 where gradients were not finite."""
        self.total += bad
        self.in_a_row = (self.in_a_row + 1) * bad


def exchange(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes; without others, do nothing.

    One flattened exchange per network. ``DistributedDataParallel`` would hook into the backward
    pass, but the step takes gradients of two losses from one graph, which its hooks do not allow.
    The exchange does not overlap with the backward pass. Fabric's ``all_reduce`` has a barrier, at
    which the host would wait.
    """
    mean_over_processes([p.grad for p in parameters if p.grad is not None])


def mean_over_processes(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over all processes, in one exchange."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([t.numel() for t in tensors])
    torch._foreach_copy_(tensors, [part.view(t.shape) for part, t in zip(parts, tensors)])


def clip(parameters: Iterable[nn.Parameter], max_norm: float) -> tuple[Tensor, Tensor]:
    """Clip gradients to the norm ``max_norm`` (0: no limit).

    Returns:
        the norm before, and 1 where it is not finite (else 0); float scalars on the device.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if max_norm > 0:
        torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm, 1 - torch.isfinite(norm).float()


def step_unless(optimizer: torch.optim.Optimizer, bad: Tensor) -> None:
    """Step a fused optimiser; if the scalar ``bad`` is 1, nothing changes.

    ``torch.amp.GradScaler`` sets ``found_inf`` in the same way; fused optimisers read it on the
    device and then leave weights, moments and step counts unchanged.
    """
    optimizer.found_inf = bad  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]

"""Statistics between two logged lines."""

from __future__ import annotations

import time
from math import isfinite
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from simvq_audio.model.usage import entry_numbers, perplexity, utilisation
from simvq_audio.training.config import TrainingConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class LogWindow:
    """Statistics since the last logged line, kept on the device."""

    def __init__(self, config: TrainingConfig, fabric: Fabric) -> None:
        self._fabric = fabric
        self._batch_seconds = config.data.batch_size * config.data.crop_seconds
        self._sizes = config.model.quantizer.codebook_sizes
        self._counts = torch.zeros(sum(self._sizes), device=fabric.device)
        self._rows: list[dict[str, Tensor]] = []
        self.restart_clock()

    def add(self, losses: dict[str, Tensor], indices: Tensor | None) -> None:
        """Add a step."""
        self._rows.append(losses)
        self._timed += 1
        if indices is not None:
            # Not bincount, which makes the host wait.
            flat = entry_numbers(indices, self._sizes).reshape(-1)
            self._counts.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.float32))

    def restart_clock(self) -> None:
        """Exclude the time since the last step from the speed."""
        self._since = time.perf_counter()
        self._timed = 0

    def close(self) -> dict[str, float]:
        """Means over steps and processes, speeds and codebook use; then reset."""
        names = sorted({name for row in self._rows for name in row})
        means = torch.stack(
            [_finite_mean(torch.stack([r[n] for r in self._rows if n in r])) for n in names]
        )
        if self._fabric.world_size > 1:
            means = self._fabric.all_reduce(means, reduce_op="mean")
            self._counts = self._fabric.all_reduce(self._counts, reduce_op="sum")
        # The first read waits for the device, so the clock is read after it.
        row: dict[str, float] = {n: v for n, v in zip(names, means.tolist()) if isfinite(v)}
        if self._timed:
            speed = self._timed / (time.perf_counter() - self._since)
            row["steps_per_second"] = speed
            row["audio_seconds_per_second"] = speed * self._batch_seconds
        if self._counts.any():
            # Means over codebooks, if there are several.
            of_each = self._counts.split(self._sizes)
            row["perplexity"] = torch.stack([perplexity(c) for c in of_each]).mean().item()
            row["utilisation"] = torch.stack([utilisation(c) for c in of_each]).mean().item()
        self._rows = []
        self._counts = torch.zeros_like(self._counts)
        self.restart_clock()
        return row


def _finite_mean(values: Tensor) -> Tensor:
    """Mean of the finite values; skipped steps are counted elsewhere."""
    values = values.float()
    return torch.where(torch.isfinite(values), values, torch.nan).nanmean()

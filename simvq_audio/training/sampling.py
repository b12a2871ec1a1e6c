"""Which crops are in a batch: a pure function of (seed, step), however the audio is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from simvq_audio.errors import ConfigError


class CropSource(Protocol):
    """The source of the trainer's batches."""

    def batch(
        self, step: int, size: int, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Draw the batch of ``step``.

        Equal arguments give equal batches, so a resumed run needs no state of the sampler. The
        processes of a distributed run draw the ``world_size * size`` items that one process would
        draw as one batch; process ``rank`` gets its slice of them.

        Returns:
            waveforms (size, crop_samples) float32, and the bandwidth of each in Hz, (size,)
            float32, above which there is nothing to learn.
        """


@dataclass(frozen=True)
class Draw:
    """The items of a batch.

    Attributes:
        recordings: (size,) int64, index of each item's recording.
        positions: (size,) float64 in [0, 1), of the crop between start and end.
        gains: (size,) float32, factor of the crop.
    """

    recordings: np.ndarray
    positions: np.ndarray
    gains: np.ndarray


class CropSampler:
    """Draws recordings, weighted, and a crop position and a gain for each.

    Args:
        speakers: label of each recording's speaker.
        seconds: length of each recording.
        speaker_power: 0 draws every second of audio equally often, 1 every speaker; values between
            draw rare speakers more often than their share.
        gain_db: each crop is made quieter by up to this many decibels, drawn uniformly.
        seed: not negative.

    Raises:
        ConfigError: a value is out of range, or there are no recordings.
    """

    def __init__(
        self,
        speakers: Sequence[str],
        seconds: Sequence[float] | np.ndarray,
        *,
        speaker_power: float,
        gain_db: float,
        seed: int,
    ) -> None:
        if not len(speakers):
            raise ConfigError("there are no recordings to train on")
        if not 0 <= speaker_power <= 1:
            raise ConfigError(f"speaker_power must be 0 to 1, not {speaker_power}")
        if not 0 <= gain_db < float("inf"):
            raise ConfigError(f"gain_db must be 0 or more, not {gain_db}")
        if seed < 0:
            raise ConfigError(f"seed must be 0 or more, not {seed}")
        self._gain_db = gain_db
        self._seed = seed
        lengths = np.asarray(seconds, np.float64)
        _, speaker = np.unique(np.asarray(speakers), return_inverse=True)
        of_speaker = np.bincount(speaker, weights=lengths)[speaker]
        weights = lengths * of_speaker**-speaker_power
        self._cumulative = np.cumsum(weights / weights.sum())

    def draw(self, step: int, size: int, rank: int = 0, world_size: int = 1) -> Draw:
        """The items of process ``rank`` in the batch of ``step``; see ``CropSource``."""
        uniform = self._generator(step).random((size * world_size, 3))
        return self._from_uniform(uniform[rank * size : (rank + 1) * size])

    def replacement(self, step: int, item: int, attempt: int) -> Draw:
        """A replacement for an item that cannot be read.

        Args:
            item: its index in the whole batch, over all processes.
            attempt: 1 for the first replacement, and so on.
        """
        return self._from_uniform(self._generator(step, item + 1, attempt).random((1, 3)))

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self._seed, *key]))

    def _from_uniform(self, uniform: np.ndarray) -> Draw:
        picks = np.searchsorted(self._cumulative, uniform[:, 0], side="right")
        gains = 10 ** (-self._gain_db * uniform[:, 2] / 20)
        return Draw(
            # The last cumulative weight can be just below 1.
            recordings=picks.clip(max=len(self._cumulative) - 1),
            positions=uniform[:, 1],
            gains=gains.astype(np.float32),
        )


def crop_start(position: float | np.ndarray, samples: int | np.ndarray, crop: int) -> np.ndarray:
    """First sample of a crop of ``crop`` in ``samples``; 0 if the recording is not longer."""
    spare = np.maximum(np.asarray(samples) - crop, 0)
    return np.floor(position * (spare + 1)).astype(np.int64)

"""Opens training data, packed or listed in a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simvq_audio.errors import ConfigError
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.crops import FileCrops
from simvq_audio.training.packed import PackedSpeech
from simvq_audio.training.sampling import CropSource


def open_source(path: Path, config: TrainingConfig, device: torch.device) -> CropSource:
    """Open a packed folder or a manifest (.jsonl).

    Raises:
        ConfigError: it is neither, or cannot be used; or audio of a manifest should be held on the
            device.
        AudioError: an archive that the manifest names cannot be read.
    """
    settings: dict[str, Any] = {
        "sample_rate": config.model.sample_rate,
        "crop_samples": config.crop_samples,
        "speaker_power": config.data.speaker_power,
        "gain_db": config.data.gain_db,
        "seed": config.seed,
    }
    if path.suffix == ".jsonl" or path.is_file():
        if config.data.hold_on_device:
            raise ConfigError(
                f"data.hold_on_device needs packed speech, not the manifest {path}; make it with "
                "'simvq-audio data pack MANIFEST OUT'"
            )
        return FileCrops(path, **settings)
    packed = PackedSpeech(path, **settings)
    return packed.to(device) if config.data.hold_on_device else packed


class PinnedSource:
    """A ``CropSource`` with batches in pinned memory, for asynchronous copies to the GPU."""

    def __init__(self, source: CropSource) -> None:
        self._source = source

    def batch(
        self, step: int, size: int, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        """See ``CropSource.batch``."""
        waveforms, bandwidths = self._source.batch(step, size, rank, world_size)
        return waveforms.pin_memory(), bandwidths.pin_memory()

"""Packed speech: every recording of a training set as int16 in one memory-mapped file.

A packed folder holds ``audio.int16`` (all recordings one after the other, native byte order) and
``index.json`` (sample rate and one row a recording).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import ConfigError


@dataclass(frozen=True)
class Recording:
    """One recording in a packed file.

    Attributes:
        name: where it came from.
        speaker: label, unique over sources.
        offset, samples: its place in ``audio.int16``, in samples.
        bandwidth_hz: where its spectrum ends; what a model does above is not penalised.
    """

    name: str
    speaker: str
    offset: int
    samples: int
    bandwidth_hz: float


def write_index(folder: Path, sample_rate: int, recordings: list[Recording]) -> None:
    """Write ``index.json``; the audio file must be complete by then."""
    rows = [asdict(recording) for recording in recordings]
    with atomic_path(folder / "index.json") as temporary:
        temporary.write_text(json.dumps({"sample_rate": sample_rate, "recordings": rows}))


class PackedSpeech:
    """Random crops from a packed folder.

    Args:
        folder: made by ``data_prep/pack.py``.
        sample_rate: what the model wants, in Hz.
        crop_samples: length of a crop; shorter recordings are repeated to fill it.
        speaker_power: 0 draws every second of audio equally often, 1 every speaker; between, rare
            speakers count for more than their share.
        gain_db: each crop is made quieter by up to this many decibels, drawn uniformly.
        seed: batches follow from (seed, step) alone, so a resumed run draws what it would have.

    Raises:
        ConfigError: the folder is not a packed one, or has another sample rate.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sample_rate: int,
        crop_samples: int,
        speaker_power: float,
        gain_db: float,
        seed: int,
    ) -> None:
        try:
            index = json.loads((folder / "index.json").read_text())
        except OSError as error:
            raise ConfigError(
                f"{folder} holds no packed speech ({error.strerror}); make it with "
                "'python data_prep/pack.py MANIFEST OUT'"
            ) from error
        if index["sample_rate"] != sample_rate:
            raise ConfigError(
                f"{folder} was packed at {index['sample_rate']} Hz, the model wants {sample_rate} Hz"
            )
        self.recordings = [Recording(**row) for row in index["recordings"]]
        self._audio = np.memmap(folder / "audio.int16", dtype=np.int16, mode="r")
        self._crop = crop_samples
        self._gain_db = gain_db
        self._seed = seed
        seconds = np.array([r.samples / sample_rate for r in self.recordings])
        by_speaker: dict[str, float] = {}
        for recording, length in zip(self.recordings, seconds):
            by_speaker[recording.speaker] = by_speaker.get(recording.speaker, 0.0) + length
        of_speaker = np.array([by_speaker[r.speaker] for r in self.recordings])
        weights = seconds * of_speaker**-speaker_power
        self._cumulative = np.cumsum(weights / weights.sum())

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """The batch of ``step``: waveforms (size, crop_samples) float32, bandwidths (size,) Hz."""
        rng = np.random.Generator(np.random.PCG64([self._seed, step]))
        picks = np.searchsorted(self._cumulative, rng.random(size)).clip(
            max=len(self.recordings) - 1
        )
        waveforms = np.empty((size, self._crop), np.float32)
        bandwidths = np.empty(size, np.float32)
        for row, pick in enumerate(picks):
            recording = self.recordings[pick]
            spare = recording.samples - self._crop
            start = recording.offset + (int(rng.integers(spare + 1)) if spare > 0 else 0)
            clip = self._audio[start : start + min(self._crop, recording.samples)]
            gain = 10 ** (-self._gain_db * rng.random() / 20)
            waveforms[row] = np.resize(clip, self._crop) * np.float32(gain / 32768)
            bandwidths[row] = recording.bandwidth_hz
        return torch.from_numpy(waveforms), torch.from_numpy(bandwidths)

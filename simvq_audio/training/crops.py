"""Random crops from the audio files of a manifest, without packing them first."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from simvq_audio.audio import resample, resampled_length
from simvq_audio.errors import AudioError
from simvq_audio.training.manifest import ManifestRow, load_manifest
from simvq_audio.training.recordings import RecordingFiles, SpanReader, mix_down, read_mono
from simvq_audio.training.sampling import CropSampler, crop_start

# Context on both sides of a crop for the resampler, in samples of the lower rate. Measured: with
# 192 or more, crops equal those of the whole recording up to float rounding.
_CONTEXT = 256
# A missing disk must end the run; a few damaged files must not.
_MAX_ATTEMPTS = 20

_log = logging.getLogger(__name__)


class FileCrops:
    """A ``CropSource`` that reads little more than the crop of each recording.

    Recordings with more than one channel are mixed down, and resampled with soxr. One that cannot
    be read is replaced by another draw and counted in ``unreadable``.

    Attributes:
        unreadable: why recordings could not be read so far, by path.

    Args:
        manifest: see ``load_manifest``.
        sample_rate: of the crops, in Hz.
        crop_samples: length of a crop at that rate; shorter recordings are repeated to fill it.
        speaker_power, gain_db, seed: see ``CropSampler``.

    Raises:
        ConfigError: the manifest cannot be used, or a value is out of range.
        AudioError: an archive that the manifest names cannot be read.
    """

    def __init__(
        self,
        manifest: Path,
        *,
        sample_rate: int,
        crop_samples: int,
        speaker_power: float,
        gain_db: float,
        seed: int,
    ) -> None:
        self._rows = load_manifest(manifest)
        self._files = RecordingFiles(row.shard for row in self._rows)
        self._sample_rate = sample_rate
        self._crop = crop_samples
        self._sampler = CropSampler(
            [row.speaker_label for row in self._rows],
            [row.duration for row in self._rows],
            speaker_power=speaker_power,
            gain_db=gain_db,
            seed=seed,
        )
        self.unreadable: dict[str, str] = {}

    def batch(
        self, step: int, size: int, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        """See ``CropSource.batch``.

        Raises:
            AudioError: many recordings in a row cannot be read.
        """
        draw = self._sampler.draw(step, size, rank, world_size)
        waveforms = np.empty((size, self._crop), np.float32)
        bandwidths = np.empty(size, np.float32)
        for item in range(size):
            chosen, index = draw, item
            for attempt in range(1, _MAX_ATTEMPTS + 1):
                row = self._rows[chosen.recordings[index]]
                try:
                    clip = self._read(row, float(chosen.positions[index]))
                    break
                except AudioError as error:
                    self._note(row, error)
                    if attempt == _MAX_ATTEMPTS:
                        raise AudioError(
                            f"{attempt} recordings in a row cannot be read; the last: {error}"
                        ) from error
                    chosen = self._sampler.replacement(step, rank * size + item, attempt)
                    index = 0
            waveforms[item] = np.resize(clip, self._crop) * chosen.gains[index]
            bandwidths[item] = row.bandwidth_at(self._sample_rate)
        return torch.from_numpy(waveforms), torch.from_numpy(bandwidths)

    def _note(self, row: ManifestRow, error: AudioError) -> None:
        if row.path not in self.unreadable:
            self.unreadable[row.path] = str(error)
            _log.warning("skipped: %s", error)

    def _read(self, row: ManifestRow, position: float) -> np.ndarray:
        """The crop, or the whole recording if that is shorter: (samples,) float32."""
        with self._files.open(row.path, row.shard) as reader:
            if reader.seeks:
                return self._read_span(reader, position)
            mono = read_mono(reader, self._sample_rate)
        start = int(crop_start(position, len(mono), self._crop))
        return mono[start : start + self._crop]

    def _read_span(self, reader: SpanReader, position: float) -> np.ndarray:
        rate, wanted = reader.sample_rate, self._sample_rate
        available = reader.num_samples or 0
        if not available:
            raise AudioError(f"{reader.name}: holds no samples")
        total = resampled_length(available, rate, wanted)
        start = int(crop_start(position, total, self._crop))
        length = min(self._crop, total)
        # Input samples at multiples of this distance coincide with output samples, so a span that
        # starts there is resampled to the values of the whole recording.
        unit = rate // math.gcd(rate, wanted)
        context = 0 if rate == wanted else -(-_CONTEXT * rate // min(rate, wanted))
        first = max(0, start * rate // wanted - context) // unit * unit
        last = min(available, -(-(start + length) * rate // wanted) + context)
        span = reader.read_span(first, last - first)
        output = resample(mix_down(span), rate, wanted)[0]
        offset = start - first * wanted // rate
        return output[offset : offset + length]

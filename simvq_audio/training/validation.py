"""What a model in training is worth, on a fixed set of recordings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from simvq_audio.audio import AUDIO_SUFFIXES
from simvq_audio.errors import ConfigError
from simvq_audio.evaluation.metric import UnscorableError
from simvq_audio.evaluation.metrics.perceptual import Estoi, PesqWb, Stoi
from simvq_audio.evaluation.trial import Trial
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.usage import code_counts, entry_numbers, perplexity, utilisation
from simvq_audio.training.config import ValidationConfig
from simvq_audio.training.losses import LossConfig, MelConfig, SpectralLosses
from simvq_audio.training.manifest import load_manifest
from simvq_audio.training.recordings import RecordingFiles, read_mono

# Shorter recordings say little, and STOI needs 30 frames of speech.
_MIN_SECONDS = 1.0


class Example(NamedTuple):
    """A recording and what became of it, both (samples,) float32 at the model's rate."""

    name: str
    original: np.ndarray
    decoded: np.ndarray


@dataclass(frozen=True)
class Validation:
    """Scores of one model.

    Attributes:
        scores: means over recordings by name: "mel" (nepers), "pesq_wb", "stoi", "estoi",
            "utilisation" (0 to 1), "perplexity", and "pesq_wb_failed", "stoi_failed" and
            "estoi_failed", the numbers of recordings that have no such score (PESQ found no
            speech, for instance) and are not in the mean.
        examples: the first few recordings.
    """

    scores: dict[str, float]
    examples: list[Example]

    def better_than(self, other: float | None, by: str) -> bool:
        """Whether this is an improvement over a score ``by`` of another model (None: no other)."""
        own = self.scores.get(by)
        if own is None:
            return False
        if other is None:
            return True
        return own < other if by == "mel" else own > other


class ValidationSet:
    """The recordings, resampled and cut, held in memory.

    Args:
        source: a folder (every audio file below it) or a manifest (.jsonl).
        config: how many recordings, and how long.
        sample_rate: the model's, in Hz.

    Raises:
        ConfigError: there are no recordings of at least a second.
        AudioError: a recording cannot be read.
        MissingExtraError: pesq or pystoi is not installed; better known before training than
            after hours of it.
    """

    def __init__(self, source: Path, config: ValidationConfig, sample_rate: int) -> None:
        self._metrics = [PesqWb(), Stoi(), Estoi()]
        self._sample_rate = sample_rate
        self._limit = round(config.max_seconds * sample_rate)
        self._mel = SpectralLosses(LossConfig(), MelConfig(), sample_rate)
        listed = _folder(source) if source.is_dir() else _manifest(source)
        files = RecordingFiles(shard for _, shard in listed)
        shortest = round(min(_MIN_SECONDS, config.max_seconds) * sample_rate)
        self.recordings: list[tuple[str, np.ndarray]] = []
        count = min(config.recordings, len(listed))
        index = 0
        for number in range(count):
            # Evenly over the set; in the place of one that is too short comes the one behind it.
            index = max(number * len(listed) // count, index)
            found = False
            while index < len(listed) and not found:
                path, shard = listed[index]
                with files.open(path, shard) as reader:
                    samples = read_mono(reader, sample_rate)[: self._limit]
                if found := len(samples) >= shortest:
                    name = Path(path).relative_to(source) if source.is_dir() else Path(path).name
                    self.recordings.append((str(name), samples))
                index += 1
        if not self.recordings:
            raise ConfigError(f"{source} holds no recording of at least {_MIN_SECONDS:g} s")

    @torch.no_grad()
    def validate(self, model: Autoencoder, examples: int = 2) -> Validation:
        """Code and decode every recording, in float32, and score the results.

        Args:
            model: in evaluation mode.
        """
        device = next(model.parameters()).device
        mel = self._mel.to(device)
        sizes = model.config.quantizer.codebook_sizes
        counts = torch.zeros(sum(sizes), dtype=torch.long)
        rows: dict[str, list[float]] = {"mel": []}
        failed = {}
        for metric in self._metrics:
            rows[metric.name] = []
            failed[f"{metric.name}_failed"] = 0
        shown = []
        for name, original in self.recordings:
            waveform = torch.from_numpy(original)[None].to(device)
            indices = model.encode(waveform)
            counts += code_counts(entry_numbers(indices, sizes), len(counts)).cpu()
            decoded = model.decode(indices)[:, : waveform.shape[1]]
            rows["mel"].append(mel(decoded, waveform)["mel"].item())
            result = decoded[0].clamp(-1, 1).cpu().numpy()
            if len(shown) < examples:
                shown.append(Example(name, original, result))
            trial = Trial(original, result, self._sample_rate)
            for metric in self._metrics:
                try:
                    rows[metric.name].append(metric.score(trial))
                except UnscorableError:
                    failed[f"{metric.name}_failed"] += 1
        means = {name: float(np.mean(values)) for name, values in rows.items() if values}
        of_each = counts.split(sizes)
        means["utilisation"] = float(np.mean([utilisation(c).item() for c in of_each]))
        means["perplexity"] = float(np.mean([perplexity(c).item() for c in of_each]))
        return Validation({**means, **failed}, shown)


def spectrogram_image(waveform: Tensor) -> Tensor:
    """(samples,) -> (1, bins, frames) grey image, 0 to 1 over 80 dB, low frequencies below."""
    window = torch.hann_window(1024)
    magnitude = torch.stft(waveform, 1024, 256, window=window, return_complex=True).abs()
    decibels = 20 * (magnitude.clamp(min=1e-5) / magnitude.max().clamp(min=1e-5)).log10()
    return (1 + decibels.clamp(min=-80) / 80).flip(0)[None]


def _folder(source: Path) -> list[tuple[str, str | None]]:
    paths = (p for p in source.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
    return [(str(path), None) for path in sorted(paths)]


def _manifest(source: Path) -> list[tuple[str, str | None]]:
    return [(row.path, row.shard) for row in load_manifest(source)]

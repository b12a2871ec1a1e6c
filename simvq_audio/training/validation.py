"""Scores of a model in training, on a fixed set of recordings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from simvq_audio.audio import AUDIO_SUFFIXES
from simvq_audio.errors import AudioError, ConfigError, os_error_text
from simvq_audio.evaluation.metric import Metric, UnscorableError
from simvq_audio.evaluation.metrics.neural import DistillMos, SpeakerSimilarity
from simvq_audio.evaluation.metrics.perceptual import Estoi, PesqWb, Stoi
from simvq_audio.evaluation.metrics.pitch import GrossPitchError, VoicedKept
from simvq_audio.evaluation.recordings import half_of, read_halves
from simvq_audio.evaluation.trial import Trial
from simvq_audio.folders import find_files
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.usage import code_counts, entry_numbers, perplexity, utilisation
from simvq_audio.training.config import ValidationConfig
from simvq_audio.training.losses import LossConfig, MelConfig, SpectralLosses
from simvq_audio.training.manifest import load_manifest
from simvq_audio.training.recordings import RecordingFiles, read_mono

_METRICS: tuple[type[Metric], ...] = (PesqWb, Stoi, Estoi)
# Neither these nor a network in them is part of a loss.
_JUDGES: tuple[type[Metric], ...] = (DistillMos, SpeakerSimilarity, GrossPitchError, VoicedKept)
# STOI needs 30 frames of speech.
_MIN_SECONDS = 1.0


class Example(NamedTuple):
    """A recording and its reconstruction, both (samples,) float32 at the model's rate."""

    name: str
    original: np.ndarray
    decoded: np.ndarray


@dataclass(frozen=True)
class Validation:
    """Scores of one model.

    Attributes:
        scores: means over recordings by name: "mel" (nepers), "pesq_wb", "stoi", "estoi",
            "utilisation" (0 to 1), "perplexity", and "pesq_wb_failed", "stoi_failed" and
            "estoi_failed", the numbers of recordings without such a score (for instance, PESQ found
            no speech), which are not in the mean. If judges choose, also their scores and
            "judges" (``judgement``).
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


def judgement(scores: Mapping[str, float]) -> float:
    """One number from 0 to 1, in equal parts of naturalness, voice and pitch.

    It is the mean of (DistillMOS - 1) / 4, speaker similarity, the share of voiced frames without
    gross pitch error, and the share of voiced frames kept. A missing score counts as 0:
    it means that there was no pitch or speech in the decoded recordings.

    Args:
        scores: by name of the metric, pitch errors and voiced frames in percent.
    """
    return float(
        np.mean(
            [
                (scores.get("distillmos", 1) - 1) / 4,
                scores.get("speaker_similarity", 0),
                1 - scores.get("gross_pitch_error", 100) / 100,
                scores.get("voiced_kept", 0) / 100,
            ]
        )
    )


class ValidationSet:
    """The recordings, resampled and cut, held in memory.

    Args:
        source: a folder (every audio file below it) or a manifest (.jsonl).
        config: which recordings, how many, how long, and whether judges choose.
        sample_rate: the model's, in Hz.
        metrics: scores besides the mel distance.

    Raises:
        ConfigError: there are no recordings of at least a second, or the speakers of a half are
            not known.
        AudioError: a recording or a folder cannot be read.
        MissingExtraError: a package of a metric is not installed.
    """

    def __init__(
        self,
        source: Path,
        config: ValidationConfig,
        sample_rate: int,
        metrics: tuple[type[Metric], ...] = _METRICS,
    ) -> None:
        self._judged = config.best_by == "judges"
        self._metrics = [metric() for metric in metrics + _JUDGES * self._judged]
        self._sample_rate = sample_rate
        self._limit = round(config.max_seconds * sample_rate)
        self._mel = SpectralLosses(LossConfig(), MelConfig(), sample_rate)
        listed = (_folder if source.is_dir() else _manifest)(source, config.half)
        files = RecordingFiles(shard for _, shard in listed)
        shortest = round(min(_MIN_SECONDS, config.max_seconds) * sample_rate)
        self.recordings: list[tuple[str, np.ndarray]] = []
        count = min(config.recordings, len(listed))
        index = 0
        for number in range(count):
            # Evenly over the set; one that is too short is replaced by the next.
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
        shown: list[Example] = []
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
        if self._judged:
            means["judges"] = judgement(means)
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


def _folder(source: Path, half: str) -> list[tuple[str, str | None]]:
    paths, errors = find_files(source, AUDIO_SUFFIXES)
    if errors:
        raise AudioError(os_error_text(errors[0]))
    paths.sort()
    if half != "all":
        halves = read_halves(source)
        paths = [p for p in paths if halves.get(p.relative_to(source).as_posix()) == half]
    return [(str(path), None) for path in paths]


def _manifest(source: Path, half: str) -> list[tuple[str, str | None]]:
    return [
        (row.path, row.shard)
        for row in load_manifest(source)
        if half == "all" or (row.speaker is not None and half_of(row.speaker) == half)
    ]

"""What an autoencoder of the study is worth on recordings that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from simvq_audio.evaluation.metric import UnscorableError
from simvq_audio.evaluation.metrics.perceptual import Estoi, PesqWb, Stoi
from simvq_audio.evaluation.trial import Trial
from simvq_audio.model.usage import code_counts
from simvq_audio.training.config import ValidationConfig
from simvq_audio.training.losses import SpectralLossConfig, SpectralLosses
from simvq_audio.training.validation import ValidationSet
from study.bottleneck import Bottleneck, Unquantized
from study.session import Networks, limit, relative_error
from study.setting import Setting
from study.usage import Usage, usage

_ALL = 1_000_000


@dataclass(frozen=True)
class Scores:
    """Means over recordings.

    Attributes:
        mel: distance of log-mel magnitudes over six scales, in nepers, within the bandwidth.
        pesq_wb, stoi, estoi: at 16 kHz.
        pesq_failed: recordings that PESQ cannot score; they are not in its mean.
        recordings: how many were scored.
        error: squared quantisation error over the latents' variance, over all recordings.
        usage: of the codebook, over all recordings.
    """

    mel: float
    pesq_wb: float
    stoi: float
    estoi: float
    pesq_failed: int
    recordings: int
    error: float
    usage: Usage


def read_recordings(folders: Sequence[Path], setting: Setting) -> list[np.ndarray]:
    """Every recording below the folders, mono at the setting's rate and cut to its length.

    Raises:
        ConfigError: a folder holds none of at least a second.
        AudioError: one cannot be read.
    """
    config = ValidationConfig(recordings=_ALL, max_seconds=setting.max_seconds)
    return [
        samples
        for folder in folders
        for _, samples in ValidationSet(folder, config, setting.sample_rate).recordings
    ]


@torch.no_grad()
def score_model(
    networks: Networks,
    bottleneck: Bottleneck,
    recordings: Sequence[np.ndarray],
    setting: Setting,
    device: torch.device,
) -> Scores:
    """Code all recordings; decode and score some of them, evenly spaced."""
    networks.eval()
    bottleneck.eval()
    mel = SpectralLosses(SpectralLossConfig(), setting.sample_rate).to(device)
    count = min(setting.scored_recordings, len(recordings))
    scored = {number * len(recordings) // count for number in range(count)}
    counts = torch.zeros(bottleneck.codebook_size, dtype=torch.long)
    errors: list[float] = []
    pesq, intelligibility = PesqWb(), [Stoi(), Estoi()]
    rows: dict[str, list[float]] = {"mel": [], "pesq_wb": [], "stoi": [], "estoi": []}
    for number, samples in enumerate(recordings):
        waveform = limit(torch.from_numpy(samples)[None].to(device), setting)
        latent = networks.encoder(waveform)
        entries = latent
        if not isinstance(bottleneck, Unquantized):
            indices = bottleneck.encode(latent)
            counts += code_counts(indices, len(counts)).cpu()
            entries = bottleneck.decode(indices)
        errors.append(relative_error(latent, entries).item())
        if number not in scored:
            continue
        decoded = limit(networks.decoder(entries)[:, : waveform.shape[1]], setting)
        rows["mel"].append(mel(decoded, waveform)["mel"].item())
        original, result = (x[0].clamp(-1, 1).cpu().numpy() for x in (waveform, decoded))
        trial = Trial(original, result, setting.sample_rate)
        for metric in intelligibility:
            rows[metric.name].append(metric.score(trial))
        with suppress(UnscorableError):
            rows[pesq.name].append(pesq.score(trial))
    means = {name: float(np.mean(values)) for name, values in rows.items()}
    return Scores(
        **means,
        pesq_failed=count - len(rows["pesq_wb"]),
        recordings=count,
        error=float(np.mean(errors)),
        usage=usage(counts),
    )

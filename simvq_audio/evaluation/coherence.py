"""Coherence of a decoder's phases from frame to frame, and the level lost without it.

An inverse STFT head predicts each frame's phase independently. If overlapping frames do not match,
they cancel in part, and the waveform is quieter than the head's magnitudes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simvq_audio.errors import ConfigError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.frames import FramedStft

DEFAULT_EDGES = (80.0, 140.0, 250.0, 500.0, 1_000.0, 2_000.0, 4_000.0)
"""Hz; bands lie between neighbours."""


@dataclass(frozen=True)
class BandCoherence:
    """One band, over all recordings.

    Attributes:
        low, high: edges in Hz.
        asked: level of the head's spectra against the original's, dB.
        kept: level of the decoded waveform's spectra against the original's, dB.
        lost: asked - kept: the loss in the overlap-add, dB.
        phase_advance: agreement of the head's phase advance from frame to frame with the
            original's: mean cosine of the difference, weighted by the original's energy; 1 is
            equal, 0 random.
    """

    low: float
    high: float
    asked: float
    kept: float
    phase_advance: float

    @property
    def lost(self) -> float:
        return self.asked - self.kept


@torch.no_grad()
def band_coherence(
    model: Autoencoder,
    recordings: Iterable[np.ndarray],
    edges: Sequence[float] = DEFAULT_EDGES,
) -> tuple[BandCoherence, ...]:
    """Code and decode recordings, and compare spectra band by band.

    Args:
        model: with an inverse STFT head, in evaluation mode.
        recordings: (samples,) float32 each, at the model's rate.
        edges: of the bands in Hz, rising, up to half the rate.

    Raises:
        ConfigError: a band has no bin, or the recordings are silent.
    """
    decoder: Any = model.decoder
    istft = decoder.head.istft
    device = next(model.parameters()).device
    spectra = FramedStft(istft.n_fft, istft.hop_length).to(device)
    width = model.config.sample_rate / istft.n_fft
    bins = [round(edge / width) for edge in edges]
    if sorted(set(bins)) != bins or bins[-1] > istft.n_fft // 2 + 1:
        raise ConfigError(
            f"edges must rise by a bin ({width:.1f} Hz) or more, and end at half the sample rate"
        )
    asked_of: list[Tensor] = []
    hook = istft.register_forward_pre_hook(lambda _, given: asked_of.append(given[0][0]))
    # Energies of original, head and waveform, then cosine and its weight.
    sums = torch.zeros(5, istft.n_fft // 2 + 1, dtype=torch.double, device=device)
    try:
        for recording in recordings:
            waveform = torch.from_numpy(recording)[None].to(device)
            asked_of.clear()
            decoded = model.decode(model.encode(waveform))
            asked = torch.cat(asked_of)
            original = spectra(waveform)[0]
            kept = spectra(decoded)[0][: len(original)]
            asked = asked[: len(original)]
            for row, of in zip(sums, (original, asked, kept)):
                row += of.abs().square().sum(0)
            steps = [of[1:] * of[:-1].conj() for of in (original, asked)]
            weight = steps[0].abs()
            sums[3] += (weight * torch.cos(steps[1].angle() - steps[0].angle())).sum(0)
            sums[4] += weight.sum(0)
    finally:
        hook.remove()
    if not sums[0].any():
        raise ConfigError("the recordings are silent, or there are none")
    found = []
    for number, (first, last) in enumerate(pairwise(bins)):
        original, asked, kept, cosine, weight = sums[:, first:last].sum(1).tolist()
        found.append(
            BandCoherence(
                edges[number],
                edges[number + 1],
                _decibels(asked, original),
                _decibels(kept, original),
                cosine / max(weight, 1e-30),
            )
        )
    return tuple(found)


def _decibels(power: float, reference: float) -> float:
    return 10 * np.log10(max(power, 1e-30) / max(reference, 1e-30))

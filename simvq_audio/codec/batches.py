"""Coding of several short recordings in one pass of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch

from simvq_audio.codec.streams import inference, inner_shape
from simvq_audio.codec.ties import TieBreaker
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.frames import frame_count

_T = TypeVar("_T")


def in_groups(
    sizes: Sequence[tuple[float, int]],
    limit: float,
    alone: Callable[[int], _T],
    together: Callable[[list[int]], Iterable[_T]],
) -> list[_T]:
    """Code recordings in groups of similar length, so that little is padded.

    Args:
        sizes: seconds and channels of each recording.
        limit: seconds of a group, over all channels and with padding. A recording above the limit
            is a group alone.
        alone: codes one recording, given its index.
        together: codes a group, given their indices.

    Returns:
        what ``alone`` and ``together`` return for each recording, in the order of ``sizes``.
    """
    results: dict[int, _T] = {}
    for group in _grouped(sizes, limit):
        made = [alone(group[0])] if len(group) == 1 else together(group)
        results.update(zip(group, made))
    return [results[i] for i in range(len(sizes))]


def _grouped(sizes: Sequence[tuple[float, int]], limit: float) -> Iterator[list[int]]:
    group: list[int] = []
    rows = 0
    for index in sorted(range(len(sizes)), key=lambda i: sizes[i][0]):
        seconds, channels = sizes[index]
        if group and (rows + channels) * seconds > limit:
            yield group
            group, rows = [], 0
        group.append(index)
        rows += channels
    if group:
        yield group


def encode_padded(
    model: Autoencoder, waveforms: Sequence[np.ndarray], ties: TieBreaker
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Latents and indices of mono waveforms at the model's rate, in one forward pass."""
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    padded = torch.zeros(len(waveforms), int(lengths.max()))
    for row, waveform in zip(padded, waveforms):
        row[: len(waveform)] = torch.from_numpy(waveform)
    device = next(model.parameters()).device
    with inference():
        placed = padded.to(device)
        latent = model.encode_latent(placed, lengths.to(device))
        windows = [row[:length] for row, length in zip(placed, lengths.tolist())]
        indices = ties.encode(latent, windows)
    frames = [frame_count(length, model.config.hop_length) for length in lengths.tolist()]
    latents, codes = latent.float().cpu().numpy(), indices.int().cpu().numpy()
    return (
        [row[..., :count] for row, count in zip(latents, frames)],
        [row[..., :count] for row, count in zip(codes, frames)],
    )


def decode_padded(model: Autoencoder, rows: Sequence[np.ndarray]) -> np.ndarray:
    """(rows, samples) of several rows of indices, in one forward pass."""
    frames = torch.tensor([row.shape[-1] for row in rows])
    inner = inner_shape(model.config.quantizer.codebook_sizes)
    padded = torch.zeros(len(rows), *inner, int(frames.max()), dtype=torch.long)
    for target, row in zip(padded, rows):
        target[..., : row.shape[-1]] = torch.tensor(row)
    device = next(model.parameters()).device
    with inference():
        audio = model.decode(padded.to(device), frames.to(device))
    return audio.float().cpu().numpy()

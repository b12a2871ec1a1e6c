"""Waveforms checked, and cut or gathered into what one forward pass takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from torch import Tensor

from simvq_audio.errors import AudioError


def as_array(waveform: Tensor | np.ndarray) -> np.ndarray:
    """(channels, samples) float32, checked."""
    if isinstance(waveform, Tensor):
        waveform = waveform.detach().cpu().numpy()
    array = np.asarray(waveform)
    if array.dtype.kind != "f":
        raise AudioError(
            f"the waveform must be floating point with full scale 1, not {array.dtype}"
        )
    array = array.astype(np.float32, copy=False)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2:
        raise AudioError(
            f"the waveform must be (samples,) or (channels, samples), not {array.shape}"
        )
    if not np.isfinite(array).all():
        channel, sample = np.argwhere(~np.isfinite(array))[0]
        raise AudioError(f"the waveform holds {array[channel, sample]} at sample {sample}")
    return array


def append_indices(rows: list[bytearray], indices: np.ndarray) -> None:
    """Append (channels, frames) int32 indices to a buffer a channel."""
    for row, added in zip(rows, indices):
        row += added.tobytes()


def regroup(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Cut a stream of (samples, channels) arrays anew, into pieces of ``size`` samples."""
    pending: list[np.ndarray] = []
    held = 0
    for block in blocks:
        while held + len(block) >= size:
            cut = size - held
            yield np.concatenate([*pending, block[:cut]])
            block, pending, held = block[cut:], [], 0
        if len(block):
            pending.append(block)
            held += len(block)
    if held:
        yield np.concatenate(pending)


def grouped(
    order: list[int], seconds: list[float], channels: list[int], limit: float
) -> Iterator[list[int]]:
    """Cut items, sorted by length, into groups of at most ``limit`` seconds when padded."""
    group: list[int] = []
    rows = 0
    for index in order:
        if group and (rows + channels[index]) * seconds[index] > limit:
            yield group
            group, rows = [], 0
        group.append(index)
        rows += channels[index]
    if group:
        yield group

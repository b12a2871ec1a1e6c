"""Probabilities of lost codes in recordings of any length, window by window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from simvq_audio.prior.masked.network import MaskedPrior

# Frames in a pass of the network, the longest crop that it is trained on, and those at each end of
# a window that only serve as context. At 75 frames a second, 3.4 s and 0.4 s.
WINDOW = 256
MARGIN = 32
# Windows side by side in a pass.
_BATCH = 8


@dataclass(frozen=True)
class Filled:
    """What stands at the lost places, in the order of ``np.nonzero(lost)``.

    Attributes:
        codes: int64 (lost,), the most probable.
        latents: float32 (lost, dim), the mean of the codebook vectors, weighted by probability.
    """

    codes: np.ndarray
    latents: np.ndarray


def fill(
    prior: MaskedPrior,
    codebook: Tensor,
    codes: np.ndarray,
    lost: np.ndarray,
    entries: Tensor | None = None,
) -> Filled:
    """Predict lost codes, each from what is left on both sides of it.

    Args:
        codebook: (codes, dim) of the full codebook, on the network's device.
        codes: integers (rows, frames); any value where lost.
        lost: bool (rows, frames).
        entries: int64, the codes of the full codebook that may stand there; results are places in
            it. None: all.
    """
    found_codes = np.zeros(lost.shape, np.int64)
    found_latents = np.zeros((*lost.shape, codebook.shape[1]), np.float32)
    vectors = codebook if entries is None else codebook[entries]
    device = codebook.device
    for rows, starts, core in _batches(lost):
        length = core.shape[1]
        span = np.arange(length)
        given = torch.from_numpy(codes[rows[:, None], starts[:, None] + span].astype(np.int64))
        gone = torch.from_numpy(lost[rows[:, None], starts[:, None] + span])
        with torch.inference_mode():
            hidden = prior.hidden(given.to(device), gone.to(device))
            logits = prior.logits(hidden[torch.from_numpy(core).to(device)])
            logits = logits if entries is None else logits[:, entries]
            best = logits.argmax(1).cpu().numpy()
            mean = (logits.softmax(1) @ vectors).cpu().numpy()
        batch, place = np.nonzero(core)
        found_codes[rows[batch], starts[batch] + place] = best
        found_latents[rows[batch], starts[batch] + place] = mean
    return Filled(found_codes[lost], found_latents[lost])


def _batches(lost: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Windows of one length: rows, first frames, and which of their frames are wanted.

    A window's core, without the margins, is what it is run for; the cores cover every recording
    once.
    """
    frames = lost.shape[1]
    core = WINDOW - 2 * MARGIN
    windows = []
    for row in range(len(lost)):
        for first in range(0, frames, core):
            wanted = lost[row, first : first + core]
            if wanted.any():
                start = max(0, first - MARGIN)
                end = min(frames, first + core + MARGIN)
                mask = np.zeros(end - start, bool)
                mask[first - start : first - start + len(wanted)] = wanted
                windows.append((row, start, mask))
    windows.sort(key=lambda window: len(window[2]))
    while windows:
        length = len(windows[0][2])
        group = [window for window in windows[:_BATCH] if len(window[2]) == length]
        windows = windows[len(group) :]
        rows, starts, masks = zip(*group)
        yield np.array(rows), np.array(starts), np.stack(masks)

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
# Gaps are filled from both ends inwards, a frame from each side in a pass; the last pass fills what
# is left of longer ones.
PASSES = 4
# Power of the probabilities that codebook vectors are weighted with. 1 gives the smallest squared
# error and the highest STOI, more sounds more natural: see docs/repair.md.
SHARPNESS = 1.5


@dataclass(frozen=True)
class Filled:
    """What stands at the lost places, in the order of ``np.nonzero(lost)``.

    Attributes:
        codes: int64 (lost,), the most probable.
        latents: float32 (lost, dim), the mean of the codebook vectors, weighted by their
            probabilities to the power ``SHARPNESS``.
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
    """Predict lost codes from what is left on both sides, and from those predicted before.

    Args:
        codebook: (codes, dim) of the full codebook, on the network's device.
        codes: integers (rows, frames); any value where lost.
        lost: bool (rows, frames).
        entries: int64, the codes of the full codebook that may stand there; results are places in
            it. None: all.
    """
    known, left = np.where(lost, 0, codes).astype(np.int64), lost.copy()
    found_codes = np.zeros(lost.shape, np.int64)
    found_latents = np.zeros((*lost.shape, codebook.shape[1]), np.float32)
    for number in range(PASSES):
        wanted = _next_to_known(left) if number + 1 < PASSES else left.copy()
        for rows, starts, core in _batches(wanted):
            frames = starts[:, np.newaxis] + np.arange(core.shape[1])
            part = rows[:, np.newaxis], frames
            best, mean = _predict(prior, codebook, known[part], left[part], core, entries)
            batch, place = np.nonzero(core)
            at = rows[batch], starts[batch] + place
            found_codes[at], found_latents[at] = best, mean
        places = found_codes if entries is None else entries.cpu().numpy()[found_codes]
        known[wanted] = places[wanted]
        left &= ~wanted
        if not left.any():
            break
    return Filled(found_codes[lost], found_latents[lost])


def _predict(
    prior: MaskedPrior,
    codebook: Tensor,
    codes: np.ndarray,
    lost: np.ndarray,
    wanted: np.ndarray,
    entries: Tensor | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Most probable codes and weighted means at the wanted places of windows."""
    device = codebook.device
    with torch.inference_mode():
        given, gone = (torch.from_numpy(array).to(device) for array in (codes, lost))
        hidden = prior.hidden(given, gone)
        logits = prior.logits(hidden[torch.from_numpy(wanted).to(device)])
        vectors = codebook
        if entries is not None:
            logits, vectors = logits[:, entries], codebook[entries]
        mean = (SHARPNESS * logits).softmax(1) @ vectors
        return logits.argmax(1).cpu().numpy(), mean.cpu().numpy()


def _next_to_known(lost: np.ndarray) -> np.ndarray:
    """The lost frames with a neighbour that is not; all of a row in which none is left."""
    padded = np.pad(~lost, ((0, 0), (1, 1)))
    edges = lost & (padded[:, :-2] | padded[:, 2:])
    nothing = np.all(lost, axis=1)[:, np.newaxis]
    return edges | nothing


def _batches(wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Windows of one length: rows, first frames, and which of their frames are
    wanted.

    A window's core, without the margins, is what it is run for; the cores cover every recording
    once.
    """
    frames = wanted.shape[1]
    core = WINDOW - 2 * MARGIN
    windows = []
    for row in range(len(wanted)):
        for first in range(0, frames, core):
            inside = wanted[row, first : first + core]
            if inside.any():
                start = max(0, first - MARGIN)
                end = min(frames, first + core + MARGIN)
                mask = np.zeros(end - start, bool)
                mask[first - start : first - start + len(inside)] = inside
                windows.append((row, start, mask))
    windows.sort(key=lambda window: len(window[2]))
    while windows:
        length = len(windows[0][2])
        group = [window for window in windows[:_BATCH] if len(window[2]) == length]
        windows = windows[len(group) :]
        rows, starts, masks = zip(*group)
        yield np.array(rows), np.array(starts), np.stack(masks)

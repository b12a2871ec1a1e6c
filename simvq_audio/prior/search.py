"""Codes that cost fewer bits: rate-distortion search over the sequence, with a beam.

The decoder knows nothing of it: an encoder may choose any code near a latent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simvq_audio.prior.causal import CausalPrior
from simvq_audio.prior.integers import TOTAL_FREQUENCY

# Sequences kept for each block, and the nearest codes tried for each frame. With 32 codes a frame
# no rate below half that of the nearest codes can be reached.
BEAM = 4
CANDIDATES = 128
# Blocks searched side by side.
_BATCH = 16


def cheaper_codes(
    latents: Sequence[np.ndarray],
    codebook: np.ndarray,
    prior: CausalPrior,
    weight: float,
    beam: int = BEAM,
    candidates: int = CANDIDATES,
) -> list[np.ndarray]:
    """Codes for blocks, each of which the prior codes without a past.

    For each block, the sum over frames of squared distance + ``weight`` x bits is made small.

    Args:
        latents: a block each, (frames, dim) float32, before quantisation.
        codebook: (codes, dim) float32.
        prior: predicts the codes.
        weight: squared distance that a bit is worth; 0 gives the nearest codes.
        beam: sequences kept for each block.
        candidates: nearest codes tried for each frame.

    Returns:
        int64 (frames,) for each block.
    """
    order = sorted(range(len(latents)), key=lambda i: -len(latents[i]))
    found: list[np.ndarray] = [np.empty(0, np.int64)] * len(latents)
    for first in range(0, len(order), _BATCH):
        batch = order[first : first + _BATCH]
        search = _Search(prior, weight, beam, len(batch))
        for i, codes in zip(batch, search.run([latents[i] for i in batch], codebook, candidates)):
            found[i] = codes
    return found


class _Search:
    def __init__(self, prior: CausalPrior, weight: float, beam: int, blocks: int) -> None:
        self._prior = prior
        self._weight = weight
        self._beam = beam
        self._state = prior.start(blocks * beam)
        # All sequences of a block begin alike, so one alone counts.
        self._score = np.full((blocks, beam), np.inf)
        self._score[:, 0] = 0.0

    def run(
        self, latents: Sequence[np.ndarray], codebook: np.ndarray, candidates: int
    ) -> list[np.ndarray]:
        """The codes of blocks, the longest of which stands first."""
        near = [_nearest(block, codebook, candidates) for block in latents]
        history: list[tuple[np.ndarray, np.ndarray]] = []
        left = len(latents)
        results: list[np.ndarray] = [np.empty(0, np.int64)] * len(latents)
        for frame in range(len(latents[0]) + 1):
            while left and len(latents[left - 1]) == frame:
                left -= 1
                results[left] = _trace(history, left, int(self._score[left].argmin()))
            if left:
                codes = np.stack([near[i][0][frame] for i in range(left)])
                distances = np.stack([near[i][1][frame] for i in range(left)])
                history.append(self._step(codes, distances))
        return results

    def _step(self, codes: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Append one of (blocks, candidates) to each sequence: (parents, codes), (blocks, beam)."""
        (blocks, tried), beam = codes.shape, self._beam
        score = self._score[:blocks, :, np.newaxis] + distances[:, np.newaxis]
        score += self._weight * self._bits(codes)
        score = score.reshape(blocks, beam * tried)
        best = np.argpartition(score, beam - 1, axis=1)[:, :beam]
        self._score[:blocks] = np.take_along_axis(score, best, axis=1)
        parents = best // tried
        chosen = np.take_along_axis(codes, best % tried, axis=1)
        self._state.reorder((np.arange(blocks)[:, np.newaxis] * beam + parents).reshape(-1))
        self._state.push(chosen.reshape(-1))
        return parents, chosen

    def _bits(self, codes: np.ndarray) -> np.ndarray:
        """What each candidate costs each sequence of its block, (blocks, beam, candidates)."""
        (blocks, tried), rows = codes.shape, codes.shape[0] * self._beam
        cluster, member = self._prior.locate(np.repeat(codes, self._beam, axis=0))
        tables = self._state.clusters(rows)
        counts = np.take_along_axis(tables, cluster, axis=1).astype(np.float64)
        # Each row and cluster once: near codes share clusters.
        pairs = np.arange(rows)[:, np.newaxis] * len(self._prior.tree) + cluster
        unique, inverse = np.unique(pairs, return_inverse=True)
        row, wanted = np.divmod(unique, len(self._prior.tree))
        members = self._state.members(wanted, row)
        counts *= members[inverse.reshape(rows, tried), member]
        bits = 2 * np.log2(TOTAL_FREQUENCY) - np.log2(counts)
        return bits.reshape(blocks, self._beam, tried)


def _nearest(
    latents: np.ndarray, codebook: np.ndarray, candidates: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest codes and their squared distances beyond that of the nearest, (frames, n)."""
    norms = np.square(codebook).sum(1)
    distances = norms - 2 * (latents @ codebook.T)
    near = np.argpartition(distances, candidates, axis=1)[:, :candidates]
    far = np.take_along_axis(distances, near, axis=1)
    return near, far - far.min(axis=1, keepdims=True)


def _trace(history: list[tuple[np.ndarray, np.ndarray]], block: int, sequence: int) -> np.ndarray:
    codes = np.empty(len(history), np.int64)
    for frame in range(len(history) - 1, -1, -1):
        parents, chosen = history[frame]
        codes[frame] = chosen[block, sequence]
        sequence = int(parents[block, sequence])
    return codes

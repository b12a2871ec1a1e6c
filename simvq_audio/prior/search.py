"""Codes that cost fewer bits: rate-distortion search over the sequence, with a beam.

The decoder is not affected: an encoder may choose any code near a latent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simvq_audio.prior.causal import CausalPrior

# Sequences kept per block, and clusters whose codes are tried per frame.
BEAM = 6
CLUSTERS = 12
# Blocks searched side by side, limited by memory, and frames whose distances are computed together.
_LANES = 64
_FRAMES = 16


class CheaperCodes:
    """Finds codes for blocks, each of which the prior codes without a past.

    The search minimises the sum over frames of squared distance + weight x bits for each block.
    Every code can be chosen: in each frame, all clusters that could contain the cheapest are
        searched.

    Args:
        codebook: (codes, dim) float32.
        prior: predicts the codes.
        beam: sequences kept for each block.
        clusters: of the prior's tree, tried for each frame; together they have at least as many
            codes as there are sequences.
    """

    def __init__(
        self,
        codebook: np.ndarray,
        prior: CausalPrior,
        beam: int = BEAM,
        clusters: int = CLUSTERS,
    ) -> None:
        self._prior = prior
        self._beam = beam
        self._clusters = clusters
        # In the order of the tree, so that the codes of a cluster are contiguous.
        entries = codebook[prior.tree.reshape(-1)]
        self._directions = np.ascontiguousarray(-2 * entries.T)
        self._norms = np.square(entries).sum(1)

    def find(self, latents: Sequence[np.ndarray], weights: Sequence[float]) -> list[np.ndarray]:
        """Search every block under its weight.

        Args:
            latents: of each block, (frames, dim) float32, before quantisation. Repeating a block
                with other weights costs little.
            weights: squared distance that a bit is worth, for each block; 0 gives the nearest
                codes.

        Returns:
            int64 (frames,) for each block.
        """
        order = sorted(range(len(latents)), key=lambda i: -len(latents[i]))
        found: list[np.ndarray] = [np.empty(0, np.int64)] * len(latents)
        for first in range(0, len(order), _LANES):
            lanes = order[first : first + _LANES]
            chosen = [latents[i] for i in lanes]
            for i, codes in zip(lanes, self._run(chosen, np.array([weights[i] for i in lanes]))):
                found[i] = codes
        return found

    def _run(self, latents: Sequence[np.ndarray], weights: np.ndarray) -> list[np.ndarray]:
        """The codes of blocks, sorted by length, longest first."""
        tree, beam = self._prior.tree, self._beam
        state = self._prior.start(len(latents) * beam)
        # All sequences of a block start out equal, so only one is used.
        score = np.full((len(latents), beam), np.inf, np.float32)
        score[:, 0] = 0.0
        recent = np.zeros(score.shape, np.int64)
        weight = weights.astype(np.float32)[:, np.newaxis, np.newaxis]
        history: list[tuple[np.ndarray, np.ndarray]] = []
        results: list[np.ndarray] = [np.empty(0, np.int64)] * len(latents)
        left = len(latents)
        for frame in range(len(latents[0]) + 1):
            while left and len(latents[left - 1]) == frame:
                left -= 1
                results[left] = _trace(history, left, int(score[left].argmin()))
            if not left:
                break
            if frame % _FRAMES == 0:
                blocks, distances, nearest = self._distances(latents[:left], frame)
            at, rows = frame % _FRAMES, np.arange(left)[:, np.newaxis]
            # The cost of a cluster for each sequence, and the least cost of a code in it,
            # but for its own bits.
            least = weight[:left] * state.cluster_bits(left * beam).reshape(left, beam, -1)
            least += score[:left, :, np.newaxis]
            bound = least + nearest[blocks[:left], at, np.newaxis]
            tried = _smallest(bound.reshape(left, -1), self._clusters)
            parent, cluster = np.divmod(tried, len(tree))
            total = state.member_bits(cluster.reshape(-1), (rows * beam + parent).reshape(-1))
            total = total.reshape(*tried.shape, -1)
            total *= weight[:left]
            total += least.reshape(left, -1)[rows, tried][..., np.newaxis]
            total += distances[blocks[:left, np.newaxis], at, cluster]
            total = total.reshape(left, -1)
            # More than are kept, since some will be merged.
            best = _smallest(total, 3 * beam)
            cost = total[rows, best]
            pair, member = np.divmod(best, tree.shape[1])
            parent, codes = parent[rows, pair], tree[cluster[rows, pair], member]
            last = recent[:left][rows, parent] % tree.size * tree.size + codes
            kept = _best_distinct(cost, last, beam)
            parent, codes, score[:left], recent[:left] = (
                part[rows, kept] for part in (parent, codes, cost, last)
            )
            # Sums over a block would exceed the precision of float32.
            score[:left] -= score[:left].min(axis=1, keepdims=True)
            state.reorder((rows * beam + parent).reshape(-1))
            state.push(codes.reshape(-1))
            history.append((parent, codes))
        return results

    def _distances(
        self, latents: Sequence[np.ndarray], frame: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Squared distances beyond that of the nearest code, for some frames from ``frame`` on.

        Returns:
            for each item of ``latents``, its block among those that differ; (blocks, frames,
            clusters, members); and the smallest of each cluster, (blocks, frames, clusters).
        """
        places: dict[int, int] = {}
        different: list[np.ndarray] = []
        for block in latents:
            if places.setdefault(id(block), len(places)) == len(different):
                different.append(block[frame : frame + _FRAMES])
        padded = np.zeros((len(different), _FRAMES, len(self._directions)), np.float32)
        for row, block in zip(padded, different):
            row[: len(block)] = block
        distances = padded @ self._directions
        distances += self._norms
        distances -= distances.min(axis=2, keepdims=True)
        distances = distances.reshape(len(different), _FRAMES, *self._prior.tree.shape)
        blocks = np.array([places[id(block)] for block in latents])
        return blocks, distances, distances.min(axis=3)


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` smallest of each row."""
    return np.argpartition(values, min(count, values.shape[1]) - 1, axis=1)[:, :count]


def _best_distinct(cost: np.ndarray, last: np.ndarray, count: int) -> np.ndarray:
    """Choose sequences to keep; of those with equal ends only the best.

    Args:
        cost: (blocks, n); set to infinity for sequences that are merged into a better one.
        last: (blocks, n), equal for equal last codes.

    Returns:
        (blocks, count) indices.
    """
    rows = np.arange(len(cost))[:, np.newaxis]
    order = np.argsort(cost, axis=1)
    ends = last[rows, order]
    again = np.tril(ends[:, :, np.newaxis] == ends[:, np.newaxis], -1).any(axis=2)
    cost[rows, order] = np.where(again, np.inf, cost[rows, order])
    order = order[rows, np.argsort(again, axis=1, kind="stable")]
    return order[:, :count]


def _trace(history: list[tuple[np.ndarray, np.ndarray]], block: int, sequence: int) -> np.ndarray:
    codes = np.empty(len(history), np.int64)
    for frame in range(len(history) - 1, -1, -1):
        parents, chosen = history[frame]
        codes[frame] = chosen[block, sequence]
        sequence = int(parents[block, sequence])
    return codes

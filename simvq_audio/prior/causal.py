"""A causal network that predicts each code from those before it, evaluated in integers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from simvq_audio.errors import ModelError
from simvq_audio.prior.integers import Dense, MatMul, costs, frequencies

# The residual stream has 3 more fractional bits than the activations.
_STREAM_SHIFT = 3


class CausalPrior:
    """Dilated causal convolutions over code embeddings, and a tree of two levels on top.

    The codes are split into clusters of equal size; a code is predicted as its cluster, then as a
    member of that cluster. All arithmetic is exact, in integers, so every machine
    computes the same frequencies. An instance may be shared between threads.

    Args:
        tensors: those of the prior file, see ``simvq_audio/prior/storage.py``.
        dilations: one per residual layer.
        matmul: the matrix product, exact for integers up to 2**24.
        prior_id: 8 hexadecimal digits that name the prior in ``.codes`` files.

    Raises:
        ModelError: the tensors are inconsistent.
    """

    def __init__(
        self,
        tensors: Mapping[str, np.ndarray],
        dilations: tuple[int, ...],
        matmul: MatMul = np.matmul,
        prior_id: str = "00000000",
    ) -> None:
        self.id = prior_id

        def dense(name: str) -> Dense:
            parts = [tensors[f"{name}.{part}"] for part in ("weight", "bias", "shift")]
            return Dense(*parts)

        self._matmul = matmul
        self._embedding = tensors["embedding"].astype(np.float32)
        self._first = dense("first")
        self._layers = [(dense(f"layers.{i}"), step) for i, step in enumerate(dilations)]
        self._clusters = dense("clusters")
        self._query = dense("query")
        self._members = dense("members")
        self._exponentials = tensors["exponentials"].astype(np.int64)
        self._approximate = tensors["exponentials"].astype(np.float32)
        self.width = tensors["first.weight"].shape[0]
        self._taps = tensors["first.weight"].shape[1] // self._embedding.shape[1]
        # Codes of each cluster, (clusters, members), and the position of each code in that table.
        self.tree = tensors["tree"].astype(np.int64)
        self.codebook_size = self.tree.size
        codes = self.tree.reshape(-1)
        if not np.array_equal(np.sort(codes), np.arange(self.codebook_size)):
            raise ModelError("the tree of the prior does not hold every code once")
        self._place = np.empty_like(codes)
        self._place[codes] = np.arange(self.codebook_size)
        if len(self._embedding) != self.codebook_size + 1:
            raise ModelError("the prior has embeddings of another codebook")

    def intervals(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The interval of each code in the frequency tables predicted from its past.

        Args:
            codes: integers (blocks, frames); each block begins without a past.

        Returns:
            (starts, frequencies), int64 (blocks, frames, 2): for the cluster, then the member.
        """
        cluster, member = self.locate(codes)
        hidden = self._hidden(codes)
        tables = self._cluster_frequencies(hidden)
        clusters = _interval(tables, cluster)
        flat = hidden.reshape(-1, self.width)
        tables = self._member_frequencies(flat, cluster.reshape(-1))
        members = _interval(tables.reshape(*codes.shape, -1), member)
        starts, counts = np.stack([clusters, members], axis=-1)
        return starts, counts

    def start(self, blocks: int) -> CausalState:
        """Begin to decode ``blocks`` blocks side by side."""
        return CausalState(self, blocks)

    def locate(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(cluster, member) of each code."""
        place = self._place[codes]
        return place // self.tree.shape[1], place % self.tree.shape[1]

    def _hidden(self, codes: np.ndarray) -> np.ndarray:
        """(blocks, frames) codes -> (blocks, frames, width): hidden states."""
        blocks, frames = codes.shape
        previous = np.full((blocks, frames), self.codebook_size)
        previous[:, 1:] = codes[:, :-1]
        embedded = self._embedding[previous]
        taps = [_delayed(embedded, delay) for delay in range(self._taps)]
        stream = self._first(np.concatenate(taps, axis=2), self._matmul)
        for layer, dilation in self._layers:
            active = _activate(stream)
            both = np.concatenate([active, _delayed(active, dilation)], axis=2)
            stream += layer(both, self._matmul)
        return _activate(stream)

    def _cluster_frequencies(self, hidden: np.ndarray) -> np.ndarray:
        """(..., width) -> int64 (..., clusters)."""
        return frequencies(self._clusters(hidden, self._matmul), self._exponentials)

    def _member_frequencies(self, hidden: np.ndarray, cluster: np.ndarray) -> np.ndarray:
        """(n, width) and the cluster of each -> int64 (n, members)."""
        logits = self._members.select(cluster, self._member_query(hidden), self._matmul)
        return frequencies(logits, self._exponentials)

    def _member_query(self, hidden: np.ndarray) -> np.ndarray:
        query = self._query(hidden, self._matmul)
        return np.clip(query, -127, 127, out=query)


class CausalState:
    """The past of blocks that are coded side by side, frame by frame.

    To decode, for each frame: ``clusters``, then ``members`` of the clusters found, then ``push``.
    To search: ``cluster_bits``, ``member_bits``, ``reorder``, ``push``. Blocks at the end may
    finish first: each call handles as many as its argument has.
    """

    def __init__(self, prior: CausalPrior, blocks: int) -> None:
        self._prior = prior
        self._frame = 0
        taps, size = prior._taps, prior._embedding.shape[1]
        self._embedded = np.zeros((blocks, taps, size), np.float32)
        self._embedded[:, 0] = prior._embedding[prior.codebook_size]
        # A ring buffer for each layer, of its inputs of the last ``dilation`` frames.
        self._past = [
            np.zeros((dilation, blocks, prior.width), np.float32) for _, dilation in prior._layers
        ]
        self._both = np.empty((blocks, 2 * prior.width), np.float32)
        self._hidden = np.empty((blocks, prior.width), np.float32)
        # Row n: the row of each block's past n frames ago. None while rows have not been reordered.
        self._places: np.ndarray | None = None

    def clusters(self, blocks: int) -> np.ndarray:
        """Frequencies of the next code's cluster, int64 (blocks, clusters)."""
        return frequencies(self._cluster_logits(blocks), self._prior._exponentials)

    def members(self, cluster: np.ndarray) -> np.ndarray:
        """Frequencies of the members of each block's cluster, int64 (blocks, members)."""
        return self._prior._member_frequencies(self._hidden, cluster)

    def cluster_bits(self, blocks: int) -> np.ndarray:
        """Bits of each cluster, float32 (blocks, clusters), approximate."""
        return costs(self._cluster_logits(blocks), self._prior._approximate)

    def member_bits(self, cluster: np.ndarray, block: np.ndarray) -> np.ndarray:
        """Bits of the members of clusters, approximate, float32 (n, members).

        Args:
            cluster: (n,).
            block: (n,), whose past is used.
        """
        prior = self._prior
        query = prior._member_query(self._hidden)[block]
        return costs(prior._members.select(cluster, query, prior._matmul), prior._approximate)

    def reorder(self, blocks: np.ndarray) -> None:
        """Continue with the pasts of these blocks, which may be repeated."""
        self._embedded[: len(blocks)] = self._embedded[blocks]
        # The ring buffers stay as they are; only the row numbers change.
        if self._places is None:
            longest = max((len(ring) for ring in self._past), default=0)
            self._places = np.tile(np.arange(len(self._embedded)), (longest + 1, 1))
        self._places = np.concatenate([np.arange(len(blocks))[None], self._places[:-1, blocks]])

    def push(self, codes: np.ndarray) -> None:
        """Append a code for each block to its past."""
        embedded = self._embedded[: len(codes)]
        embedded[:, 1:] = embedded[:, :-1].copy()
        embedded[:, 0] = self._prior._embedding[codes]

    def _cluster_logits(self, blocks: int) -> np.ndarray:
        prior, width = self._prior, self._prior.width
        embedded = self._embedded[:blocks]
        stream = prior._first(embedded.reshape(blocks, -1), prior._matmul)
        both = self._both[:blocks]
        for (layer, dilation), ring in zip(prior._layers, self._past):
            seen = ring[self._frame % dilation]
            active = _activate(stream)
            both[:, :width] = active
            both[:, width:] = (
                seen[:blocks] if self._places is None else seen[self._places[dilation, :blocks]]
            )
            seen[:blocks] = active
            stream += layer(both, prior._matmul)
        self._hidden = _activate(stream)
        self._frame += 1
        return prior._clusters(self._hidden, prior._matmul)


def _activate(stream: np.ndarray) -> np.ndarray:
    """Rectified, rounded and clipped to 0 .. 255."""
    active = stream + 2 ** (_STREAM_SHIFT - 1)
    active *= 2.0**-_STREAM_SHIFT
    np.floor(active, out=active)
    return np.clip(active, 0, 255, out=active)


def _delayed(x: np.ndarray, frames: int) -> np.ndarray:
    """(blocks, frames, n) later by ``frames``, zeros before."""
    result = np.zeros_like(x)
    result[:, frames:] = x[:, : max(0, x.shape[1] - frames)]
    return result


def _interval(tables: np.ndarray, symbol: np.ndarray) -> np.ndarray:
    """Start and frequency of each symbol in its table, int64 (2, ...)."""
    ends = np.cumsum(tables, axis=-1)
    at = symbol[..., np.newaxis]
    count = np.take_along_axis(tables, at, axis=-1)[..., 0]
    return np.stack([np.take_along_axis(ends, at, axis=-1)[..., 0] - count, count])

"""A small random prior for tests, with tensors of every kind that a trained one has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

import simvq_audio.prior
from simvq_audio.prior import CausalPrior, load_prior, read_prior_header

DILATIONS = (1, 2, 4)
CODES_ID = "0123456789ab"


def random_tensors(seed: int = 0, clusters: int = 16, members: int = 32) -> dict[str, np.ndarray]:
    """Tensors of a prior over ``clusters * members`` codes."""
    rng = np.random.default_rng(seed)
    size, width, taps, query, codes = 12, 24, 3, 16, clusters * members

    def dense(name: str, shape: tuple[int, ...], shift: int) -> dict[str, np.ndarray]:
        return {
            f"{name}.weight": rng.integers(-127, 128, shape, np.int8),
            f"{name}.bias": rng.integers(-5000, 5000, shape[:-1], np.int32),
            f"{name}.shift": rng.integers(shift, shift + 3, shape[:-1], np.int8),
        }

    exponentials = np.round(2.0**16 * np.exp(-np.arange(355) / 32)).astype(np.int32)
    tensors = {
        "embedding": rng.integers(-127, 128, (codes + 1, size), np.int8),
        "tree": rng.permutation(codes).astype(np.uint16).reshape(clusters, members),
        "exponentials": np.maximum(exponentials, 1),
        **dense("first", (width, taps * size), 4),
        **dense("clusters", (clusters, width), 8),
        **dense("query", (query, width), 8),
        **dense("members", (clusters, members, query), 8),
    }
    for i in range(len(DILATIONS)):
        tensors |= dense(f"layers.{i}", (width, 2 * width), 5)
    return tensors


def sample(prior: CausalPrior, frames: int, seed: int = 0) -> np.ndarray:
    """Codes (frames,) drawn from the prior, which codes them in few bits."""
    rng = np.random.default_rng(seed)
    state = prior.start(1)
    codes = np.empty(frames, np.int64)

    def draw(table: np.ndarray) -> np.ndarray:
        return (np.cumsum(table, 1) <= rng.integers(0, 2**16)).sum(1)

    for frame in range(frames):
        cluster = draw(state.clusters(1))
        codes[frame] = prior.tree[cluster, draw(state.members(cluster))][0]
        state.push(codes[frame : frame + 1])
    return codes


@contextmanager
def only_prior(path: Path) -> Iterator[CausalPrior]:
    """Make the prior in this file the only one that there is."""
    found = [(path, read_prior_header(path))]
    with mock.patch.object(simvq_audio.prior, "_headers", lambda: found):
        yield load_prior(path)

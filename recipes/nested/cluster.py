"""Make nested codebooks of a model by k-means over its codebook, weighted by use.

    python recipes/prior/train.py codes TRAINING_FOLDER train.npz
    python recipes/nested/cluster.py train.npz simvq_audio/nested/compact-1.safetensors

The codes are clustered into 4096, the clusters into 2048 and so on, so that each codebook is nested
in the next larger one. A cluster is represented by its code that is nearest to the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from simvq_audio.codec import Codec
from simvq_audio.embedded import DEFAULT_MODEL
from simvq_audio.nested import NestedBook, save_books

SIZES = (4096, 2048, 1024, 512, 256)
ROUNDS = 20


def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances (len(a), len(b)), up to a constant for each row."""
    return np.square(b).sum(1) - 2 * a @ b.T


def kmeans(points: np.ndarray, use: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The cluster of each point; no cluster is empty."""
    chance = np.sqrt(use)
    centres = points[rng.choice(len(points), count, replace=False, p=chance / chance.sum())]
    for _ in range(ROUNDS):
        cluster = squared(points, centres).argmin(1)
        weight = np.bincount(cluster, use, minlength=count)
        if not weight.all():
            # An empty cluster gets the point with the largest error.
            error = use * np.square(points - centres[cluster]).sum(1)
            empty = np.flatnonzero(weight == 0)
            moved = np.argsort(-error)[: len(empty)]
            cluster[moved] = empty
            weight = np.bincount(cluster, use, minlength=count)
        sums = np.zeros(centres.shape)
        np.add.at(sums, cluster, points * use[:, np.newaxis])
        centres = (sums / weight[:, np.newaxis]).astype(np.float32)
    return cluster


def means(vectors: np.ndarray, use: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Mean of each cluster, weighted by use."""
    sums = np.zeros((cluster.max() + 1, vectors.shape[1]))
    np.add.at(sums, cluster, vectors * use[:, np.newaxis])
    return (sums / np.bincount(cluster, use)[:, np.newaxis]).astype(np.float32)


def medoids(vectors: np.ndarray, use: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """The code of each cluster that is nearest to all of it, weighted by use."""
    result = []
    for number in range(cluster.max() + 1):
        own = np.flatnonzero(cluster == number)
        # The constant of each row is weighted too, so it is added here.
        distances = squared(vectors[own], vectors[own]) + np.square(vectors[own]).sum(1)[:, None]
        result.append(own[(use[own] @ distances).argmin()])
    return np.array(result)


def nest(codebook: np.ndarray, use: np.ndarray, codes_id: str) -> list[NestedBook]:
    """Nested codebooks, the largest first."""
    rng = np.random.default_rng(0)
    chain = [np.arange(len(codebook))]  # the cluster of each code, finer ones first
    for size in SIZES:
        own = chain[-1]
        merged = kmeans(means(codebook, use, own), np.bincount(own, use), size, rng)
        chain.append(merged[own])
    # Numbered from the coarsest, so that the children of a cluster are contiguous.
    renumbered = [chain[-1]]
    for finer in chain[-2:0:-1]:
        _, first = np.unique(finer, return_index=True)
        place = np.empty(len(first), np.int64)
        place[np.argsort(renumbered[0][first], kind="stable")] = np.arange(len(first))
        renumbered.insert(0, place[finer])
    books, finer = [], np.arange(len(codebook))
    for cluster in renumbered:
        _, first = np.unique(finer, return_index=True)
        books.append(NestedBook(codes_id, medoids(codebook, use, cluster), cluster[first]))
        finer = cluster
    return books


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("codes", type=Path, help="of training recordings, by prior/train.py codes")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a name or a model file")
    arguments = parser.parse_args()
    codec = Codec.load(arguments.model, device="cpu")
    codebook = codec.codebook()
    use = np.bincount(np.load(arguments.codes)["codes"], minlength=len(codebook)) + 0.5
    books = nest(codebook, use, codec.codes_id)
    save_books(arguments.out, books)
    for book in books:
        print(book.size, book.codes_id)


if __name__ == "__main__":
    main()

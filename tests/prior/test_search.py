"""The search for cheaper codes."""

from __future__ import annotations

import numpy as np
import pytest
from random_prior import DILATIONS, random_tensors

from simvq_audio.prior import CausalPrior
from simvq_audio.prior.search import cheaper_codes


@pytest.fixture(scope="module")
def prior() -> CausalPrior:
    return CausalPrior(random_tensors(), DILATIONS)


RNG = np.random.default_rng(0)
CODEBOOK = RNG.standard_normal((512, 4)).astype(np.float32)
LATENTS = [RNG.standard_normal((frames, 4)).astype(np.float32) for frames in (7, 40, 25, 1)]


def bits(prior: CausalPrior, codes: np.ndarray) -> float:
    return float(32 - np.log2(prior.intervals(codes[np.newaxis])[1]).sum(-1).mean())


def cost(prior: CausalPrior, latents: np.ndarray, codes: np.ndarray, weight: float) -> float:
    _, counts = prior.intervals(codes[np.newaxis])
    distance = np.square(latents - CODEBOOK[codes]).sum()
    return float(distance + weight * (16 - np.log2(counts)).sum())


def test_weight_zero_gives_the_nearest(prior: CausalPrior) -> None:
    for latents, codes in zip(LATENTS, cheaper_codes(LATENTS, CODEBOOK, prior, 0.0)):
        distances = np.square(latents[:, np.newaxis] - CODEBOOK).sum(2)
        np.testing.assert_array_equal(codes, distances.argmin(1))


def test_more_weight_takes_fewer_bits(prior: CausalPrior) -> None:
    rates = [
        sum(bits(prior, c) for c in cheaper_codes(LATENTS, CODEBOOK, prior, weight))
        for weight in (0.0, 0.05, 0.5)
    ]
    assert rates[0] > rates[1] > rates[2]


def test_blocks_do_not_depend_on_each_other(prior: CausalPrior) -> None:
    together = cheaper_codes(LATENTS, CODEBOOK, prior, 0.1)
    for latents, codes in zip(LATENTS, together):
        np.testing.assert_array_equal(codes, cheaper_codes([latents], CODEBOOK, prior, 0.1)[0])


def test_finds_the_best_of_all_short_sequences(prior: CausalPrior) -> None:
    """With a beam that holds everything, nothing beats what is found."""
    latents, weight, few = LATENTS[0][:3], 0.2, 6
    (codes,) = cheaper_codes([latents], CODEBOOK, prior, weight, beam=few**3, candidates=few)
    distances = np.square(latents[:, np.newaxis] - CODEBOOK).sum(2)
    near = np.argsort(distances, axis=1)[:, :few]
    best = min(
        cost(prior, latents, np.array([near[0, i], near[1, j], near[2, k]]), weight)
        for i in range(few)
        for j in range(few)
        for k in range(few)
    )
    assert cost(prior, latents, codes, weight) == pytest.approx(best, rel=1e-6)

"""The search for cheaper codes."""

from __future__ import annotations

import numpy as np
import pytest
from random_prior import DILATIONS, random_tensors

import simvq_audio.prior.search
from simvq_audio.prior import CausalPrior
from simvq_audio.prior.search import CheaperCodes


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


def cheaper_codes(latents, prior: CausalPrior, weight: float, **options) -> list[np.ndarray]:
    return CheaperCodes(CODEBOOK, prior, **options).find(latents, [weight] * len(latents))


def test_weight_zero_gives_the_nearest(prior: CausalPrior) -> None:
    for latents, codes in zip(LATENTS, cheaper_codes(LATENTS, prior, 0.0)):
        distances = np.square(latents[:, np.newaxis] - CODEBOOK).sum(2)
        np.testing.assert_array_equal(codes, distances.argmin(1))


def test_more_weight_takes_fewer_bits(prior: CausalPrior) -> None:
    rates = [
        sum(bits(prior, c) for c in cheaper_codes(LATENTS, prior, weight))
        for weight in (0.0, 0.05, 0.5)
    ]
    assert rates[0] > rates[1] > rates[2]


def test_blocks_do_not_depend_on_each_other(prior: CausalPrior) -> None:
    weights = [0.1, 0.2, 0.05, 0.1, 0.3]
    together = CheaperCodes(CODEBOOK, prior).find([*LATENTS, LATENTS[1]], weights)
    for latents, weight, codes in zip([*LATENTS, LATENTS[1]], weights, together):
        np.testing.assert_array_equal(codes, cheaper_codes([latents], prior, weight)[0])
    assert (together[1] != together[4]).any()


def test_more_blocks_than_are_searched_side_by_side(
    prior: CausalPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = cheaper_codes(LATENTS, prior, 0.1)
    monkeypatch.setattr(simvq_audio.prior.search, "_LANES", 2)
    for one, two in zip(together, cheaper_codes(LATENTS, prior, 0.1)):
        np.testing.assert_array_equal(one, two)


def test_finds_the_best_of_all_short_sequences(prior: CausalPrior) -> None:
    """With a beam that holds everything, nothing beats what is found."""
    latents, weight = LATENTS[0][:2], 0.2
    (codes,) = cheaper_codes([latents], prior, weight, beam=512, clusters=16 * 512)
    distances = np.square(latents[:, np.newaxis] - CODEBOOK).sum(2)
    state, best = prior.start(512), np.inf
    clusters, members = prior.locate(np.arange(512))
    first = state.clusters(512)[:, clusters][0] * 1.0 * state.members(clusters)[range(512), members]
    state.push(np.arange(512))
    tables = state.clusters(512)
    for code in range(512):
        second = tables[:, clusters[code]] * 1.0
        second *= state.members(np.full(512, clusters[code]))[:, members[code]]
        total = distances[0] + distances[1, code] - weight * np.log2(first * second)
        best = min(best, float(total.min()) + 64 * weight)
    assert cost(prior, latents, codes, weight) == pytest.approx(best, rel=1e-5)


def test_costs_are_those_of_the_coder(prior: CausalPrior) -> None:
    """But for what rounding frequencies to integers does: up to 1, or 32 for the largest."""
    state, same = prior.start(1), prior.start(1)
    for code in (3, 400, 77):
        found = 2.0 ** (16 - same.cluster_bits(1))
        np.testing.assert_allclose(found, state.clusters(1), atol=16)
        cluster, _ = prior.locate(np.array([code]))
        found = 2.0 ** (16 - same.member_bits(cluster, np.array([0])))
        np.testing.assert_allclose(found, state.members(cluster), atol=32)
        state.push(np.array([code]))
        same.push(np.array([code]))


def test_reordering_takes_the_whole_past_along(prior: CausalPrior) -> None:
    codes = RNG.integers(0, 512, (20, 3))
    orders = [RNG.integers(0, 3, 3) for _ in codes]
    state, pasts = prior.start(3), [[], [], []]
    for row, order in zip(codes, orders):
        found = state.clusters(3)
        for table, past in zip(found, pasts):
            alone = prior.start(1)
            for code in past:
                alone.clusters(1)
                alone.push(np.array([code]))
            np.testing.assert_array_equal(alone.clusters(1)[0], table)
        state.reorder(order)
        pasts = [[*pasts[parent], code] for parent, code in zip(order, row)]
        state.push(row)

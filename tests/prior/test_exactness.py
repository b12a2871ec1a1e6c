"""The prior gives the same integers however it is evaluated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_prior import DILATIONS, random_tensors

from simvq_audio.errors import ModelError
from simvq_audio.prior import CausalPrior, prior_for_codes
from simvq_audio.prior.integers import Dense, frequencies

SHIPPED = "c153ae81d324"


def as_int64(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    assert (a == np.rint(a)).all() and (b == np.rint(b)).all()
    exact = np.matmul(a.astype(np.int64), b.astype(np.int64))
    assert np.abs(exact).max(initial=0) <= 2**24
    return exact.astype(np.float32)


def permuted(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    order = np.random.default_rng(1).permutation(a.shape[-1])
    return np.matmul(a[..., order], b[..., order, :])


def one_by_one(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Partial sums rounded to float32 after each term, the last term first."""
    total = np.zeros((*a.shape[:-1], b.shape[-1]), np.float32)
    for i in reversed(range(a.shape[-1])):
        total += a[..., i : i + 1] * b[..., i : i + 1, :]
    return total


def by_torch(threads: int, device: str = "cpu") -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return (torch.tensor(a, device=device) @ torch.tensor(b, device=device)).cpu().numpy()
        finally:
            torch.set_num_threads(before)

    return matmul


WAYS = {
    "int64": as_int64,
    "permuted": permuted,
    "one by one": one_by_one,
    "torch, 1 thread": by_torch(1),
    "torch, 2 threads": by_torch(2),
    "cuda": by_torch(1, "cuda"),
}


@pytest.fixture(scope="module", params=["random", "shipped"])
def prior(request: pytest.FixtureRequest) -> CausalPrior:
    if request.param == "random":
        return CausalPrior(random_tensors(), DILATIONS)
    shipped = prior_for_codes(SHIPPED)
    assert shipped is not None
    return shipped


def blocks(prior: CausalPrior, shape: tuple[int, int] = (3, 90)) -> np.ndarray:
    return np.random.default_rng(3).integers(0, prior.codebook_size, shape)


@pytest.mark.parametrize("way", WAYS)
def test_any_product_gives_the_same(
    prior: CausalPrior, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    codes = blocks(prior)
    expected = prior.intervals(codes)
    monkeypatch.setattr(prior, "_matmul", WAYS[way])
    for found, wanted in zip(prior.intervals(codes), expected):
        np.testing.assert_array_equal(found, wanted)


def test_batch_is_single(prior: CausalPrior) -> None:
    codes = blocks(prior)
    together = prior.intervals(codes)
    for i, row in enumerate(codes):
        for found, wanted in zip(prior.intervals(row[np.newaxis]), together):
            np.testing.assert_array_equal(found[0], wanted[i])


def test_the_future_does_not_matter(prior: CausalPrior) -> None:
    codes = blocks(prior)
    whole = prior.intervals(codes)
    for found, wanted in zip(prior.intervals(codes[:, :41]), whole):
        np.testing.assert_array_equal(found, wanted[:, :41])


def test_step_by_step_is_whole(prior: CausalPrior) -> None:
    codes = blocks(prior)
    starts, counts = prior.intervals(codes)
    state = prior.start(len(codes))
    place = np.argsort(prior.tree.reshape(-1))[codes]
    for frame, column in enumerate(place.T):
        # The last block leaves halfway.
        left = len(codes) - (frame >= 50)
        cluster, member = np.divmod(column[:left], prior.tree.shape[1])
        for level, (tables, symbol) in enumerate(
            ((state.clusters(left), cluster), (state.members(cluster), member))
        ):
            for row, table in enumerate(tables):
                assert table[symbol[row]] == counts[row, frame, level]
                assert table[: symbol[row]].sum() == starts[row, frame, level]
        state.push(codes[:left, frame])


def test_many_rows_are_few_rows(prior: CausalPrior) -> None:
    """``select`` gathers weights for few rows and goes layer by layer for many."""
    rng = np.random.default_rng(4)
    hidden = rng.integers(0, 256, (100, prior.width)).astype(np.float32)
    cluster = rng.integers(0, len(prior.tree), 100)
    many = prior._member_frequencies(hidden, cluster)
    few = [prior._member_frequencies(hidden[i : i + 1], cluster[i : i + 1])[0] for i in range(100)]
    np.testing.assert_array_equal(many, np.stack(few))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(-(2**22), 2**22), min_size=2, max_size=200))
def test_frequencies_sum_and_leave_none_out(logits: list[int]) -> None:
    table = np.maximum(1, np.round(2.0**16 * np.exp(-np.arange(355) / 32))).astype(np.int64)
    found = frequencies(np.array([logits], np.float32), table)[0]
    assert found.sum() == 2**16
    assert found.min() >= 1
    assert found.argmax() == int(np.argmax(logits))
    larger = np.greater.outer(logits, logits)
    assert np.greater_equal.outer(found, found)[larger].all()


def test_sums_that_would_round_are_refused() -> None:
    weight = np.full((1, 520), 127, np.int8)
    bias, shift = np.zeros(1, np.int32), np.zeros(1, np.int8)
    with pytest.raises(ModelError, match="exact"):
        Dense(weight, bias, shift)
    Dense(weight[:, :518], bias, shift)
    with pytest.raises(ModelError, match="exact"):
        Dense(weight[:, :1], np.array([2**24], np.int32), shift)

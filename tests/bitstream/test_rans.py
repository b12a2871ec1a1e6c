"""The entropy coder: every sequence comes back, in about the bits that its frequencies say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvq_audio.bitstream import rans
from simvq_audio.errors import CodesError


def tables(rng: np.random.Generator, count: int, symbols: int, skew: float) -> np.ndarray:
    """Frequencies of at least 1 that sum to 2**16."""
    weight = np.exp(skew * rng.standard_normal((count, symbols)))
    result = 1 + (weight / weight.sum(1, keepdims=True) * (2**16 - symbols)).astype(np.int64)
    result[:, 0] += 2**16 - result.sum(1)
    return result


def encode(all_tables: np.ndarray, symbols: np.ndarray) -> bytes:
    rows = np.arange(len(symbols))
    counts = all_tables[rows, symbols]
    starts = np.cumsum(all_tables, 1)[rows, symbols] - counts
    return rans.encode(starts.tolist(), counts.tolist())


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.integers(2, 300),
    st.floats(0, 8),
)
def test_round_trip_side_by_side(seed: int, lengths: list[int], symbols: int, skew: float) -> None:
    rng = np.random.default_rng(seed)
    lengths.sort(reverse=True)
    all_tables = [tables(rng, length, symbols, skew) for length in lengths]
    all_symbols = [rng.integers(0, symbols, length) for length in lengths]
    decoder = rans.Decoder([encode(*pair) for pair in zip(all_tables, all_symbols)])
    for step in range(lengths[0]):
        left = [i for i, length in enumerate(lengths) if length > step]
        found = decoder.next(np.stack([all_tables[i][step] for i in left]))
        assert found.tolist() == [all_symbols[i][step] for i in left]
    decoder.finish()


@pytest.mark.parametrize("skew", [0.0, 1.0, 3.0])
def test_size_is_near_the_information(skew: float) -> None:
    rng = np.random.default_rng(0)
    all_tables = tables(rng, 4000, 64, skew)
    symbols = (np.cumsum(all_tables, 1) <= rng.integers(0, 2**16, (4000, 1))).sum(1)
    bits = -sum(math.log2(n / 2**16) for n in all_tables[np.arange(4000), symbols])
    size = 8 * len(encode(all_tables, symbols))
    # 4 bytes of state, of which 2 are the least it takes, and a word not yet full.
    assert bits <= size <= bits * 1.001 + 32


def test_nothing_coded_takes_the_state_alone() -> None:
    assert rans.encode([], []) == b"\0\1\0\0"


def test_extreme_frequencies() -> None:
    table = np.array([[2**16 - 1, 1]] * 200)
    symbols = np.arange(200) % 50 == 49
    data = encode(table, symbols.astype(int))
    decoder = rans.Decoder([data])
    assert [decoder.next(table[:1])[0] for _ in range(200)] == symbols.tolist()
    decoder.finish()
    assert len(data) <= 4 + 2 * 4


@pytest.mark.parametrize("data", [b"", b"\0\1\0", b"\0\1\0\0\0", b"\0\0\xff\xff"])
def test_refuses_impossible_strings(data: bytes) -> None:
    with pytest.raises(CodesError, match="impossible"):
        rans.Decoder([data])


def test_notices_every_changed_bit() -> None:
    rng = np.random.default_rng(2)
    all_tables = tables(rng, 30, 16, 1.0)
    symbols = rng.integers(0, 16, 30)
    data = encode(all_tables, symbols)
    missed = 0
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 128 >> bit % 8
        try:
            decoder = rans.Decoder([bytes(changed)])
            found = [int(decoder.next(table[np.newaxis])[0]) for table in all_tables]
            decoder.finish()
        except CodesError:
            continue
        # Another sequence that a writer could have coded like this; only a checksum tells.
        assert encode(all_tables, np.array(found)) == bytes(changed)
        missed += 1
    assert missed < 8


def test_reads_nothing_beyond_the_end() -> None:
    table = np.full((1, 64), 1024)
    decoder = rans.Decoder([rans.encode([0], [1024])])
    for _ in range(50):
        decoder.next(table)
    with pytest.raises(CodesError, match="does not end"):
        decoder.finish()


@pytest.mark.parametrize("skew", [0.0, 2.0, 5.0])
def test_as_small_as_another_coder(skew: float) -> None:
    """constriction's ANS coder, with 64 bits of state, needs no less for the same symbols."""
    constriction = pytest.importorskip("constriction")
    rng = np.random.default_rng(1)
    all_tables = tables(rng, 3000, 64, skew)
    symbols = (np.cumsum(all_tables, 1) <= rng.integers(0, 2**16, (3000, 1))).sum(1)
    family = constriction.stream.model.Categorical(perfect=False)
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(symbols.astype(np.int32), family, (all_tables / 2**16).astype(np.float32))
    theirs = 4 * len(coder.get_compressed())
    ours = encode(all_tables, symbols)
    assert abs(len(ours) - theirs) <= 8 + 0.001 * theirs
    decoder = rans.Decoder([ours])
    found = [int(decoder.next(all_tables[i : i + 1])[0]) for i in range(len(symbols))]
    decoder.finish()
    again = coder.decode(family, (all_tables / 2**16).astype(np.float32))
    assert found == symbols.tolist() == again.tolist()

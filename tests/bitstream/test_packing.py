"""Bit packing: exact, of the promised size, and modest with memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvq_audio.bitstream.packing import pack_indices, unpack_indices
from simvq_audio.errors import CodesError


def reference_pack(indices: list[int], bits: int) -> bytes:
    """The packing done the slow and obvious way."""
    text = "".join(f"{index:0{bits}b}" for index in indices)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[start : start + 8], 2) for start in range(0, len(text), 8))


@st.composite
def widths_and_indices(draw: st.DrawFn) -> tuple[int, list[int]]:
    bits = draw(st.integers(1, 24))
    return bits, draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))


@settings(database=None, deadline=None)
@given(widths_and_indices())
def test_agrees_with_the_obvious_way(case: tuple[int, list[int]]) -> None:
    bits, values = case
    payload = pack_indices(np.array(values, np.int64), bits)
    assert payload == reference_pack(values, bits)
    unpacked = unpack_indices(payload, len(values), bits)
    assert unpacked.dtype == np.int32
    assert unpacked.tolist() == values


@pytest.mark.parametrize("bits", range(1, 25))
def test_exact_across_block_borders(bits: int) -> None:
    count = 2 * 65536 + 3
    indices = np.random.default_rng(bits).integers(0, 2**bits, count)
    payload = pack_indices(indices, bits)
    assert len(payload) == -(-count * bits // 8)
    assert np.array_equal(unpack_indices(payload, count, bits), indices)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64, ">i4"])
def test_any_integer_dtype(dtype: object) -> None:
    indices = np.array([0, 3, 127, 64], dtype)
    assert pack_indices(indices, 7) == reference_pack([0, 3, 127, 64], 7)


def test_strided_input() -> None:
    indices = np.arange(20, dtype=np.int32)[::-2]
    assert pack_indices(indices, 5) == reference_pack(indices.tolist(), 5)


@pytest.mark.parametrize(
    ("indices", "bits"),
    [
        (np.array([4]), 2),
        (np.array([-1]), 2),
        (np.array([2**32], np.int64), 24),
        (np.array([1.0]), 2),
        (np.array([[1]]), 2),
        (np.array([1]), 0),
        (np.array([1]), 25),
    ],
)
def test_refuses_to_pack(indices: np.ndarray, bits: int) -> None:
    with pytest.raises(CodesError) as caught:
        pack_indices(indices, bits)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "count", "bits", "message"),
    [
        (b"", 1, 3, "take 1 bytes"),
        (b"\0\0", 1, 3, "take 1 bytes"),
        (b"\0", 0, 3, "take 0 bytes"),
        (b"\0", -1, 3, "0 or more"),
        (b"\0", 1, 0, "1 to 24"),
        (b"\0\0\0\0", 1, 25, "1 to 24"),
        (b"\x10", 1, 3, "padding"),
        (b"\x01", 1, 3, "padding"),
    ],
)
def test_refuses_to_unpack(payload: bytes, count: int, bits: int, message: str) -> None:
    with pytest.raises(CodesError, match=message):
        unpack_indices(payload, count, bits)


def test_memory_stays_near_the_size_of_the_data() -> None:
    indices = np.random.default_rng(0).integers(0, 8192, 2_000_000).astype(np.int32)
    tracemalloc.start()
    try:
        payload = pack_indices(indices, 13)
        pack_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        unpacked = unpack_indices(payload, indices.size, 13)
        unpack_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.array_equal(unpacked, indices)
    # The indices have 8 MB; one byte per bit all at once would be 64 MB.
    assert pack_peak < 3 * indices.nbytes
    assert unpack_peak < 3 * indices.nbytes

"""Integers of a fixed width packed into bytes, most significant bit first."""

from __future__ import annotations

import numpy as np

from simvq_audio.errors import CodesError

MAX_BITS = 24
MAX_CODEBOOK_SIZE = 262144

# Every bit takes a byte while it is moved, 32 bytes per index, so the work is done in blocks of
# 2 MB. A multiple of 8 indices fills whole bytes at any width, so blocks can be concatenated.
_BLOCK = 1 << 16


def bits_per_code(codebook_size: int) -> int:
    """Bits that an index takes in fixed width, ceil(log2(codebook_size))."""
    return (codebook_size - 1).bit_length()


def check_codebook_size(size: int) -> None:
    """Raise CodesError if a codebook cannot have that many entries."""
    if not 2 <= size <= MAX_CODEBOOK_SIZE:
        raise CodesError(f"the codebook size must be 2 to {MAX_CODEBOOK_SIZE}, not {size}")


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` indices of ``bits`` bits take, with the last byte padded."""
    return (count * bits + 7) // 8


def pack_indices(indices: np.ndarray, bits: int) -> bytes:
    """Pack indices into ``bits`` bits each, most significant bit first, zero bits at the end.

    Args:
        indices: shape (count,), any integer dtype, each value in 0 .. 2**bits - 1.
        bits: bits per index, 1 to 24.

    Returns:
        ``ceil(count * bits / 8)`` bytes.

    Raises:
        CodesError: the width, shape, dtype or a value is out of range.
    """
    _check_bits(bits)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise CodesError(
            f"indices to pack must be one row of integers, not {indices.dtype} of shape "
            f"{indices.shape}; pass an integer array of shape (count,)"
        )
    if indices.size and (indices.min() < 0 or indices.max() >= 1 << bits):
        raise CodesError(
            f"indices from {indices.min()} to {indices.max()} do not fit in {bits} bits; "
            f"use more bits or check the codebook size"
        )
    packed = bytearray()
    for start in range(0, indices.size, _BLOCK):
        # Big-endian words make the byte order in memory the bit order of the file.
        words = indices[start : start + _BLOCK].astype(">u4")
        spread = np.unpackbits(words.view(np.uint8).reshape(-1, 4), axis=1)
        packed += np.packbits(spread[:, 32 - bits :]).tobytes()
    return bytes(packed)


def unpack_indices(payload: bytes, count: int, bits: int) -> np.ndarray:
    """Undo :func:`pack_indices`.

    Args:
        payload: exactly ``ceil(count * bits / 8)`` bytes.
        count: number of indices, 0 or more.
        bits: bits per index, 1 to 24.

    Returns:
        The indices, int32, shape (count,).

    Raises:
        CodesError: the width or count is out of range, the payload has another length, or a
            padding bit is not zero.
    """
    _check_bits(bits)
    if count < 0:
        raise CodesError(f"cannot unpack {count} indices; the count must be 0 or more")
    if len(payload) != packed_size(count, bits):
        raise CodesError(
            f"{count} indices of {bits} bits take {packed_size(count, bits)} bytes, but the "
            f"payload has {len(payload)}; copy it again"
        )
    # Equal indices have equal bytes, so padding bits must be zero.
    padding = 8 * len(payload) - count * bits
    if padding and payload[-1] & ((1 << padding) - 1):
        raise CodesError("the padding bits after the last index are not zero; encode it again")
    indices = np.empty(count, np.int32)
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        first = start // 8 * bits
        chunk = np.frombuffer(payload, np.uint8, packed_size(size, bits), offset=first)
        spread = np.zeros((size, 32), np.uint8)
        spread[:, 32 - bits :] = np.unpackbits(chunk, count=size * bits).reshape(size, bits)
        indices[start : start + size] = np.packbits(spread).view(">u4")
    return indices


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= MAX_BITS:
        raise CodesError(f"cannot pack {bits} bits per index; the width must be 1 to {MAX_BITS}")

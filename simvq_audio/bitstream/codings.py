"""The payload codings of ``.codes`` files: how indices are packed, and unpacked again.

The layout of each is described in ``docs/file-format.md``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from simvq_audio.bitstream import blocks
from simvq_audio.bitstream.packing import (
    bits_per_code,
    check_codebook_size,
    pack_indices,
    packed_size,
    unpack_indices,
)
from simvq_audio.errors import CodesError
from simvq_audio.prior import prior_by_id, prior_for_codes

FIXED_WIDTH = 0
ENTROPY = 1
SEVERAL = 2

MAX_CODEBOOKS = 32
# Bytes of each codebook's size at the head of a payload of coding 2.
_SIZE_BYTES = 3


class Coding(NamedTuple):
    """How a payload of one coding is read.

    ``codebook_size`` is always what the header has, the size of the first codebook.

    Attributes:
        payload_size: (file, available bytes, channels, frames, codebook_size) -> bytes that the
            payload should have. ``file`` is at the beginning of the payload, of which no more is
            read than is needed. If the available bytes are too few to tell, the result is larger
            than their number. CodesError if the payload says something impossible.
        unpack: (payload of the right size, channels, frames, codebook_size) -> indices, int32
            (channels, frames) or (channels, codebooks, frames), and the size of the codebook or of
            each codebook. CodesError if the payload is not what the encoder writes, or names an
            unknown prior.
    """

    payload_size: Callable[[BinaryIO, int, int, int, int], int]
    unpack: Callable[[bytes, int, int, int], tuple[np.ndarray, int | tuple[int, ...]]]


# -- 0: every index in the same number of bits -----------------------------------------------------


def _fixed_size(
    file: BinaryIO, available: int, channels: int, frames: int, codebook_size: int
) -> int:
    return packed_size(channels * frames, bits_per_code(codebook_size))


def _unpack_fixed(
    payload: bytes, channels: int, frames: int, codebook_size: int
) -> tuple[np.ndarray, int]:
    indices = unpack_indices(payload, channels * frames, bits_per_code(codebook_size))
    return indices.reshape(channels, frames), codebook_size


# -- 1: blocks in which frequent codes take fewer bits, under a prior that the payload names -------


def _unpack_entropy(
    payload: bytes, channels: int, frames: int, codebook_size: int
) -> tuple[np.ndarray, int]:
    table = blocks.read_table(io.BytesIO(payload), channels, frames, codebook_size)
    indices = blocks.decode_blocks(payload, table, prior_by_id(table.prior_id))
    return indices.reshape(channels, frames), codebook_size


# -- 2: several codes per frame, each codebook in its own fixed width ------------------------------


def _pack_several(indices: np.ndarray, codebook_sizes: Sequence[int]) -> bytes:
    head = bytes([len(codebook_sizes)])
    head += b"".join((size - 1).to_bytes(_SIZE_BYTES, "big") for size in codebook_sizes)
    return head + b"".join(
        pack_indices(row, bits_per_code(size))
        for channel in indices
        for row, size in zip(channel, codebook_sizes)
    )


def _several_size(
    file: BinaryIO, available: int, channels: int, frames: int, codebook_size: int
) -> int:
    if available < 1:
        return 1
    count = file.read(1)[0]
    if not 2 <= count <= MAX_CODEBOOKS:
        raise CodesError(f"there must be 2 to {MAX_CODEBOOKS} codebooks, not {count}")
    head = 1 + count * _SIZE_BYTES
    if available < head:
        return head
    sizes = _codebook_sizes(file.read(count * _SIZE_BYTES))
    return head + channels * sum(packed_size(frames, bits_per_code(size)) for size in sizes)


def read_codebook_sizes(file: BinaryIO) -> tuple[int, ...]:
    """Entries of each codebook, from the beginning of a payload that has all its bytes."""
    return _codebook_sizes(file.read(file.read(1)[0] * _SIZE_BYTES))


def _unpack_several(
    payload: bytes, channels: int, frames: int, codebook_size: int
) -> tuple[np.ndarray, tuple[int, ...]]:
    start = 1 + payload[0] * _SIZE_BYTES
    sizes = _codebook_sizes(payload[1:start])
    for size in sizes:
        check_codebook_size(size)
    if sizes[0] != codebook_size:
        raise CodesError(f"header and payload disagree: {codebook_size} and {sizes[0]} entries")
    indices = np.empty((channels, len(sizes), frames), np.int32)
    for channel in indices:
        for row, size in zip(channel, sizes):
            end = start + packed_size(frames, bits_per_code(size))
            row[:] = unpack_indices(payload[start:end], frames, bits_per_code(size))
            start = end
    return indices, sizes


def _codebook_sizes(data: bytes) -> tuple[int, ...]:
    return tuple(
        int.from_bytes(data[i : i + _SIZE_BYTES], "big") + 1
        for i in range(0, len(data), _SIZE_BYTES)
    )


CODINGS = {
    FIXED_WIDTH: Coding(_fixed_size, _unpack_fixed),
    ENTROPY: Coding(blocks.payload_size, _unpack_entropy),
    SEVERAL: Coding(_several_size, _unpack_several),
}


def check_coding(coding: str) -> None:
    """Raise CodesError unless the name of a coding is "entropy" or "fixed"."""
    if coding not in ("entropy", "fixed"):
        raise CodesError(f'the coding must be "entropy" or "fixed", not {coding!r}')


def pack(
    indices: np.ndarray, codebook_sizes: Sequence[int], codes_id: str, coding: str
) -> tuple[int, bytes]:
    """Pack indices (channels, frames), or (channels, codebooks, frames).

    Args:
        coding: "entropy", which falls back to fixed width where no prior predicts such codes or
            nothing would be saved; or "fixed".

    Returns:
        number of the coding, and the payload.
    """
    if len(codebook_sizes) > 1:
        return SEVERAL, _pack_several(indices, codebook_sizes)
    fixed = pack_indices(indices.reshape(-1), bits_per_code(codebook_sizes[0]))
    prior = prior_for_codes(codes_id) if coding == "entropy" else None
    if prior is not None and prior.codebook_size == codebook_sizes[0]:
        coded = blocks.encode_blocks(indices, prior)
        if len(coded) < len(fixed):
            return ENTROPY, coded
    return FIXED_WIDTH, fixed

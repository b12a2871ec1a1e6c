"""Payload coding 2: several codes a frame, each codebook's in a fixed width of its own.

The layout is described in ``docs/file-format.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from simvq_audio.bitstream.packing import pack_indices, packed_size, unpack_indices
from simvq_audio.errors import CodesError

MAX_CODEBOOKS = 32
# Bytes of a codebook's size in the head of the payload.
_SIZE_BYTES = 3


class SeveralCodebooks:
    """Packs indices (channels, codebooks, frames).

    The head of the payload has the number of codebooks and the size of each; then, channel by
    channel and codebook by codebook, come the indices of all frames.
    """

    name = "several"

    def pack(self, indices: np.ndarray, codebook_size: Sequence[int], codes_id: str) -> bytes:
        """The payload; ``codebook_size`` is that of each codebook."""
        head = bytes([len(codebook_size)])
        head += b"".join((size - 1).to_bytes(_SIZE_BYTES, "big") for size in codebook_size)
        return head + b"".join(
            pack_indices(row, _bits(size))
            for channel in indices
            for row, size in zip(channel, codebook_size)
        )

    def payload_size(
        self, file: BinaryIO, available: int, channels: int, frames: int, codebook_size: int
    ) -> int:
        """Bytes that the payload should have; only its head is read.

        Args:
            file: stands where the payload begins.
            available: bytes that there are. If these are too few to tell, the result is larger.

        Raises:
            CodesError: the head says something impossible.
        """
        if available < 1:
            return 1
        count = file.read(1)[0]
        if not 2 <= count <= MAX_CODEBOOKS:
            raise CodesError(f"there must be 2 to {MAX_CODEBOOKS} codebooks, not {count}")
        head = 1 + count * _SIZE_BYTES
        if available < head:
            return head
        sizes = _sizes(file.read(count * _SIZE_BYTES))
        return head + channels * sum(packed_size(frames, _bits(size)) for size in sizes)

    def codebook_sizes(self, payload: bytes) -> tuple[int, ...]:
        """Entries of each codebook."""
        return _sizes(payload[1 : 1 + payload[0] * _SIZE_BYTES])

    def unpack(self, payload: bytes, channels: int, frames: int, codebook_size: int) -> np.ndarray:
        """The indices, int32 (channels, codebooks, frames), from a payload of the right size.

        Args:
            codebook_size: as the header has it, that of the first codebook.

        Raises:
            CodesError: it is not what ``pack`` makes.
        """
        sizes = self.codebook_sizes(payload)
        if sizes[0] != codebook_size:
            raise CodesError(f"header and payload disagree: {codebook_size} and {sizes[0]} entries")
        indices = np.empty((channels, len(sizes), frames), np.int32)
        start = 1 + len(sizes) * _SIZE_BYTES
        for channel in indices:
            for row, size in zip(channel, sizes):
                end = start + packed_size(frames, _bits(size))
                row[:] = unpack_indices(payload[start:end], frames, _bits(size))
                start = end
        return indices


def _sizes(data: bytes) -> tuple[int, ...]:
    return tuple(
        int.from_bytes(data[i : i + _SIZE_BYTES], "big") + 1
        for i in range(0, len(data), _SIZE_BYTES)
    )


def _bits(codebook_size: int) -> int:
    return (codebook_size - 1).bit_length()

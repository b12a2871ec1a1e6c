"""The payload codings of ``.codes`` files: fixed width, and entropy-coded under a prior."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, Protocol

import numpy as np

from simvq_audio.bitstream import blocks
from simvq_audio.bitstream.packing import pack_indices, packed_size, unpack_indices
from simvq_audio.bitstream.several import SeveralCodebooks
from simvq_audio.prior import prior_by_id, prior_for_codes

FIXED_WIDTH = 0
ENTROPY = 1
SEVERAL = 2


class Coding(Protocol):
    """How the indices (channels, frames) of a file are packed into its payload.

    Of several codebooks, indices are (channels, codebooks, frames), and ``pack`` is given the sizes
    of all; elsewhere ``codebook_size`` is what the header has, the size of the first.
    """

    name: str

    # The size of the one codebook, or the sizes of several.
    def pack(self, indices: np.ndarray, codebook_size: Any, codes_id: str) -> bytes | None:
        """The payload; None if this coding has nothing for such codes."""

    def payload_size(
        self, file: BinaryIO, available: int, channels: int, frames: int, codebook_size: int
    ) -> int:
        """Bytes that the payload should have, from as much of it as must be read to tell.

        Args:
            file: stands where the payload begins.
            available: bytes that there are. If these are too few to tell, the result is larger.

        Raises:
            CodesError: the payload says something impossible.
        """

    def unpack(self, payload: bytes, channels: int, frames: int, codebook_size: int) -> np.ndarray:
        """The indices, int32 (channels, frames), from a payload of the right size.

        Raises:
            CodesError: it is not what ``pack`` makes, or was made with an unknown prior.
        """


class FixedWidth:
    """Coding 0: every index takes the same number of bits."""

    name = "fixed"

    def pack(self, indices: np.ndarray, codebook_size: int, codes_id: str) -> bytes:
        """See ``Coding``; there is always a payload."""
        return pack_indices(indices.reshape(-1), (codebook_size - 1).bit_length())

    def payload_size(
        self, file: BinaryIO, available: int, channels: int, frames: int, codebook_size: int
    ) -> int:
        """See ``Coding``; nothing is read."""
        return packed_size(channels * frames, (codebook_size - 1).bit_length())

    def unpack(self, payload: bytes, channels: int, frames: int, codebook_size: int) -> np.ndarray:
        """See ``Coding``."""
        bits = (codebook_size - 1).bit_length()
        return unpack_indices(payload, channels * frames, bits).reshape(channels, frames)


class EntropyCoded:
    """Coding 1: blocks of frequent codes in fewer bits, under a prior that the payload names."""

    name = "entropy"

    def pack(self, indices: np.ndarray, codebook_size: int, codes_id: str) -> bytes | None:
        """See ``Coding``; None if no prior predicts such codes."""
        prior = prior_for_codes(codes_id)
        if prior is None or prior.codebook_size != codebook_size:
            return None
        return blocks.encode_blocks(indices, prior)

    def payload_size(
        self, file: BinaryIO, available: int, channels: int, frames: int, codebook_size: int
    ) -> int:
        """See ``Coding``; the table of blocks is read."""
        return blocks.payload_size(file, available, channels, frames, codebook_size)

    def unpack(self, payload: bytes, channels: int, frames: int, codebook_size: int) -> np.ndarray:
        """See ``Coding``."""
        table = blocks.read_table(io.BytesIO(payload), channels, frames, codebook_size)
        prior = prior_by_id(table.prior_id)
        return blocks.decode_blocks(payload, table, prior).reshape(channels, frames)


CODINGS: dict[int, Coding] = {
    FIXED_WIDTH: FixedWidth(),
    ENTROPY: EntropyCoded(),
    SEVERAL: SeveralCodebooks(),
}

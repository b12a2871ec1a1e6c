"""The payload codings: how the indices of a ``.codes`` file are packed."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from simvq_audio.bitstream.entropy import LEAST_HEAD_BYTES, BlockPayload, least_payload
from simvq_audio.bitstream.packing import pack_indices, packed_size, unpack_indices
from simvq_audio.errors import CodesError

FIXED_WIDTH = 0
ENTROPY = 1
# The most bytes of a payload that ``check_size`` looks at.
HEAD_BYTES = LEAST_HEAD_BYTES


class Payload(Protocol):
    """A payload whose length fits what it says; nothing is decoded yet."""

    def decode(self) -> np.ndarray:
        """The indices, int32 (channels, frames).

        Raises:
            CodesError: it is not what an encoder writes.
        """


class Coding(Protocol):
    """One way to pack indices."""

    def check_size(
        self, head: bytes, size: int, channels: int, frames: int, codebook_size: int
    ) -> None:
        """Check the length of a payload as far as its first bytes tell.

        Args:
            head: its first ``HEAD_BYTES`` bytes, or all of a shorter one.
            size: bytes that it has.

        Raises:
            CodesError: the length is impossible.
        """

    def open(self, payload: bytes, channels: int, frames: int, codebook_size: int) -> Payload:
        """Take a payload apart.

        Raises:
            CodesError: the length is another than it says.
        """


class FixedWidth:
    """Coding 0: every index takes the same number of bits."""

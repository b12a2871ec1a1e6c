"""Payload coding 1: blocks of codes, entropy-coded under a prior.

The layout is described in ``docs/file-format.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from simvq_audio.bitstream import rans
from simvq_audio.bitstream.packing import pack_indices, packed_size, unpack_indices
from simvq_audio.errors import CodesError

if TYPE_CHECKING:
    from simvq_audio.prior import CausalPrior

# Ten seconds at 75 frames a second. A block begins without a past, which costs it about 5 bits,
# and its coder's state costs 3 bytes; a file can be read from any block on.
BLOCK_FRAMES = 750
MAX_BLOCK_FRAMES = 16384

# Prior id, frames per block.
_HEADER = struct.Struct(">4sH")
_SIZE_BYTES = 2

# Blocks coded side by side: bounds the memory that tables and activations take.
_BATCH = 32


def encode_blocks(indices: np.ndarray, prior: CausalPrior, block_frames: int = BLOCK_FRAMES) -> bytes:
    """Code indices into a payload.

    Args:
        indices: integers (channels, frames), each below the prior's codebook size.
        prior: predicts the codes.
        block_frames: 1 to 16384; every block but the last of a channel has as many frames.
    """
    bits = (prior.codebook_size - 1).bit_length()
    channels, frames = indices.shape
    spans = [
        (channel, start, min(start + block_frames, frames))
        for channel in range(channels)
        for start in range(0, frames, block_frames)
    ]
    sizes = bytearray()
    blocks = bytearray()
    for at in range(0, len(spans), _BATCH):
        batch = [indices[channel, start:end] for channel, start, end in spans[at : at + _BATCH]]
        padded = np.zeros((len(batch), max(map(len, batch))), np.int64)
        for row, block in zip(padded, batch):
            row[: len(block)] = block
        starts, counts = prior.intervals(padded)
        for row_starts, row_counts, block in zip(starts, counts, batch):
            length = len(block)
            coded = rans.encode(
                row_starts[:length].reshape(-1).tolist(), row_counts[:length].reshape(-1).tolist()
            )
            coded = coded.ljust(_least_bytes(length), b"\0")
            if len(coded) < packed_size(length, bits):
                sizes += len(coded).to_bytes(_SIZE_BYTES, "big")
                blocks += coded
            else:
                sizes += bytes(_SIZE_BYTES)
                blocks += pack_indices(block, bits)
    return _HEADER.pack(bytes.fromhex(prior.id), block_frames) + bytes(sizes) + bytes(blocks)


class BlockPayload:
    """A payload taken apart: where its blocks lie. Checked, but nothing decoded yet.

    Args:
        payload: what stands between the header of the file and its checksum.

    Attributes:
        prior_id: 8 hexadecimal digits.
        block_frames: frames in each block but the last of a channel.
        num_blocks: over all channels.
        plain_blocks: how many of them are stored without entropy coding.

    Raises:
        CodesError: the payload has another length than it says.
    """

    def __init__(self, payload: bytes, channels: int, frames: int, codebook_size: int) -> None:
        least = least_payload(payload[: _HEADER.size], channels, frames)
        if len(payload) < least:
            raise CodesError(_wrong_length("truncated", least, len(payload)))
        prior_id, self.block_frames = _HEADER.unpack_from(payload)
        self.prior_id = prior_id.hex()
        self._payload = payload
        self._shape = channels, frames
        self._codebook_size = codebook_size
        self._bits = (codebook_size - 1).bit_length()
        per_channel = -(-frames // self.block_frames)
        self.num_blocks = channels * per_channel
        table = np.frombuffer(payload, ">u2", self.num_blocks, offset=_HEADER.size)
        self._coded = table.astype(np.int64)
        self.plain_blocks = int((self._coded == 0).sum())
        lengths = np.full((channels, per_channel), self.block_frames)
        if per_channel:
            lengths[:, -1] = frames - (per_channel - 1) * self.block_frames
        self._lengths = lengths.reshape(-1)
        plain = (self._lengths * self._bits + 7) // 8
        sizes = np.where(self._coded == 0, plain, self._coded)
        ends = _HEADER.size + _SIZE_BYTES * self.num_blocks + np.cumsum(sizes)
        self._ends = ends
        self._sizes = sizes
        expected = int(ends[-1]) if self.num_blocks else _HEADER.size
        if len(payload) != expected:
            what = "truncated" if len(payload) < expected else "too long"
            raise CodesError(_wrong_length(what, expected, len(payload)))

    def decode(self, prior: CausalPrior) -> np.ndarray:
        """The indices, int32 (channels, frames).

        Raises:
            CodesError: a block is not what an encoder writes, or the prior is another one.
        """
        if prior.id != self.prior_id or prior.codebook_size != self._codebook_size:
            raise CodesError(
                f"the codes were written with the prior {self.prior_id} for "
                f"{self._codebook_size} codes, not with {prior.id} for {prior.codebook_size}"
            )
        channels, frames = self._shape
        indices = np.empty((channels, frames), np.int32)
        per_channel = self.num_blocks // channels
        for batch in self._batches():
            coded = [block for block in batch if self._coded[block]]
            decoded = dict(zip(coded, self._decode_coded(coded, prior)))
            for block in batch:
                if block not in decoded:
                    decoded[block] = self._decode_plain(block)
                start = block % per_channel * self.block_frames
                target = indices[block // per_channel, start : start + self._lengths[block]]
                target[:] = decoded[block]
        return indices

    def _batches(self) -> Iterator[list[int]]:
        for start in range(0, self.num_blocks, _BATCH):
            stop = min(start + _BATCH, self.num_blocks)
            # Longest first, so that those that are done stand at the end.
            yield sorted(range(start, stop), key=lambda block: -self._lengths[block])

    def _bytes(self, block: int) -> bytes:
        end = int(self._ends[block])
        return self._payload[end - int(self._sizes[block]) : end]

    def _decode_plain(self, block: int) -> np.ndarray:
        indices = unpack_indices(self._bytes(block), int(self._lengths[block]), self._bits)
        if indices.max() >= self._codebook_size:
            raise CodesError("a block holds an index beyond the codebook")
        return indices

    def _decode_coded(self, blocks: list[int], prior: CausalPrior) -> list[np.ndarray]:
        """The indices of entropy-coded blocks, which stand longest first."""
        if not blocks:
            return []
        lengths = self._lengths[blocks]
        decoder = rans.Decoder([self._bytes(block) for block in blocks])
        state = prior.start(len(blocks))
        indices = np.zeros((len(blocks), int(lengths[0])), np.int64)
        left = len(blocks)
        for frame in range(int(lengths[0])):
            while lengths[left - 1] <= frame:
                left -= 1
            cluster = decoder.next(state.clusters(left))
            member = decoder.next(state.members(cluster))
            codes = prior.tree[cluster, member]
            state.push(codes)
            indices[:left, frame] = codes
        used = np.maximum(decoder.finish(), _least_bytes(lengths))
        if (used != self._sizes[blocks]).any():
            raise CodesError("an entropy-coded block is longer than its codes need")
        return [row[:length] for row, length in zip(indices, lengths)]


def least_payload(head: bytes, channels: int, frames: int) -> int:
    """The fewest bytes that a payload can have, from its first 6: its header and table of sizes.

    Raises:
        CodesError: the frames per block are out of range.
    """
    if len(head) < _HEADER.size:
        return _HEADER.size
    _, block_frames = _HEADER.unpack_from(head)
    if not 1 <= block_frames <= MAX_BLOCK_FRAMES:
        raise CodesError(
            f"the frames in a block must be 1 to {MAX_BLOCK_FRAMES}, not {block_frames}"
        )
    return _HEADER.size + _SIZE_BYTES * channels * -(-frames // block_frames)


def _least_bytes(frames: int | np.ndarray) -> int | np.ndarray:
    """The fewest bytes of an entropy-coded block; zeros fill it up to that.

    So a file cannot stand for more than 32 frames a byte, and a reader that is given a forged one
    does no more than its size warrants.
    """
    return 4 + 2 * (frames // 64)


def _wrong_length(what: str, expected: int, found: int) -> str:
    return f"the payload is {what}: {expected} bytes expected, {found} found"

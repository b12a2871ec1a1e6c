"""The payload of coding 1: blocks of codes, entropy-coded independently.

The layout is described in ``docs/file-format.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

from simvq_audio.bitstream import rans
from simvq_audio.bitstream.packing import bits_per_code, pack_indices, unpack_indices
from simvq_audio.errors import CodesError
from simvq_audio.prior import CausalPrior

# Ten seconds at 75 frames per second. A block begins without a past and ends with the coder's
# state, which costs about 5 bits and 3 bytes; reading can begin at any block.
BLOCK_FRAMES = 750
MAX_BLOCK_FRAMES = 16384

# Prior id, frames per block.
_HEAD = struct.Struct(">4sH")
HEAD_BYTES = _HEAD.size
# Size of an entry in the table of blocks.
_ENTRY_BYTES = 2

# Blocks coded side by side; limits the memory for tables and activations.
_BATCH = 16


class BlockTable:
    """The position and size of each block of a payload.

    Args:
        table: the head of the payload and its table, ``table_bytes`` bytes.
        channels, frames, codebook_size: as in the header of the file.

    Attributes:
        prior_id: 8 hexadecimal digits.
        block_frames: frames in each block but the last of a channel.
        lengths: frames of each block, those of channel 0 first, int64.
        coded: which blocks are entropy-coded; the others are plain.
        sizes: bytes of each block, int64; one after the other behind the table.
        payload_size: bytes of the whole payload.

    Raises:
        CodesError: an entropy-coded block is no smaller than a plain one.
    """

    def __init__(self, table: bytes, channels: int, frames: int, codebook_size: int) -> None:
        prior_id, self.block_frames = _HEAD.unpack_from(table)
        self.prior_id: str = prior_id.hex()
        self.codebook_size = codebook_size
        self.bits = bits_per_code(codebook_size)
        per_channel = -(-frames // self.block_frames)
        self.lengths = np.full((channels, per_channel), self.block_frames)
        if frames:
            self.lengths[:, -1] = frames - (per_channel - 1) * self.block_frames
        self.lengths = self.lengths.reshape(-1)
        entries = np.frombuffer(table, ">u2", len(self.lengths), _HEAD.size).astype(np.int64)
        self.coded = entries > 0
        self.sizes = np.where(self.coded, entries, (self.lengths * self.bits + 7) // 8)
        if (self.sizes > (self.lengths * self.bits + 7) // 8 - self.coded).any():
            raise CodesError("an entropy-coded block saves nothing")
        self._head = len(table)
        self._ends = np.cumsum(self.sizes)
        self.payload_size = len(table) + int(self.sizes.sum())

    def offset(self, index: int) -> int:
        """Where a block begins, counted from the end of the table."""
        return int(self._ends[index] - self.sizes[index])

    def block(self, payload: bytes, index: int) -> bytes:
        """The bytes of one block."""
        start = self._head + self.offset(index)
        return payload[start : start + int(self.sizes[index])]


def table_bytes(head: bytes, channels: int, frames: int) -> int:
    """Bytes up to the first block, from the first 6 of the payload, or fewer if it is shorter.

    Raises:
        CodesError: the payload says something impossible.
    """
    if len(head) < _HEAD.size:
        return _HEAD.size
    _, block_frames = _HEAD.unpack_from(head)
    if not 1 <= block_frames <= MAX_BLOCK_FRAMES:
        raise CodesError(f"a block must have 1 to {MAX_BLOCK_FRAMES} frames, not {block_frames}")
    return _HEAD.size + _ENTRY_BYTES * channels * -(-frames // block_frames)


def payload_size(
    file: BinaryIO, available: int, channels: int, frames: int, codebook_size: int
) -> int:
    """Bytes that a payload should have.

    Args:
        file: at the start of the payload; only the table is read.
        available: bytes of payload. If the table is longer, its length is returned.

    Raises:
        CodesError: the payload says something impossible.
    """
    at = file.tell()
    needed = table_bytes(file.read(min(_HEAD.size, available)), channels, frames)
    if needed > available:
        return needed
    file.seek(at)
    return read_table(file, channels, frames, codebook_size).payload_size


def read_table(file: BinaryIO, channels: int, frames: int, codebook_size: int) -> BlockTable:
    """The table of a payload that ``payload_size`` found whole; ``file`` is at its start.

    Raises:
        CodesError: the payload says something impossible.
    """
    head = file.read(_HEAD.size)
    rest = file.read(table_bytes(head, channels, frames) - len(head))
    return BlockTable(head + rest, channels, frames, codebook_size)


def encode_blocks(
    indices: np.ndarray, prior: CausalPrior, block_frames: int = BLOCK_FRAMES
) -> bytes:
    """Code indices into a payload.

    Args:
        indices: integers (channels, frames), each below the prior's codebook size.
        prior: predicts the codes.
        block_frames: 1 to 16384; frames of every block but the last of a channel.
    """
    blocks = [
        row[start : start + block_frames]
        for row in indices
        for start in range(0, len(row), block_frames)
    ]
    entries = bytearray()
    body = bytearray()
    for first in range(0, len(blocks), _BATCH):
        batch = blocks[first : first + _BATCH]
        for block, coded in zip(batch, _encode_coded(batch, prior)):
            plain = pack_indices(block, bits_per_code(prior.codebook_size))
            gains = len(coded) < len(plain)
            entries += (len(coded) if gains else 0).to_bytes(_ENTRY_BYTES, "big")
            body += coded if gains else plain
    return _HEAD.pack(bytes.fromhex(prior.id), block_frames) + bytes(entries) + bytes(body)


def _encode_coded(blocks: list[np.ndarray], prior: CausalPrior) -> Iterator[bytes]:
    padded = np.zeros((len(blocks), max(map(len, blocks))), np.int64)
    for row, block in zip(padded, blocks):
        row[: len(block)] = block
    # The prior is causal, so padding changes nothing before it.
    for block, starts, counts in zip(blocks, *prior.intervals(padded)):
        starts, counts = (part[: len(block)].reshape(-1).tolist() for part in (starts, counts))
        yield rans.encode(starts, counts).ljust(int(_least_bytes(len(block))), b"\0")


def decode_blocks(payload: bytes, table: BlockTable, prior: CausalPrior) -> np.ndarray:
    """The indices of a payload of the right size, int32 (blocks x frames,), channel by channel.

    Raises:
        CodesError: a block is not what ``encode_blocks`` makes, or it is for another prior.
    """
    chosen = range(len(table.lengths))
    parts = _decode(table, chosen, prior, lambda index: table.block(payload, index))
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def decode_range(
    file: BinaryIO, table: BlockTable, prior: CausalPrior, channels: int, start: int, end: int
) -> np.ndarray:
    """The indices of some frames, int32 (channels, end - start); no other block is read.

    Args:
        file: stands behind the table.
        start, end: frames; there is at least one.

    Raises:
        CodesError: as for ``decode_blocks``.
    """
    begin = file.tell()
    first, last = start // table.block_frames, -(-end // table.block_frames)
    per_channel = len(table.lengths) // channels
    chosen = [c * per_channel + i for c in range(channels) for i in range(first, last)]

    def fetch(index: int) -> bytes:
        file.seek(begin + table.offset(index))
        return file.read(int(table.sizes[index]))

    found = np.concatenate(_decode(table, chosen, prior, fetch)).reshape(channels, -1)
    skipped = first * table.block_frames
    return found[:, start - skipped : end - skipped]


def _decode(
    table: BlockTable,
    chosen: Sequence[int],
    prior: CausalPrior,
    fetch: Callable[[int], bytes],
) -> list[np.ndarray]:
    """The indices of each chosen block; ``fetch`` gives its bytes."""
    if prior.codebook_size != table.codebook_size:
        raise CodesError(
            f"the prior {prior.id} is for {prior.codebook_size} codes, not {table.codebook_size}"
        )
    parts: list[np.ndarray] = []
    for first in range(0, len(chosen), _BATCH):
        batch = chosen[first : first + _BATCH]
        # Longest first, so that finished blocks are the last rows.
        coded = sorted((i for i in batch if table.coded[i]), key=lambda i: -table.lengths[i])
        decoded = dict(zip(coded, _decode_coded(table, coded, list(map(fetch, coded)), prior)))
        for i in batch:
            if i not in decoded:
                decoded[i] = unpack_indices(fetch(i), int(table.lengths[i]), table.bits)
        parts += [decoded[i] for i in batch]
    return parts


def _decode_coded(
    table: BlockTable, blocks: list[int], strings: list[bytes], prior: CausalPrior
) -> list[np.ndarray]:
    """The codes of entropy-coded blocks, sorted by length, longest first."""
    if not blocks:
        return []
    lengths = table.lengths[blocks]
    decoder = rans.Decoder(strings)
    state = prior.start(len(blocks))
    indices = np.zeros((len(blocks), int(lengths[0])), np.int32)
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
    if (used != table.sizes[blocks]).any():
        raise CodesError("an entropy-coded block is longer than its codes need")
    return [row[:length] for row, length in zip(indices, lengths)]


def _least_bytes(frames: int | np.ndarray) -> int | np.ndarray:
    """The least size of an entropy-coded block, to which it is padded with zeros.

    This limits a file to 64 frames per 2 bytes, so that a small forged file cannot make a reader
    work for hours.
    """
    return 4 + 2 * (frames // 64)

"""The header of a ``.codes`` file, and what it says about the payload.

The layout is described in ``docs/file-format.md``.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from simvq_audio.bitstream.blocks import read_table
from simvq_audio.bitstream.codings import CODINGS, ENTROPY
from simvq_audio.bitstream.packing import check_codebook_size
from simvq_audio.errors import CodesError

MAGIC = b"SVQC"
# How a stream of packets (framed.py) begins in version 1.
STREAM_MAGIC = b"SV\x01"
VERSION = 1

# Magic, version, payload coding, channels, codes_id, sample rate, codebook size - 1,
# sample count, frame count; the byte strings after the first are fields that struct has no
# integer type for.
_HEADER = struct.Struct(">4sBBB6s3s3s5sI")

HEADER_BYTES = _HEADER.size
TRAILER_BYTES = 4  # CRC-32
OVERHEAD_BYTES = HEADER_BYTES + TRAILER_BYTES

MAX_CHANNELS = 255
_MAX_SAMPLE_RATE = 2**24 - 1
_MAX_SAMPLES = 2**40 - 1
_MAX_FRAMES = 2**32 - 1


class Header(NamedTuple):
    """The fields of a header.

    Attributes:
        coding: number of the payload coding.
        codebook_size: of the first codebook.
    """

    coding: int
    channels: int
    codes_id: str
    sample_rate: int
    codebook_size: int
    num_samples: int
    num_frames: int

    def pack(self) -> bytes:
        """The ``HEADER_BYTES`` at the beginning of a file."""
        return _HEADER.pack(
            MAGIC,
            VERSION,
            self.coding,
            self.channels,
            bytes.fromhex(self.codes_id),
            self.sample_rate.to_bytes(3, "big"),
            (self.codebook_size - 1).to_bytes(3, "big"),
            self.num_samples.to_bytes(5, "big"),
            self.num_frames,
        )


def check_fields(
    channels: int, frames: int, codebook_size: int, sample_rate: int, num_samples: int
) -> None:
    """Raise CodesError if a number is outside the limits of the format or this library."""
    for name, value, low, high in (
        ("channel count", channels, 1, MAX_CHANNELS),
        ("frame count", frames, 0, _MAX_FRAMES),
        ("sample rate", sample_rate, 1, _MAX_SAMPLE_RATE),
        ("sample count", num_samples, 0, _MAX_SAMPLES),
    ):
        if not low <= value <= high:
            raise CodesError(f"the {name} must be {low} to {high}, not {value}")
    check_codebook_size(codebook_size)
    if (frames == 0) != (num_samples == 0):
        raise CodesError(
            f"{frames} frames cannot stand for {num_samples} samples; "
            f"both are zero for an empty recording, neither otherwise"
        )


def read_header(file: BinaryIO, size: int) -> Header:
    """Read the header; check magic, version, coding and length.

    Args:
        file: at its beginning; of the payload, only what its length depends on is read.
        size: bytes in the whole file.

    Raises:
        CodesError: not a ``.codes`` file, one of a later version, or one of the wrong length.
    """
    head = file.read(HEADER_BYTES)
    if head[:3] == STREAM_MAGIC:
        raise CodesError("a stream of packets, not a .codes file; to decode it, add --stream")
    # A file cut inside the magic is called truncated, not foreign.
    if head[:4] != MAGIC[: len(head)]:
        raise CodesError("not a .codes file; give a file that the encoder wrote")
    if len(head) > 4 and head[4] != VERSION:
        raise CodesError(f"file version {head[4]} is not known to this version; update simvq-audio")
    # Before the length, since every coding computes that in its own way.
    if len(head) > 5 and head[5] not in CODINGS:
        raise CodesError(
            f"payload coding {head[5]} is not known to this version; update simvq-audio"
        )
    if len(head) < HEADER_BYTES:
        raise CodesError(
            f"the file is truncated: at least {OVERHEAD_BYTES} bytes expected, {size} found; "
            f"copy it again"
        )
    _, _, coding, channels, codes_id, rate, codebook_size, samples, frames = _HEADER.unpack(head)
    header = Header(
        coding,
        channels,
        codes_id.hex(),
        int.from_bytes(rate, "big"),
        int.from_bytes(codebook_size, "big") + 1,
        int.from_bytes(samples, "big"),
        frames,
    )
    available = max(0, size - OVERHEAD_BYTES)
    expected = OVERHEAD_BYTES + CODINGS[coding].payload_size(
        file, available, channels, frames, header.codebook_size
    )
    if size < expected:
        raise CodesError(
            f"the file is truncated: {expected} bytes expected, {size} found; copy it again"
        )
    if size > expected:
        raise CodesError(
            f"the file is too long: {expected} bytes expected, {size} found; copy it again"
        )
    return header


@dataclass(frozen=True)
class Layout:
    """How the indices of a file are packed.

    Attributes:
        coding: "fixed" or "entropy".
        prior_id: 8 hexadecimal digits of the prior; None at fixed width.
        blocks: entropy-coded blocks and plain ones, over all channels; 0 at fixed width.
        plain_blocks: those in fixed width, which entropy coding would not have made smaller.
    """

    coding: str
    prior_id: str | None = None
    blocks: int = 0
    plain_blocks: int = 0


def read_layout(path: str | os.PathLike[str]) -> Layout:
    """How the indices of a sound ``.codes`` file are packed, without decoding any.

    Raises:
        CodesError: as for ``Codes.load``, if header or length are wrong.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        header = read_header(file, os.fstat(file.fileno()).st_size)
        if header.coding != ENTROPY:
            return Layout("fixed")
        file.seek(HEADER_BYTES)
        table = read_table(file, header.channels, header.num_frames, header.codebook_size)
    plain = len(table.coded) - int(table.coded.sum())
    return Layout("entropy", table.prior_id, len(table.coded), plain)

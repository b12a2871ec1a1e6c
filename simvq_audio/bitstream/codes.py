"""The codes of one recording, and the ``.codes`` file that holds them."""

from __future__ import annotations

import io
import operator
import os
import re
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from simvq_audio.atomic import atomic_path
from simvq_audio.bitstream.blocks import read_table
from simvq_audio.bitstream.codings import CODINGS, ENTROPY, FIXED_WIDTH, SEVERAL
from simvq_audio.bitstream.several import MAX_CODEBOOKS, SeveralCodebooks
from simvq_audio.errors import CodesError, UnknownPriorError

MAGIC = b"SVQC"
# What version 1 of the framed form begins with.
STREAM_MAGIC = b"SV\x01"
VERSION = 1

# Magic, version, payload coding, channels, codes_id, sample rate, codebook size - 1,
# sample count, frame count; the byte strings after the first are fields that struct has no
# integer type for.
_HEADER = struct.Struct(">4sBBB6s3s3s5sI")
_CRC = struct.Struct(">I")

HEADER_BYTES = _HEADER.size
TRAILER_BYTES = _CRC.size
OVERHEAD_BYTES = HEADER_BYTES + TRAILER_BYTES

MAX_CHANNELS = 255
MAX_CODEBOOK_SIZE = 262144
_MAX_SAMPLE_RATE = 2**24 - 1
_MAX_SAMPLES = 2**40 - 1
_MAX_FRAMES = 2**32 - 1

_CODES_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, eq=False)
class Codes:
    """What an encoder makes of one recording: one index per channel and frame, or several.

    Two objects are equal when every field and every index is equal.

    Attributes:
        indices: int32, shape (channels, frames), or (channels, codebooks, frames) with several
            codes a frame; read-only and C-contiguous. The constructor takes any integer dtype,
            takes an array without the first axis as one channel, and copies.
        codebook_size: number of codebook entries, 2 to 262144; each index is below it. With
            several codes a frame, a tuple of 2 to 32 such numbers.
        codes_id: 12 lowercase hex digits that say what an index means; models that share it
            decode each other's codes.
        sample_rate: of the original recording, Hz, 1 to 2**24 - 1.
        num_samples: samples per channel of the original recording, at ``sample_rate``. Zero
            exactly when there are no frames, which stands for an empty recording.

    Raises:
        CodesError: a field has the wrong type, shape or range.
    """

    indices: np.ndarray
    codebook_size: int | tuple[int, ...]
    codes_id: str
    sample_rate: int
    num_samples: int

    def __post_init__(self) -> None:
        try:
            indices = np.asarray(self.indices)
        except (TypeError, ValueError) as error:
            raise CodesError("indices must be an array of integers") from error
        if indices.dtype.kind not in "iu":
            raise CodesError(f"indices must be integers, not {indices.dtype}")
        # Plain integers, so that arithmetic on NumPy scalars cannot overflow later.
        object.__setattr__(self, "codebook_size", _as_sizes(self.codebook_size))
        for name in ("sample_rate", "num_samples"):
            object.__setattr__(self, name, _as_int(name, getattr(self, name)))
        sizes = self.codebook_sizes
        inner = () if len(sizes) == 1 else (len(sizes),)
        if indices.ndim == 1 + len(inner):
            indices = indices[np.newaxis]
        if indices.ndim != 2 + len(inner) or indices.shape[1:-1] != inner:
            shape = ", ".join([*map(str, inner), "frames"])
            raise CodesError(
                f"indices must have the shape (channels, {shape}) or ({shape}), not {indices.shape}"
            )
        if not isinstance(self.codes_id, str):
            raise CodesError(f"codes_id must be a string, not {type(self.codes_id).__name__}")
        if not _CODES_ID.fullmatch(self.codes_id):
            raise CodesError(f"codes_id must be 12 lowercase hex digits, not {self.codes_id!r}")
        channels, frames = indices.shape[0], indices.shape[-1]
        for number, size in enumerate(sizes):
            _check_fields(channels, frames, size, self.sample_rate, self.num_samples)
            of_one = indices[:, number] if inner else indices
            # Before the cast to int32, which would wrap values of wider types into the range.
            if of_one.size and (of_one.min() < 0 or of_one.max() >= size):
                raise CodesError(
                    f"indices run from {of_one.min()} to {of_one.max()}, but a codebook of "
                    f"{size} entries has 0 to {size - 1}"
                )
        # A copy, so that freezing it does not freeze the caller's array.
        stored = np.array(indices, dtype=np.int32, order="C")
        stored.setflags(write=False)
        object.__setattr__(self, "indices", stored)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Codes):
            return NotImplemented
        return self._scalars() == other._scalars() and np.array_equal(self.indices, other.indices)

    def __hash__(self) -> int:
        return hash((self._scalars(), self.indices.shape, self.indices.tobytes()))

    def _scalars(self) -> tuple[int | tuple[int, ...], str, int, int]:
        return self.codebook_size, self.codes_id, self.sample_rate, self.num_samples

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.indices.shape[0]

    @property
    def num_frames(self) -> int:
        """Frames per channel."""
        return self.indices.shape[-1]

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Entries of each codebook that a frame has an index into."""
        size = self.codebook_size
        return size if isinstance(size, tuple) else (size,)

    @property
    def bits_per_code(self) -> int | tuple[int, ...]:
        """Bits that one index takes in fixed width; of each codebook, if there are several."""
        bits = tuple(map(_bits_per_code, self.codebook_sizes))
        return bits if isinstance(self.codebook_size, tuple) else bits[0]

    @property
    def bits_per_frame(self) -> int:
        """Bits that the indices of a frame take in fixed width: ceil(log2(size)) each."""
        return sum(map(_bits_per_code, self.codebook_sizes))

    @property
    def duration(self) -> float:
        """Length of the original recording in seconds."""
        return self.num_samples / self.sample_rate

    @property
    def payload_bits(self) -> int:
        """Bits that all indices of all channels take, without header, padding and CRC."""
        return self.channels * self.num_frames * self.bits_per_frame

    @property
    def payload_bitrate(self) -> float:
        """Payload bits a second of one channel, bit/s; 0.0 for an empty recording."""
        return self.payload_bits / self.duration / self.channels if self.num_samples else 0.0

    def to_bytes(self, coding: str = "entropy") -> bytes:
        """Return the content of a ``.codes`` file; equal codes give equal bytes.

        Args:
            coding: "entropy", which gives way to fixed width where there is no prior for such
                codes or it would save nothing; or "fixed".

        Raises:
            CodesError: another coding.
        """
        number, payload = self._pack(coding)
        header = _HEADER.pack(
            MAGIC,
            VERSION,
            number,
            self.channels,
            bytes.fromhex(self.codes_id),
            self.sample_rate.to_bytes(3, "big"),
            (self.codebook_sizes[0] - 1).to_bytes(3, "big"),
            self.num_samples.to_bytes(5, "big"),
            self.num_frames,
        )
        crc = zlib.crc32(payload, zlib.crc32(header))
        return b"".join((header, payload, _CRC.pack(crc)))

    def _pack(self, coding: str) -> tuple[int, bytes]:
        """(number of the coding, payload)."""
        if coding not in ("entropy", "fixed"):
            raise CodesError(f'the coding must be "entropy" or "fixed", not {coding!r}')
        arguments = self.indices, self.codebook_size, self.codes_id
        plain = SEVERAL if isinstance(self.codebook_size, tuple) else FIXED_WIDTH
        fixed = CODINGS[plain].pack(*arguments)
        assert fixed is not None  # only entropy coding can lack what it needs
        if plain == SEVERAL:
            return SEVERAL, fixed
        coded = CODINGS[ENTROPY].pack(*arguments) if coding == "entropy" else None
        if coded is not None and len(coded) < len(fixed):
            return ENTROPY, coded
        return FIXED_WIDTH, fixed

    @classmethod
    def from_bytes(cls, data: bytes) -> Codes:
        """Read the content of a ``.codes`` file.

        Nothing is allocated for the indices before length, CRC and header are found sound.

        Raises:
            CodesError: the bytes are not a whole, undamaged file of a known version.
        """
        _check_layout(io.BytesIO(data), len(data))
        payload_end = len(data) - TRAILER_BYTES
        (crc,) = _CRC.unpack_from(data, payload_end)
        if zlib.crc32(memoryview(data)[:payload_end]) != crc:
            raise CodesError(
                "the file was altered or damaged (its checksum does not match); copy it again"
            )
        _, _, _, channels, codes_id, rate, size, samples, frames = _HEADER.unpack_from(data)
        codebook_size = int.from_bytes(size, "big") + 1
        sample_rate = int.from_bytes(rate, "big")
        num_samples = int.from_bytes(samples, "big")
        try:
            # First the header alone: it decides how much memory unpacking takes.
            _check_fields(channels, frames, codebook_size, sample_rate, num_samples)
            payload = data[HEADER_BYTES:payload_end]
            sizes: int | tuple[int, ...] = codebook_size
            if data[5] == SEVERAL:
                sizes = SeveralCodebooks().codebook_sizes(payload)
                for size in sizes:
                    _check_fields(channels, frames, size, sample_rate, num_samples)
            indices = CODINGS[data[5]].unpack(payload, channels, frames, codebook_size)
            return cls(
                indices=indices,
                codebook_size=sizes,
                codes_id=codes_id.hex(),
                sample_rate=sample_rate,
                num_samples=num_samples,
            )
        except UnknownPriorError:
            raise
        except CodesError as error:
            # The CRC fits, so this is what the writer wrote: copying again would not help.
            raise CodesError(
                f"the file was written wrongly ({error}); encode the recording again"
            ) from error

    def save(self, path: str | os.PathLike[str], coding: str = "entropy") -> None:
        """Write a ``.codes`` file that appears whole or not at all.

        Args:
            coding: as for ``to_bytes``.

        Raises:
            CodesError: the file cannot be written.
        """
        data = self.to_bytes(coding)
        try:
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
        except (OSError, ValueError) as error:
            raise CodesError(
                f"{_one_line(path)}: cannot be written ({_reason(error)}); "
                f"check the folder and the free space"
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Codes:
        """Read a ``.codes`` file.

        The size of the file is compared with its header before the payload is read.

        Raises:
            CodesError: the file cannot be read, or is not a whole, undamaged file of a known
                version; the message begins with the path.
        """
        try:
            # Before opening, since opening a pipe would wait for a writer.
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise CodesError("not a regular file; give the path of a .codes file")
            with Path(path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                _check_layout(file, size)
                file.seek(0)
                return cls.from_bytes(file.read(size))
        except CodesError as error:
            raise CodesError(f"{_one_line(path)}: {error}") from error
        # ValueError is what a path with a null character gives.
        except (OSError, ValueError) as error:
            raise CodesError(
                f"{_one_line(path)}: cannot be read ({_reason(error)}); check the path"
            ) from error


@dataclass(frozen=True)
class Layout:
    """How the indices of a file are packed.

    Attributes:
        coding: "fixed" or "entropy".
        prior_id: 8 hexadecimal digits of the prior; None at fixed width.
        blocks: entropy-coded blocks and plain ones, over all channels; 0 at fixed width.
        plain_blocks: those among them that entropy coding would not have made smaller.
    """

    coding: str
    prior_id: str | None = None
    blocks: int = 0
    plain_blocks: int = 0


def read_layout(path: str | os.PathLike[str]) -> Layout:
    """How the indices of a sound ``.codes`` file are packed; none of them is decoded.

    Raises:
        CodesError: as for ``Codes.load``, if header or length are wrong.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        _check_layout(file, os.fstat(file.fileno()).st_size)
        file.seek(0)
        head = file.read(HEADER_BYTES)
        _, _, coding, channels, _, _, codebook_field, _, frames = _HEADER.unpack(head)
        if coding in (FIXED_WIDTH, SEVERAL):
            return Layout("fixed")
        size = int.from_bytes(codebook_field, "big") + 1
        table = read_table(file, channels, frames, size)
    plain = len(table.coded) - int(table.coded.sum())
    return Layout("entropy", table.prior_id, len(table.coded), plain)


def _bits_per_code(codebook_size: int) -> int:
    return (codebook_size - 1).bit_length()


def _as_sizes(value: object) -> int | tuple[int, ...]:
    if not isinstance(value, (tuple, list)):
        return _as_int("codebook_size", value)
    if not 2 <= len(value) <= MAX_CODEBOOKS:
        raise CodesError(f"there must be 2 to {MAX_CODEBOOKS} codebooks, not {len(value)}")
    return tuple(_as_int("codebook_size", size) for size in value)


def _as_int(name: str, value: object) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise CodesError(f"{name} must be an integer, not {type(value).__name__}") from error


def _check_fields(
    channels: int, frames: int, codebook_size: int, sample_rate: int, num_samples: int
) -> None:
    """Raise CodesError if a number is outside what the format or this library allows."""
    for name, value, low, high in (
        ("channel count", channels, 1, MAX_CHANNELS),
        ("frame count", frames, 0, _MAX_FRAMES),
        ("codebook size", codebook_size, 2, MAX_CODEBOOK_SIZE),
        ("sample rate", sample_rate, 1, _MAX_SAMPLE_RATE),
        ("sample count", num_samples, 0, _MAX_SAMPLES),
    ):
        if not low <= value <= high:
            raise CodesError(f"the {name} must be {low} to {high}, not {value}")
    if (frames == 0) != (num_samples == 0):
        raise CodesError(
            f"{frames} frames cannot stand for {num_samples} samples; "
            f"both are zero for an empty recording, neither otherwise"
        )


def _check_layout(file: BinaryIO, size: int) -> None:
    """Check what can be told without decoding: magic, version, length.

    Args:
        file: stands at its beginning; the payload is read no further than its length takes.
        size: bytes in the whole file.

    Raises:
        CodesError: not a ``.codes`` file, one of a later version, or one of the wrong length.
    """
    head = file.read(HEADER_BYTES)
    if head[:3] == STREAM_MAGIC:
        raise CodesError("a stream of packets, not a .codes file; to decode it, add --stream")
    # A file cut inside the magic is still better called truncated than foreign.
    if head[:4] != MAGIC[: len(head)]:
        raise CodesError("not a .codes file; give a file that the encoder wrote")
    if len(head) > 4 and head[4] != VERSION:
        raise CodesError(f"file version {head[4]} is not known to this version; update simvq-audio")
    # Ahead of the length, which each coding tells in its own way.
    if len(head) > 5 and head[5] not in CODINGS:
        raise CodesError(
            f"payload coding {head[5]} is not known to this version; update simvq-audio"
        )
    if len(head) < HEADER_BYTES:
        raise CodesError(
            f"the file is truncated: at least {OVERHEAD_BYTES} bytes expected, {size} found; "
            f"copy it again"
        )
    _, _, coding, channels, _, _, codebook_field, _, frames = _HEADER.unpack(head)
    codebook_size = int.from_bytes(codebook_field, "big") + 1
    available = max(0, size - OVERHEAD_BYTES)
    expected = OVERHEAD_BYTES + CODINGS[coding].payload_size(
        file, available, channels, frames, codebook_size
    )
    if size < expected:
        raise CodesError(
            f"the file is truncated: {expected} bytes expected, {size} found; copy it again"
        )
    if size > expected:
        raise CodesError(
            f"the file is too long: {expected} bytes expected, {size} found; copy it again"
        )


def _one_line(path: str | os.PathLike[str]) -> str:
    """The path as text, escaped if it would not print on one line."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

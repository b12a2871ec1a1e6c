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

import numpy as np

from simvq_audio.atomic import atomic_path
from simvq_audio.bitstream.codings import CODINGS, MAX_CODEBOOKS, check_coding, pack
from simvq_audio.bitstream.header import (
    HEADER_BYTES,
    TRAILER_BYTES,
    Header,
    check_fields,
    read_header,
)
from simvq_audio.bitstream.packing import bits_per_code
from simvq_audio.errors import CodesError, UnknownPriorError

_CRC = struct.Struct(">I")
_CODES_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, eq=False)
class Codes:
    """The codes of one recording: one index per channel and frame, or several.

    Two objects are equal when every field and every index is equal.

    Attributes:
        indices: int32, shape (channels, frames), or (channels, codebooks, frames) with several
            codes per frame; read-only and C-contiguous. The constructor takes any integer dtype,
            takes an array without the first axis as one channel, and copies.
        codebook_size: number of codebook entries, 2 to 262144; each index is below it. With
            several codes per frame, a tuple of 2 to 32 such numbers.
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
            check_fields(channels, frames, size, self.sample_rate, self.num_samples)
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
        bits = tuple(map(bits_per_code, self.codebook_sizes))
        return bits if isinstance(self.codebook_size, tuple) else bits[0]

    @property
    def bits_per_frame(self) -> int:
        """Bits that the indices of a frame take in fixed width: ceil(log2(size)) each."""
        return sum(map(bits_per_code, self.codebook_sizes))

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
        """Payload bits per second of one channel, bit/s; 0.0 for an empty recording."""
        return self.payload_bits / self.duration / self.channels if self.num_samples else 0.0

    def to_bytes(self, coding: str = "entropy") -> bytes:
        """Return the content of a ``.codes`` file; equal codes give equal bytes.

        Args:
            coding: "entropy", which falls back to fixed width if there is no prior for such codes
                or nothing would be saved; or "fixed".

        Raises:
            CodesError: another coding.
        """
        check_coding(coding)
        number, payload = pack(self.indices, self.codebook_sizes, self.codes_id, coding)
        header = Header(
            number,
            self.channels,
            self.codes_id,
            self.sample_rate,
            self.codebook_sizes[0],
            self.num_samples,
            self.num_frames,
        ).pack()
        crc = zlib.crc32(payload, zlib.crc32(header))
        return b"".join((header, payload, _CRC.pack(crc)))

    @classmethod
    def from_bytes(cls, data: bytes) -> Codes:
        """Read the content of a ``.codes`` file.

        Length, CRC and header are checked before memory for the indices is allocated.

        Raises:
            CodesError: the bytes are not a whole, undamaged file of a known version.
        """
        header = read_header(io.BytesIO(data), len(data))
        payload_end = len(data) - TRAILER_BYTES
        (crc,) = _CRC.unpack_from(data, payload_end)
        if zlib.crc32(memoryview(data)[:payload_end]) != crc:
            raise CodesError(
                "the file was altered or damaged (its checksum does not match); copy it again"
            )
        channels, frames = header.channels, header.num_frames
        try:
            # Before unpacking, whose memory grows with these numbers.
            check_fields(
                channels, frames, header.codebook_size, header.sample_rate, header.num_samples
            )
            indices, codebook_size = CODINGS[header.coding].unpack(
                data[HEADER_BYTES:payload_end], channels, frames, header.codebook_size
            )
            return cls(
                indices=indices,
                codebook_size=codebook_size,
                codes_id=header.codes_id,
                sample_rate=header.sample_rate,
                num_samples=header.num_samples,
            )
        except UnknownPriorError:
            raise
        except CodesError as error:
            # The CRC fits, so the file was written like this: copying it again would not help.
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
                read_header(file, size)
                file.seek(0)
                return cls.from_bytes(file.read(size))
        except CodesError as error:
            raise CodesError(f"{_one_line(path)}: {error}") from error
        # A path with a null character raises ValueError.
        except (OSError, ValueError) as error:
            raise CodesError(
                f"{_one_line(path)}: cannot be read ({_reason(error)}); check the path"
            ) from error


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


def _one_line(path: str | os.PathLike[str]) -> str:
    """The path, escaped if it does not print on one line."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

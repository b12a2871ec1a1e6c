"""A ``.codes`` file of which parts are read, from any place on."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

import numpy as np

from simvq_audio.bitstream.blocks import decode_range, read_table
from simvq_audio.bitstream.codings import ENTROPY, SEVERAL, read_codebook_sizes
from simvq_audio.bitstream.header import HEADER_BYTES, check_fields, read_header
from simvq_audio.bitstream.packing import bits_per_code, packed_size, unpack_indices
from simvq_audio.errors import CodesError
from simvq_audio.prior import prior_by_id


class CodesFile:
    """The codes in a file, of which frames are read as they are asked for.

    >>> with CodesFile("lecture.codes") as codes:
    ...     waveform = codec.decode(codes, start=600.0, end=630.0)

    Header and length are checked at once. The checksum is not, since it covers the whole file:
    ``Codes.load`` reads that and checks it. What is read here is checked as far as it goes: an
    entropy-coded block must end where its codes do, and every index must be in the codebook.

    Attributes:
        channels, codebook_size, codes_id, sample_rate, num_samples, num_frames: as those of
            ``Codes``.

    Args:
        source: a path, or a seekable binary file, which stays open when this is closed.
        name: of a binary file, for messages.

    Raises:
        CodesError: the file cannot be read, or its header or length are wrong.
    """

    def __init__(self, source: str | os.PathLike[str] | BinaryIO, name: str = "the file") -> None:
        self._owned = isinstance(source, (str, os.PathLike))
        if isinstance(source, (str, os.PathLike)):
            text = os.fspath(source)
            self._name = text if text.isprintable() else repr(text)
            self._file = self._open(source)
        else:
            self._name, self._file = name, source
        try:
            self._read_header()
        except CodesError as error:
            self.close()
            raise CodesError(f"{self._name}: {error}") from error

    def _open(self, path: str | os.PathLike[str]) -> BinaryIO:
        try:
            # Before opening, since opening a pipe would wait for a writer.
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise CodesError(
                    f"{self._name}: not a regular file; give the path of a .codes file"
                )
            return Path(path).open("rb")
        # A path with a null character raises ValueError.
        except (OSError, ValueError) as error:
            if isinstance(error, CodesError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise CodesError(f"{self._name}: cannot be read ({reason}); check the path") from error

    def _read_header(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        header = read_header(self._file, size)
        self._coding, self.channels = header.coding, header.channels
        self.codes_id, self.sample_rate = header.codes_id, header.sample_rate
        self.num_samples, self.num_frames = header.num_samples, header.num_frames
        self.codebook_size: int | tuple[int, ...] = header.codebook_size
        self._begin = HEADER_BYTES
        self._file.seek(HEADER_BYTES)
        if self._coding == SEVERAL:
            self.codebook_size = read_codebook_sizes(self._file)
            self._begin = self._file.tell()
        for entries in self.codebook_sizes:
            check_fields(
                self.channels, self.num_frames, entries, self.sample_rate, self.num_samples
            )

    def __enter__(self) -> CodesFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, if it was opened here."""
        if self._owned:
            self._file.close()

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Entries of each codebook that a frame has an index into."""
        size = self.codebook_size
        return size if isinstance(size, tuple) else (size,)

    @property
    def duration(self) -> float:
        """Length of the recording in seconds."""
        return self.num_samples / self.sample_rate

    def read(self, start: int = 0, end: int | None = None) -> np.ndarray:
        """The indices of some frames; nothing else is read from the file but what holds them.

        Args:
            start, end: frames, 0 <= start <= end <= num_frames; None: to the end.

        Returns:
            int32, (channels, end - start), or (channels, codebooks, end - start).

        Raises:
            CodesError: the file is damaged there, or was coded with an unknown prior.
            IndexError: there are no such frames.
        """
        end = self.num_frames if end is None else end
        if not 0 <= start <= end <= self.num_frames:
            raise IndexError(f"frames {start} to {end} of {self.num_frames}")
        sizes = self.codebook_sizes
        inner = (len(sizes),) if self._coding == SEVERAL else ()
        if start == end:
            return np.empty((self.channels, *inner, 0), np.int32)
        try:
            indices = self._read(start, end)
            for number, size in enumerate(sizes):
                of_one = indices[:, number] if inner else indices
                if of_one.max() >= size:
                    raise CodesError(f"the index {of_one.max()} is not in a codebook of {size}")
        except CodesError as error:
            raise CodesError(f"{self._name}: {error}") from error
        return indices

    def _read(self, start: int, end: int) -> np.ndarray:
        frames, sizes = self.num_frames, self.codebook_sizes
        if self._coding == ENTROPY:
            self._file.seek(self._begin)
            table = read_table(self._file, self.channels, frames, sizes[0])
            prior = prior_by_id(table.prior_id)
            return decode_range(self._file, table, prior, self.channels, start, end)
        if self._coding != SEVERAL:
            # Channels follow each other without padding.
            count, bits = self.channels * frames, bits_per_code(sizes[0])
            return np.stack(
                [
                    self._unpack(self._begin, count, bits, first + start, first + end)
                    for first in range(0, count, frames)
                ]
            )
        begin, result = self._begin, np.empty((self.channels, len(sizes), end - start), np.int32)
        for channel in result:
            for row, size in zip(channel, sizes):
                bits = bits_per_code(size)
                row[:] = self._unpack(begin, frames, bits, start, end)
                begin += packed_size(frames, bits)
        return result

    def _unpack(self, begin: int, count: int, bits: int, start: int, end: int) -> np.ndarray:
        """Some of ``count`` indices that are packed from the byte ``begin`` on."""
        # Eight indices fill whole bytes at any width.
        first, last = start - start % 8, min(count, -(-end // 8) * 8)
        self._file.seek(begin + first * bits // 8)
        packed = self._file.read(packed_size(last - first, bits))
        return unpack_indices(packed, last - first, bits)[start - first : end - first]

"""Recordings in files or tar archives, read from any sample."""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from simvq_audio.audio import AudioReader, resample
from simvq_audio.errors import AudioError


class SpanReader(AudioReader):
    """An ``AudioReader`` that can also read from the middle.

    Measured against reading from the start: wav (PCM and ADPCM), flac, ogg vorbis, aiff, au, caf
    (ALAC too) and w64 give the same samples after a seek. Opus differs by less than 0.003 of full
    scale, since libsndfile decodes 80 ms before the target and the decoder's state is longer. MP3
    has noise after a seek, so ``seeks`` is False.

    Attributes:
        seeks: whether ``read_span`` works; otherwise recordings must be read whole.
    """

    def __init__(self, source: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> None:
        super().__init__(source, name)
        # AudioReader replaces the method of the instance, so the class is asked.
        seekable = type(self._file).seekable(self._file)
        self.seeks: bool = (
            seekable and self.num_samples is not None and self._file.format not in ("MP3", "MPEG")
        )

    def read_span(self, start: int, num_samples: int) -> np.ndarray:
        """Return samples ``start`` to ``start + num_samples``, float32, (channels, num_samples).

        Raises:
            AudioError: the file is damaged there or ends before, or holds NaN or infinity.
        """
        import soundfile

        try:
            self._file.seek(start)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{self.name}: is damaged or truncated before "
                f"{start / self.sample_rate:.2f} s ({error.error_string})"
            ) from error
        block = next(self.blocks(num_samples), np.empty((0, self.channels), np.float32))
        if len(block) < num_samples:
            raise AudioError(
                f"{self.name}: ends {num_samples - len(block)} samples before the length that "
                "its header states"
            )
        return np.ascontiguousarray(block.T)


class RecordingFiles:
    """Opens recordings by path, or by archive and member; safe to use from several threads.

    Args:
        shards: archives to read from; None is ignored. Their tables of contents are read once,
            here.

    Raises:
        AudioError: an archive is missing, compressed or damaged.
    """

    def __init__(self, shards: Iterable[str | None]) -> None:
        self._places = {
            shard: {posixpath.normpath(name): place for name, *place in tar_members(Path(shard))}
            for shard in set(shards)
            if shard is not None
        }

    @contextmanager
    def open(self, path: str, shard: str | None) -> Iterator[SpanReader]:
        """Open a file or, with ``shard``, the member ``path`` of that archive.

        Raises:
            AudioError: there is no such file or member, or it is not audio.
        """
        with ExitStack() as stack:
            source: str | BinaryIO = path
            if shard is not None:
                place = self._places[shard].get(posixpath.normpath(path))
                if place is None:
                    raise AudioError(f"{path}: is not in {shard}")
                source = cast("BinaryIO", stack.enter_context(_Member(shard, *place)))
            reader = SpanReader(source, path)
            stack.enter_context(reader)
            yield reader


def read_mono(reader: SpanReader, sample_rate: int) -> np.ndarray:
    """Return the whole recording, mixed down and resampled: (samples,) float32.

    Raises:
        AudioError: it is damaged, holds NaN or infinity, or no samples.
    """
    waveform = reader.read()
    if not waveform.shape[1]:
        raise AudioError(f"{reader.name}: holds no samples")
    return resample(mix_down(waveform), reader.sample_rate, sample_rate)[0]


def mix_down(waveform: np.ndarray) -> np.ndarray:
    """Mean over channels: (channels, samples) -> (1, samples)."""
    return waveform.mean(axis=0, keepdims=True)


def tar_members(archive: Path) -> list[tuple[str, int, int]]:
    """Name, position and size in bytes of every regular file in a tar archive.

    Raises:
        AudioError: the archive is missing, compressed or damaged.
    """
    try:
        # Uncompressed only, since a compressed archive cannot be read from the middle.
        with tarfile.open(archive, "r:") as tar:
            return [(m.name, m.offset_data, m.size) for m in tar if m.isreg() and not m.issparse()]
    except OSError as error:
        raise AudioError(f"{archive}: cannot be read ({error.strerror or error})") from error
    except tarfile.TarError as error:
        raise AudioError(
            f"{archive}: is not an uncompressed tar archive, or is damaged ({error}); "
            "unpack a compressed one and give its folder"
        ) from error


class _Member(io.RawIOBase):
    """A member of a tar archive, as a file."""

    def __init__(self, archive: str, start: int, size: int) -> None:
        super().__init__()
        try:
            self._file = open(archive, "rb")
        except OSError as error:
            raise AudioError(f"{archive}: cannot be read ({error.strerror})") from error
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._position))
        self._file.seek(self._start + self._position)
        count = self._file.readinto(view[:count]) or 0
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()

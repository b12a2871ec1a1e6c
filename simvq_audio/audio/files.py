"""Audio files in and out, through libsndfile."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import AudioError

# Suffixes of recordings in folders; a single file may be anything that libsndfile reads.
AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64"}
)
_SUPPORTED = "wav, flac, ogg, opus, mp3, aiff, au, caf and w64 can be read"

_FORMATS = {".wav": "WAV", ".flac": "FLAC"}
_PCM16_BYTES = 2
_MAX_WAV_BYTES = 2**32 - 1
# More than libsndfile's WAV headers.
_WAV_HEADER_BYTES = 1024
_MAX_WAV_CHANNELS = 1024
_MAX_FLAC_CHANNELS = 8
_MAX_FLAC_RATE = 655_350
# FLAC frame headers store rates from here on in units of ten.
_FLAC_COARSE_RATE = 65_536

DEFAULT_BLOCK_SAMPLES = 1 << 17


def output_format(path: str | os.PathLike[str]) -> str:
    """Return the libsndfile format, "WAV" or "FLAC", for the suffix of ``path``.

    Raises:
        AudioError: another suffix.
    """
    try:
        return _FORMATS[Path(path).suffix.lower()]
    except KeyError:
        raise AudioError(f"{path}: audio is written as .wav or .flac; use one of these") from None


class AudioReader:
    """A recording that is read block by block; a context manager.

    Attributes:
        name: of the recording in messages.
        sample_rate: Hz.
        channels: number of channels.
        num_samples: samples per channel according to the header, or None if it does not say. A
            truncated file can have fewer.

    Args:
        source: a path, or a seekable binary file at its start.
        name: of the recording in messages; default: the path.

    Raises:
        AudioError: there is no such file, it is a folder or empty, or is not audio.
    """

    def __init__(self, source: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> None:
        import soundfile

        if isinstance(source, (str, os.PathLike)):
            self.name = name or os.fspath(source)
            source = self._checked(source)
        else:
            self.name = name or "the audio stream"
            if not source.seek(0, os.SEEK_END):
                raise AudioError(f"{self.name}: is empty (0 bytes)")
            source.seek(0)
        try:
            self._file = soundfile.SoundFile(source)
        # soundfile raises TypeError for headerless .raw.
        except (soundfile.LibsndfileError, TypeError) as error:
            raise AudioError(
                f"{self.name}: is not audio in a known format; {_SUPPORTED}"
            ) from error
        # soundfile seeks to the current position after every read. In an MP3 this loses what
        # the decoder carries over from frame to frame, and noise appears where blocks meet; in
        # a FLAC of unstated length it fails. A file that counts as not seekable is left alone.
        self._file.seekable = lambda: False  # type: ignore[method-assign]
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        # libsndfile gives its largest integer for streams that do not state a length.
        frames = self._file.frames
        self.num_samples: int | None = frames if 0 <= frames < 2**62 else None

    def _checked(self, path: str | os.PathLike[str]) -> str | BinaryIO:
        """Explain common mistakes, which libsndfile reports as "System error"."""
        try:
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                raise AudioError(f"{self.name}: is a folder, not an audio file")
            with open(path, "rb") as file:
                if not stat.S_ISREG(status.st_mode):
                    # A named pipe or <(command): libsndfile must seek to detect most formats.
                    return io.BytesIO(file.read())
            if status.st_size == 0:
                raise AudioError(f"{self.name}: is empty (0 bytes)")
            return os.fspath(path)
        except OSError as error:
            raise AudioError(f"{self.name}: cannot be read ({error.strerror})") from error

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    @property
    def duration(self) -> float | None:
        """Seconds according to the header, or None if it does not say."""
        return None if self.num_samples is None else self.num_samples / self.sample_rate

    def blocks(self, block_samples: int = DEFAULT_BLOCK_SAMPLES) -> Iterator[np.ndarray]:
        """Yield the recording from the current position to its end.

        Values are those of the file; a float file may exceed +-1.

        Args:
            block_samples: samples per block; the last block can be shorter, none is empty.

        Yields:
            float32, shape (samples, channels), a new array each.

        Raises:
            AudioError: the file is damaged, or holds NaN or infinity.
        """
        import soundfile

        position = 0
        while True:
            try:
                block = self._file.read(block_samples, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise AudioError(
                    f"{self.name}: is damaged or truncated after "
                    f"{position / self.sample_rate:.2f} s ({error.error_string})"
                ) from error
            if not len(block):
                return
            finite = np.isfinite(block)
            if not finite.all():
                sample, channel = np.argwhere(~finite)[0]
                raise AudioError(
                    f"{self.name}: holds {block[sample, channel]} at "
                    f"{(position + sample) / self.sample_rate:.6f} s (sample "
                    f"{position + sample}, channel {channel + 1}); repair the recording first"
                )
            position += len(block)
            yield block

    def read(self) -> np.ndarray:
        """Return the rest of the recording as float32, shape (channels, samples).

        Raises:
            AudioError: the file is damaged, or holds NaN or infinity.
        """
        blocks = [np.empty((0, self.channels), np.float32), *self.blocks()]
        return np.ascontiguousarray(np.concatenate(blocks).T)


def read_audio(path: str | os.PathLike[str] | BinaryIO) -> tuple[np.ndarray, int]:
    """Read a whole recording.

    Returns:
        the waveform, float32, shape (channels, samples), and its sample rate in Hz.

    Raises:
        AudioError: there is no such file, it is not audio, is damaged, or holds NaN or infinity.
    """
    with AudioReader(path) as reader:
        return reader.read(), reader.sample_rate


class AudioWriter:
    """A 16-bit WAV or FLAC file that is written block by block; a context manager.

    A path appears whole when the context ends without an exception, and not at all otherwise.
    A stream is written then too, since a WAV header states the length and a pipe cannot be
    rewound.

    Attributes:
        clipped: values beyond full scale so far, which were set to full scale.
        num_samples: samples per channel so far.

    Args:
        target: a path with the suffix .wav or .flac, or a binary stream, which gets WAV.
        sample_rate: Hz.
        channels: number of channels.
        expected_samples: samples per channel that will be written, if known; needed for WAV files
            of more than 4 GiB.

    Raises:
        AudioError: another suffix, or a rate or number of channels that the format cannot hold.
        OSError: on entry or exit, the file cannot be written.
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | BinaryIO,
        sample_rate: int,
        channels: int,
        expected_samples: int | None = None,
    ) -> None:
        self._target = target
        if isinstance(target, (str, os.PathLike)):
            self._name, self._format = os.fspath(target), output_format(target)
        else:
            self._name, self._format = "the audio stream", "WAV"
        self._sample_rate = sample_rate
        self._channels = channels
        self.clipped = 0
        self.num_samples = 0
        self._check_limits()
        expected = (expected_samples or 0) * channels * _PCM16_BYTES + _WAV_HEADER_BYTES
        if self._format == "WAV" and expected > _MAX_WAV_BYTES:
            # The sizes in a WAV header have 32 bits. RF64 is WAV with 64-bit sizes; it is
            # read by fewer programs, so shorter recordings stay plain WAV.
            self._format = "RF64"

    def _check_limits(self) -> None:
        rate, channels = self._sample_rate, self._channels
        if self._format == "FLAC":
            if channels > _MAX_FLAC_CHANNELS:
                raise AudioError(
                    f"{self._name}: FLAC holds up to {_MAX_FLAC_CHANNELS} channels, "
                    f"not {channels}; write .wav"
                )
            if rate > _MAX_FLAC_RATE or (rate >= _FLAC_COARSE_RATE and rate % 10):
                raise AudioError(f"{self._name}: FLAC cannot hold a rate of {rate} Hz; write .wav")
        if not (1 <= channels <= _MAX_WAV_CHANNELS and 1 <= rate < 2**31):
            raise AudioError(f"{self._name}: cannot hold {channels} channels at {rate} Hz")

    def __enter__(self) -> AudioWriter:
        import soundfile

        with ExitStack() as stack:
            if isinstance(self._target, (str, os.PathLike)):
                self._path = stack.enter_context(atomic_path(self._target))
            else:
                # A file instead of memory, for recordings of hours. By its path, since soundfile
                # cannot report a full disk when it writes to a Python file object.
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                self._path = Path(folder, "stream.wav")
            try:
                self._file = soundfile.SoundFile(
                    self._path,
                    "w",
                    self._sample_rate,
                    self._channels,
                    subtype="PCM_16",
                    format=self._format,
                )
            except soundfile.LibsndfileError as error:
                raise AudioError(f"{self._name}: {error.error_string}") from error
            stack.callback(self._close_quietly)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exception is not None:
            # atomic_path sees the exception and removes what was written so far.
            self._stack.__exit__(kind, exception, traceback)
            return
        with self._stack:
            self._finish()
            if not isinstance(self._target, (str, os.PathLike)):
                with self._path.open("rb") as content:
                    shutil.copyfileobj(content, self._target)

    def _close_quietly(self) -> None:
        """Close the file while another exception is being raised, without raising."""
        import soundfile

        with suppress(soundfile.LibsndfileError):
            self._file.close()

    def _finish(self) -> None:
        import soundfile

        try:
            self._file.close()
        except soundfile.LibsndfileError as error:
            raise self._write_error(error.error_string) from error
        if self._format == "FLAC" and self.num_samples == 0:
            # libsndfile writes the FLAC header with the first samples; without samples, the file
            # has 0 bytes and no program reads it.
            self._path.write_bytes(_empty_flac(self._sample_rate, self._channels))

    def write(self, block: np.ndarray) -> None:
        """Append a block.

        Args:
            block: float, shape (samples, channels); 1.0 is full scale.

        Raises:
            AudioError: the shape is wrong, a value is NaN or infinite, or a WAV file whose
                length was not given exceeds 4 GiB.
            OSError: the disk is full.
        """
        import soundfile

        if block.ndim != 2 or block.shape[1] != self._channels:
            raise AudioError(
                f"a block must have the shape (samples, {self._channels}), not {block.shape}"
            )
        if not np.isfinite(block).all():
            raise AudioError(f"{self._name}: the samples to write hold NaN or infinity")
        total_bytes = (self.num_samples + len(block)) * self._channels * _PCM16_BYTES
        if self._format == "WAV" and total_bytes + _WAV_HEADER_BYTES > _MAX_WAV_BYTES:
            raise AudioError(f"{self._name}: a WAV file ends at 4 GiB; write .flac")
        self.clipped += int(np.count_nonzero(np.abs(block) > 1))
        # The scale that libsndfile reads with, so that 16-bit files survive unchanged.
        scaled = np.rint(block * np.float32(32768))
        samples = np.clip(scaled, -32768, 32767).astype(np.int16)
        try:
            self._file.write(samples)
        # soundfile raises AssertionError if fewer samples were written than given.
        except (soundfile.LibsndfileError, AssertionError) as error:
            raise self._write_error(getattr(error, "error_string", "")) from error
        self.num_samples += len(block)

    def _write_error(self, reason: str) -> OSError:
        text = "cannot be written; is the disk full?" + (f" ({reason})" if reason else "")
        return OSError(errno.EIO, text, self._name)


def _empty_flac(sample_rate: int, channels: int) -> bytes:
    """Return a FLAC file without samples: the magic and the mandatory STREAMINFO block."""
    # The only block, of type 0, with a content of 34 bytes.
    block_header = b"\x80" + (34).to_bytes(3, "big")
    block_sizes, frame_sizes = (4096).to_bytes(2, "big") * 2, bytes(6)
    # 20 bits of sample rate, 3 of channels - 1, 5 of bits per sample - 1, 36 of samples.
    stream = (sample_rate << 44 | (channels - 1) << 41 | 15 << 36).to_bytes(8, "big")
    unknown_md5 = bytes(16)
    return b"fLaC" + block_header + block_sizes + frame_sizes + stream + unknown_md5

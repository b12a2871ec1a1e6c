"""Encoding and decoding of one file."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simvq_audio.cli.console import (
    STANDARD_STREAM,
    CommandError,
    binary_stdin,
    binary_stdout,
    describe_duration,
    describe_size,
    print_json,
    print_message,
    progress,
)
from simvq_audio.cli.options import CodingOptions
from simvq_audio.cli.paths import CODES_SUFFIX, INDICES_SUFFIX, refuse_same, refuse_target_file
from simvq_audio.errors import CodesError

if TYPE_CHECKING:
    import numpy as np

    from simvq_audio.bitstream import Codes


@dataclass(frozen=True)
class FileReport:
    """What was done with one file.

    Attributes:
        source: the file read.
        target: the file written.
        codes: what was coded.
        codes_bytes: size of the file of codes.
        target_bytes: size of the file written; None for audio on standard output.
        elapsed: seconds, without loading the model.
        clipped: output samples set to full scale; None for an encoder.
    """

    source: str
    target: str
    codes: Codes
    codes_bytes: int
    target_bytes: int | None
    elapsed: float
    clipped: int | None = None

    @property
    def file_kbps(self) -> float:
        """Bit rate of the whole file of codes, kbit/s per channel; 0.0 for an empty recording."""
        seconds = self.codes.duration * self.codes.channels
        return 8 * self.codes_bytes / seconds / 1000 if seconds else 0.0

    @property
    def times_real_time(self) -> float:
        """Seconds of audio per second of work."""
        return self.codes.duration / max(self.elapsed, 1e-9)

    def as_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints about the file."""
        result = {
            "input": self.source,
            "output": self.target,
            "seconds": self.codes.duration,
            "bytes": self.target_bytes,
            "nominal_kbps": self.codes.payload_bitrate / 1000,
            "file_kbps": self.file_kbps,
            "channels": self.codes.channels,
            "sample_rate": self.codes.sample_rate,
            "frames": self.codes.num_frames,
            "elapsed_seconds": self.elapsed,
            "times_real_time": self.times_real_time,
        }
        return result if self.clipped is None else {**result, "clipped_samples": self.clipped}

    def as_text(self) -> str:
        """Return what is printed about the file without ``--json``."""
        codes = self.codes
        each = " a channel" if codes.channels > 1 else ""
        size = "" if self.target_bytes is None else f", {describe_size(self.target_bytes)}"
        text = (
            f"{self.target}: {describe_duration(codes.duration)}, "
            f"{codes.channels} channel{'s' * (codes.channels > 1)}{size}; "
            f"{self.file_kbps:.3f} kbit/s{each} with header "
            f"({codes.payload_bitrate / 1000:.3f} nominal), "
            f"{self.times_real_time:.1f} times real time"
        )
        return f"{text}\n{self.clipped} samples were clipped" if self.clipped else text


def open_codes(source: str) -> tuple[Codes | np.ndarray, int]:
    """Read a ``.codes`` or ``.npy`` file, or standard input, without a model.

    Returns:
        the codes, or bare indices; and their size in bytes.

    Raises:
        CodesError: the file is missing, damaged or of another kind.
    """
    from simvq_audio.bitstream import Codes
    from simvq_audio.codec.files import load_codes

    if source != STANDARD_STREAM:
        path = Path(source)
        return load_codes(path), path.stat().st_size
    data = binary_stdin().read()
    try:
        return Codes.from_bytes(data), len(data)
    except CodesError as error:
        raise CodesError(f"standard input: {error}") from error


def report(outcome: FileReport, settings: CodingOptions) -> None:
    """Print what was done with one file, as the user wants it."""
    if settings.as_json:
        print_json(outcome.as_json())
    elif not settings.quiet:
        print_message(outcome.as_text(), stderr=outcome.target == STANDARD_STREAM)


def refuse_target(source: str, target: str, settings: CodingOptions) -> None:
    """Refuse a target that cannot be written, or is there and must not be overwritten.

    Raises:
        CommandError: it says why.
    """
    if target == STANDARD_STREAM:
        if settings.as_json:
            raise CommandError("--json prints on standard output, so OUT cannot be -")
        binary_stdout()
        return
    refuse_same(source, target)
    refuse_target_file(Path(target), force=settings.force)


def encode_file(source: str, target: str, settings: CodingOptions) -> None:
    """Carry out ``encode`` for one recording.

    Raises:
        SimvqAudioError, OSError: nothing was written.
    """
    from simvq_audio.audio import AudioReader

    to_stdout = target == STANDARD_STREAM
    if not to_stdout and Path(target).suffix.lower() not in (CODES_SUFFIX, INDICES_SUFFIX):
        raise CommandError(
            f"{target}: codes are written as {CODES_SUFFIX}, or as {INDICES_SUFFIX} "
            f"for bare indices; use one of these"
        )
    refuse_target(source, target, settings)
    if source == STANDARD_STREAM:
        stream = binary_stdin()
        # libsndfile must seek, which a pipe cannot.
        opened = stream if stream.seekable() else io.BytesIO(stream.read())
        reader = AudioReader(opened, name="standard input")
    else:
        reader = AudioReader(source)
    with reader:
        codec = settings.load_codec()
        start = time.perf_counter()
        with progress("encoding", reader.duration, quiet=settings.quiet) as advance:
            codes = codec.encode_file(reader, kbps=settings.kbps, progress=advance)
    if to_stdout:
        data = codes.to_bytes(settings.coding)
        binary_stdout().write(data)
        binary_stdout().flush()
        size = len(data)
    else:
        from simvq_audio.codec.files import write_codes

        size = write_codes(codes, Path(target), settings.coding)
    report(FileReport(source, target, codes, size, size, time.perf_counter() - start), settings)


def decode_file(source: str, target: str, native_rate: bool, settings: CodingOptions) -> None:
    """Carry out ``decode`` for one file of codes.

    Raises:
        SimvqAudioError, OSError: nothing was written.
    """
    from simvq_audio.audio import output_format

    to_stdout = target == STANDARD_STREAM
    if not to_stdout:
        output_format(target)
    refuse_target(source, target, settings)
    loaded, codes_bytes = open_codes(source)
    codec = settings.load_codec()
    from simvq_audio.codec.files import checked_codes

    start = time.perf_counter()
    codes = checked_codes(loaded, codec)
    with progress("decoding", codes.duration, quiet=settings.quiet) as advance:
        sink = binary_stdout() if to_stdout else Path(target)
        clipped = codec.decode_file(codes, sink, native_rate=native_rate, progress=advance)
    size = None
    if to_stdout:
        binary_stdout().flush()
    else:
        size = Path(target).stat().st_size
    elapsed = time.perf_counter() - start
    report(FileReport(source, target, codes, codes_bytes, size, elapsed, clipped), settings)

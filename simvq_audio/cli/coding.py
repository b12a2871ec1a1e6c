"""Encoding and decoding of one file."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

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
from simvq_audio.cli.options import Settings
from simvq_audio.cli.paths import CODES_SUFFIX, INDICES_SUFFIX, refuse_same, refuse_target_file
from simvq_audio.errors import CodesError

if TYPE_CHECKING:
    import numpy as np

    from simvq_audio.audio import AudioReader
    from simvq_audio.bitstream import Codes
    from simvq_audio.codec import Codec


@dataclass(frozen=True)
class Outcome:
    """What was done with one file.

    Attributes:
        source: the file read.
        target: the file written.
        codes: what was coded.
        codes_bytes: size of the file of codes.
        target_bytes: size of the file written; None for audio on standard output.
        elapsed: seconds that it took, without loading the model.
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
        """Bit rate of the whole file of codes, kbit/s; 0.0 for an empty recording."""
        seconds = self.codes.duration
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
        size = "" if self.target_bytes is None else f", {describe_size(self.target_bytes)}"
        text = (
            f"{self.target}: {describe_duration(codes.duration)}, "
            f"{codes.channels} channel{'s' * (codes.channels > 1)}{size}; "
            f"{self.file_kbps:.3f} kbit/s with header "
            f"({codes.payload_bitrate / 1000:.3f} nominal), "
            f"{self.times_real_time:.1f} times real time"
        )
        return f"{text}\n{self.clipped} samples were clipped" if self.clipped else text


def write_codes(codes: Codes, target: Path, coding: str) -> int:
    """Write a ``.codes`` file, or bare indices to ``.npy``, whole or not at all.

    Args:
        coding: of the ``.codes`` file, see ``Codes.to_bytes``.

    Returns:
        the size of the file in bytes.
    """
    if target.suffix.lower() == INDICES_SUFFIX:
        import numpy as np

        from simvq_audio.atomic import atomic_path

        indices = codes.indices[0] if codes.channels == 1 else codes.indices
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            np.save(file, indices, allow_pickle=False)
    else:
        codes.save(target, coding)
    return target.stat().st_size


def read_indices(path: Path) -> np.ndarray:
    """Read bare indices from ``.npy``.

    Returns:
        integers, shape (frames,) or (channels, frames), and of a model with several codes a frame
        (codebooks, frames) or (channels, codebooks, frames).

    Raises:
        CodesError: the file is damaged, or holds something else.
    """
    import numpy as np

    try:
        with path.open("rb") as file:
            # Anything else numpy would take for a pickle or a zip archive.
            if file.read(6) != b"\x93NUMPY":
                raise CodesError("it has another signature")
        # Mapped, since that compares the size that the header claims with the size that the
        # file has, where reading would ask for all the memory at once.
        with warnings.catch_warnings():
            # About the absurd shapes of damaged files, which are refused a moment later.
            warnings.simplefilter("ignore")
            indices = np.load(path, mmap_mode="r", allow_pickle=False)
    # numpy parses the header as Python, and reports damage by whatever that raises.
    except Exception as error:
        raise CodesError(f"{path}: cannot be read as .npy ({error})") from error
    if indices.dtype.kind not in "iu" or indices.ndim not in (1, 2, 3):
        raise CodesError(
            f"{path}: holds {indices.dtype} of the shape {indices.shape}; indices are integers "
            f"of the shape (frames,) or (channels, frames)"
        )
    return np.array(indices)


def open_codes(source: str) -> tuple[Codes | np.ndarray, int]:
    """Read a ``.codes`` or ``.npy`` file, or standard input, as far as it goes without a model.

    Returns:
        the codes, or bare indices; and their size in bytes.

    Raises:
        CodesError: the file is missing, damaged or of another kind.
    """
    from simvq_audio.bitstream import Codes

    if source == STANDARD_STREAM:
        data = binary_stdin().read()
        try:
            return Codes.from_bytes(data), len(data)
        except CodesError as error:
            raise CodesError(f"standard input: {error}") from error
    path = Path(source)
    loaded = read_indices(path) if path.suffix.lower() == INDICES_SUFFIX else Codes.load(path)
    return loaded, path.stat().st_size


def checked_codes(codec: Codec, loaded: Codes | np.ndarray) -> Codes:
    """Return codes that ``codec`` can decode.

    Raises:
        CodesError: they belong to another model, or are no indices of this one.
    """
    from simvq_audio.bitstream import Codes

    if not isinstance(loaded, Codes):
        return codec.codes_from_indices(loaded)
    codec.check(loaded)
    return loaded


def encode_stream(
    codec: Codec, reader: AudioReader, advance: Callable[[float], None] = lambda seconds: None
) -> Codes:
    """Encode a recording in flat memory; ``advance`` is told the seconds read."""

    def blocks() -> Iterator[np.ndarray]:
        for block in reader.blocks():
            yield block
            advance(len(block) / reader.sample_rate)

    return codec.encode_stream(blocks(), reader.sample_rate, reader.channels)


def decode_stream(
    codec: Codec,
    codes: Codes,
    target: Path | BinaryIO,
    native_rate: bool,
    advance: Callable[[float], None] = lambda seconds: None,
) -> int:
    """Decode into a file in flat memory; ``advance`` is told the seconds written.

    Returns:
        how many output samples were set to full scale.
    """
    from simvq_audio.audio import AudioWriter, resampled_length

    rate = codec.sample_rate if native_rate else codes.sample_rate
    length = resampled_length(codes.num_samples, codes.sample_rate, rate)
    with AudioWriter(target, rate, codes.channels, length) as writer:
        for block in codec.decode_stream(codes, native_rate=native_rate):
            writer.write(block)
            advance(len(block) / rate)
    return writer.clipped


def report(outcome: Outcome, settings: Settings) -> None:
    """Print what was done with one file, as the user wants it."""
    if settings.as_json:
        print_json(outcome.as_json())
    elif not settings.quiet:
        print_message(outcome.as_text(), stderr=outcome.target == STANDARD_STREAM)


def _refuse_target(source: str, target: str, settings: Settings) -> None:
    if target == STANDARD_STREAM:
        if settings.as_json:
            raise CommandError("--json prints on standard output, so OUT cannot be -")
        binary_stdout()
        return
    refuse_same(source, target)
    refuse_target_file(Path(target), force=settings.force)


def encode_file(source: str, target: str, settings: Settings) -> None:
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
    _refuse_target(source, target, settings)
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
            codes = encode_stream(codec, reader, advance)
    if to_stdout:
        data = codes.to_bytes(settings.coding)
        binary_stdout().write(data)
        binary_stdout().flush()
        size = len(data)
    else:
        size = write_codes(codes, Path(target), settings.coding)
    report(Outcome(source, target, codes, size, size, time.perf_counter() - start), settings)


def decode_file(source: str, target: str, native_rate: bool, settings: Settings) -> None:
    """Carry out ``decode`` for one file of codes.

    Raises:
        SimvqAudioError, OSError: nothing was written.
    """
    from simvq_audio.audio import output_format

    to_stdout = target == STANDARD_STREAM
    if not to_stdout:
        output_format(target)
    _refuse_target(source, target, settings)
    loaded, codes_bytes = open_codes(source)
    codec = settings.load_codec()
    start = time.perf_counter()
    codes = checked_codes(codec, loaded)
    with progress("decoding", codes.duration, quiet=settings.quiet) as advance:
        sink = binary_stdout() if to_stdout else Path(target)
        clipped = decode_stream(codec, codes, sink, native_rate, advance)
    size = None
    if to_stdout:
        binary_stdout().flush()
    else:
        size = Path(target).stat().st_size
    elapsed = time.perf_counter() - start
    report(Outcome(source, target, codes, codes_bytes, size, elapsed, clipped), settings)

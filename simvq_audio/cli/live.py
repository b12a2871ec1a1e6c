"""``encode --stream`` and ``decode --stream``: live audio."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from simvq_audio.cli.code_file import refuse_target
from simvq_audio.cli.console import (
    STANDARD_STREAM,
    CommandError,
    binary_stdin,
    binary_stdout,
    describe_duration,
    print_json,
    print_message,
)
from simvq_audio.cli.options import CodingOptions
from simvq_audio.errors import CodesError

if TYPE_CHECKING:
    import numpy as np

_READ_BYTES = 1 << 16


@dataclass(frozen=True)
class RawAudio:
    """Samples without a header.

    Attributes:
        format: one of ``audio.pcm.PCM_FORMATS``.
        sample_rate, channels: of the input; None for output, whose stream names them.
    """

    format: str
    sample_rate: int | None = None
    channels: int | None = None


def encode_live(
    source: str, target: str, raw: RawAudio | None, packet_ms: float, settings: CodingOptions
) -> None:
    """Carry out ``encode --stream``.

    Raises:
        SimvqAudioError, OSError: the packets until then were written.
    """
    from simvq_audio.audio.pcm import PcmReader, sample_bytes

    if raw is not None:
        sample_bytes(raw.format)  # refuses unknown formats
        if raw.sample_rate is None:
            raise CommandError("--raw samples have no header; add --rate, as in --rate 16000")
    refuse_target(source, target, settings)
    with _opened(source) as (stream, name):
        # The model is loaded first; what a microphone records meanwhile waits in the pipe.
        codec = settings.load_codec()
        from simvq_audio.codec.live import PacketEncoder

        if raw is None:
            reader = PcmReader(stream, name)
        else:
            rate, channels = raw.sample_rate or 0, raw.channels or 1
            reader = PcmReader(stream, name, raw.format, rate, channels)
        encoder = PacketEncoder(
            codec,
            reader.sample_rate,
            reader.channels,
            packet_ms=packet_ms,
            coding=settings.coding,
        )
        with _sink(target) as write:
            write(encoder.push(_nothing(reader.channels)))
            for samples in _gathered(reader, int(reader.sample_rate * packet_ms / 1000)):
                write(encoder.push(samples.T))
            write(encoder.finish())
    seconds = encoder.num_samples / encoder.sample_rate
    _report(target, seconds, reader.channels, encoder.num_bytes, encoder.num_frames, settings)


def decode_live(
    source: str, target: str, raw: str | None, native_rate: bool, settings: CodingOptions
) -> None:
    """Carry out ``decode --stream``.

    Raises:
        SimvqAudioError, OSError: all sound packets until then were written.
    """
    from simvq_audio.audio.pcm import sample_bytes

    if raw is not None:
        sample_bytes(raw)
    elif target != STANDARD_STREAM:
        from simvq_audio.audio import output_format

        output_format(target)
    refuse_target(source, target, settings)
    with _opened(source) as (stream, name):
        codec = settings.load_codec()
        from simvq_audio.codec.live import PacketDecoder

        decoder = PacketDecoder(codec, native_rate=native_rate)
        try:
            first = _until_head(stream, decoder)
            assert decoder.head is not None
            with _audio_sink(target, raw, decoder.sample_rate, decoder.head.channels) as write:
                write(first)
                while data := stream.read1(_READ_BYTES):  # type: ignore[attr-defined]
                    write(decoder.push(data))
                write(decoder.finish())
        except CodesError as error:
            raise CodesError(f"{name}: {error}") from error
    seconds = decoder.num_samples / decoder.sample_rate
    channels = decoder.head.channels
    _report(target, seconds, channels, decoder.num_bytes, decoder.num_frames, settings)
    if decoder.problem is not None:
        raise CommandError(f"{name}: {decoder.problem}; {seconds:.2f} s were decoded")


def _until_head(stream: BinaryIO, decoder: Any) -> np.ndarray:
    """Read until the head has arrived; return the samples decoded so far."""
    while True:
        data = stream.read1(_READ_BYTES)  # type: ignore[attr-defined]
        if not data:
            decoder.finish()  # refuses, since there is no head
        samples = decoder.push(data)
        if decoder.head is not None:
            return samples


def _nothing(channels: int) -> np.ndarray:
    import numpy as np

    return np.empty((channels, 0), np.float32)


def _gathered(reader: Any, least: int) -> Iterator[np.ndarray]:
    """The samples of a reader in pieces of at least ``least``, each for one pass of the model."""
    import numpy as np

    held: list[np.ndarray] = []
    while (samples := reader.read()) is not None:
        held.append(samples)
        if sum(map(len, held)) >= least:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


@contextmanager
def _opened(source: str) -> Iterator[tuple[BinaryIO, str]]:
    if source == STANDARD_STREAM:
        yield binary_stdin(), "standard input"
        return
    with open(source, "rb") as file:
        yield file, source


@contextmanager
def _sink(target: str) -> Iterator[Callable[[bytes], None]]:
    """Output of bytes, written at each call."""
    place = nullcontext(binary_stdout()) if target == STANDARD_STREAM else open(target, "wb")
    with place as file:

        def write(data: bytes) -> None:
            if data:
                file.write(data)
                file.flush()

        yield write


@contextmanager
def _audio_sink(
    target: str, raw: str | None, sample_rate: int, channels: int
) -> Iterator[Callable[[np.ndarray], None]]:
    """Output of (channels, samples): PCM or WAV at each call, an audio file at the end."""
    from simvq_audio.audio import AudioWriter
    from simvq_audio.audio.pcm import to_pcm, wav_header

    if raw is None and target != STANDARD_STREAM:
        with AudioWriter(target, sample_rate, channels) as writer:
            yield lambda samples: writer.write(samples.T)
        return
    with _sink(target) as write:
        if raw is None:
            write(wav_header(sample_rate, channels))
        yield lambda samples: write(to_pcm(samples.T, raw or "s16le")[0])


def _report(
    target: str, seconds: float, channels: int, num_bytes: int, frames: int, settings: CodingOptions
) -> None:
    kbps = 8 * num_bytes / seconds / channels / 1000 if seconds else 0.0
    if settings.as_json:
        print_json(
            {
                "output": target,
                "seconds": seconds,
                "bytes": num_bytes,
                "stream_kbps": kbps,
                "channels": channels,
                "frames": frames,
            }
        )
    elif not settings.quiet:
        each = " a channel" if channels > 1 else ""
        text = (
            f"{target}: {describe_duration(seconds)}, {channels} channel{'s' * (channels > 1)}; "
            f"{kbps:.3f} kbit/s{each} with packets"
        )
        print_message(text, stderr=target == STANDARD_STREAM)
        sys.stderr.flush()

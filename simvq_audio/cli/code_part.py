"""Decoding of a part of one file of codes."""

from __future__ import annotations

import io
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from simvq_audio.cli.code_file import refuse_target
from simvq_audio.cli.console import (
    STANDARD_STREAM,
    binary_stdin,
    binary_stdout,
    describe_duration,
    print_json,
    print_message,
    progress,
)
from simvq_audio.cli.options import CodingOptions
from simvq_audio.cli.paths import INDICES_SUFFIX

if TYPE_CHECKING:
    from simvq_audio.bitstream import Codes, CodesFile
    from simvq_audio.codec import Codec


def decode_part(
    source: str,
    target: str,
    start: float,
    end: float | None,
    native_rate: bool,
    settings: CodingOptions,
) -> None:
    """Carry out ``decode --start --end``: of a .codes file, no more is read than that takes.

    Raises:
        SimvqAudioError, OSError: nothing was written.
    """
    from simvq_audio.audio import output_format

    to_stdout = target == STANDARD_STREAM
    if not to_stdout:
        output_format(target)
    refuse_target(source, target, settings)
    with ExitStack() as opened:
        codes: Codes | CodesFile | None = None
        if Path(source).suffix.lower() != INDICES_SUFFIX:
            # Before the model is loaded, which takes longer.
            codes = opened.enter_context(_open(source))
        codec = settings.load_codec()
        began = time.perf_counter()
        if codes is None:
            codes = _indices(source, codec)
        length = (codes.duration if end is None else min(end, codes.duration)) - start
        with progress("decoding", length, quiet=settings.quiet) as advance:
            sink = binary_stdout() if to_stdout else Path(target)
            clipped = codec.decode_file(
                codes, sink, native_rate=native_rate, start=start, end=end, progress=advance
            )
        if to_stdout:
            binary_stdout().flush()
        duration = codes.duration
        facts = {
            "input": source,
            "output": target,
            "start": start,
            "seconds": length,
            "recording_seconds": duration,
            "channels": codes.channels,
            "sample_rate": codec.sample_rate if native_rate else codes.sample_rate,
            "clipped_samples": clipped,
            "elapsed_seconds": time.perf_counter() - began,
        }
    if settings.as_json:
        print_json(facts)
    elif not settings.quiet:
        text = (
            f"{target}: {describe_duration(length)} from {start:g} s on, of "
            f"{describe_duration(duration)}"
        )
        text += f"\n{clipped} samples were clipped" if clipped else ""
        print_message(text, stderr=to_stdout)


def _open(source: str) -> CodesFile:
    from simvq_audio.bitstream import CodesFile

    if source == STANDARD_STREAM:
        return CodesFile(io.BytesIO(binary_stdin().read()), "standard input")
    return CodesFile(source)


def _indices(source: str, codec: Codec) -> Codes:
    from simvq_audio.codec.files import read_codes

    return read_codes(Path(source), codec)

"""``generate``: speech made up, continued, or put into a gap."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simvq_audio.cli.code_file import FileReport, refuse_target, report
from simvq_audio.cli.console import STANDARD_STREAM, CommandError, binary_stdout
from simvq_audio.cli.options import (
    CodingOptions,
    DeviceOption,
    ForceOption,
    JsonOption,
    ModelOption,
    QuietOption,
)
from simvq_audio.cli.paths import CODES_SUFFIX, INDICES_SUFFIX

if TYPE_CHECKING:
    from simvq_audio.bitstream import Codes
    from simvq_audio.codec import Codec
    from simvq_audio.prior.masked.sampling import Sampling

EXAMPLES = """
[bold]Examples[/bold]

simvq-audio generate babble.wav --seconds 6 --seed 1

simvq-audio generate longer.wav --prompt speech.wav --continue 3

simvq-audio generate filled.wav --infill speech.codes --from 2.0 --to 2.6
"""


class Order(str, Enum):
    """In which order codes are settled."""

    confidence = "confidence"
    ancestral = "ancestral"


def generate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="A .wav or .flac file, .codes, .npy, or - for WAV on standard output.",
        ),
    ],
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", help="Make up this much.", show_default=False),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            metavar="IN",
            help="A recording or its codes, to go on from; with --continue.",
            show_default=False,
        ),
    ] = None,
    continued: Annotated[
        float | None,
        typer.Option("--continue", metavar="SECONDS", help="With --prompt.", show_default=False),
    ] = None,
    infill: Annotated[
        str | None,
        typer.Option(
            "--infill",
            metavar="IN",
            help="A recording or its codes, of which a part is replaced; with --from and --to.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        float | None,
        typer.Option("--from", metavar="SECONDS", help="With --infill.", show_default=False),
    ] = None,
    end: Annotated[
        float | None,
        typer.Option("--to", metavar="SECONDS", help="With --infill.", show_default=False),
    ] = None,
    steps: Annotated[
        int, typer.Option("--steps", help="For 3.4 s of speech; fewer are faster.")
    ] = 24,
    order: Annotated[
        Order, typer.Option("--order", help="In which order codes are settled.")
    ] = Order.confidence,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Below 1 draws likelier codes.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed, another result.")] = 0,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make up speech: babble that has voices and a melody, but no words.

    Alone, as the continuation of a recording, or in a gap.
    """
    given = [seconds is not None, prompt is not None, infill is not None]
    if sum(given) != 1:
        raise CommandError("give --seconds, or --prompt with --continue, or --infill")
    if (prompt is None) != (continued is None):
        raise CommandError("--prompt and --continue belong together")
    if not (infill is None) == (start is None) == (end is None):
        raise CommandError("--infill, --from and --to belong together")
    suffix = "" if target == STANDARD_STREAM else Path(target).suffix.lower()
    to_codes = suffix in (CODES_SUFFIX, INDICES_SUFFIX)
    if suffix and not to_codes:
        from simvq_audio.audio import output_format

        output_format(target)
    settings = CodingOptions(model, device, 30.0, force, quiet, as_json)
    source = prompt or infill or ""
    refuse_target(source or STANDARD_STREAM, target, settings)
    from simvq_audio.prior.masked.sampling import Sampling

    how = Sampling(order.value, steps, temperature)
    codec = settings.load_codec()
    began = time.perf_counter()
    codes = _made(codec, source, seconds, continued, start, end, seed, how)
    if to_codes:
        from simvq_audio.codec.files import write_codes

        size: int | None = write_codes(codes, Path(target))
        codes_bytes, clipped = size or 0, None
    else:
        to_stdout = target == STANDARD_STREAM
        clipped = codec.decode_file(codes, binary_stdout() if to_stdout else Path(target))
        size = None if to_stdout else Path(target).stat().st_size
        codes_bytes = len(codes.to_bytes())
    elapsed = time.perf_counter() - began
    report(FileReport(source, target, codes, codes_bytes, size, elapsed, clipped), settings)


def _made(
    codec: Codec,
    source: str,
    seconds: float | None,
    continued: float | None,
    start: float | None,
    end: float | None,
    seed: int,
    how: Sampling,
) -> Codes:
    from simvq_audio.codec import generation

    if seconds is not None:
        return generation.generate(codec, seconds, seed=seed, how=how)
    if continued is not None:
        return generation.continue_codes(codec, _read(codec, source), continued, seed=seed, how=how)
    assert start is not None and end is not None
    return generation.infill(codec, _read(codec, source), start, end, seed=seed, how=how)


def _read(codec: Codec, source: str) -> Codes:
    """The codes of a file of codes, or of a recording."""
    if Path(source).suffix.lower() in (CODES_SUFFIX, INDICES_SUFFIX):
        from simvq_audio.codec.files import read_codes

        return read_codes(Path(source), codec)
    return codec.encode_file(source)

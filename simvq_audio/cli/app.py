"""The program: its commands, and how exceptions are reported."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from simvq_audio.cli import (
    benchmark,
    corpora,
    demo,
    evaluation,
    generate,
    info,
    plot,
    repair,
    training,
)
from simvq_audio.cli.console import (
    PROGRAM,
    STANDARD_STREAM,
    CommandError,
    print_message,
    print_problem,
)
from simvq_audio.cli.options import (
    AudioFormat,
    BatchSecondsOption,
    ChannelsOption,
    CodebookOption,
    CodingOptions,
    DeviceOption,
    EndOption,
    ForceOption,
    JsonOption,
    ModelOption,
    PacketOption,
    PayloadCoding,
    QuietOption,
    RateOption,
    RawOption,
    StartOption,
    StreamOption,
)
from simvq_audio.errors import SimvqAudioError, is_out_of_memory, os_error_text

_INTERRUPTED = 130

# Names options that the command has.
_OUT_OF_MEMORY = {
    "encode": "out of memory; try a smaller --batch-seconds or --device cpu",
    "decode": "out of memory; try a smaller --batch-seconds or --device cpu",
    "evaluate": "out of memory; try fewer --jobs or --device cpu",
    "compare": "out of memory; try fewer --jobs",
    "train": "out of memory; try a smaller data.batch_size in the recipe",
}

_EXAMPLES = """
[bold]Examples[/bold]

simvq-audio encode speech.wav speech.codes

simvq-audio decode speech.codes speech.flac

simvq-audio encode recordings/ codes/ --device cuda

ffmpeg -v error -i talk.m4a -f wav - | simvq-audio encode - talk.codes

simvq-audio info speech.codes
"""
_ENCODE_EXAMPLES = """
[bold]Examples[/bold]

simvq-audio encode speech.wav speech.codes

simvq-audio encode speech.wav tokens.npy

simvq-audio encode speech.wav speech.codes --kbps 0.6

simvq-audio encode speech.wav tokens.npy --codebook 1024

simvq-audio encode recordings/ codes/ --json > report.json

simvq-audio encode - - < speech.wav | simvq-audio decode - - > decoded.wav

arecord -f S16_LE -r 16000 -t raw | simvq-audio encode - - --stream --raw s16le --rate 16000
"""
_DECODE_EXAMPLES = """
[bold]Examples[/bold]

simvq-audio decode speech.codes speech.wav

simvq-audio decode lecture.codes part.wav --start 600 --end 630

simvq-audio decode tokens.npy speech.wav

simvq-audio decode codes/ decoded/ --format flac
"""
_EVALUATE_EXAMPLES = """
[bold]Examples[/bold]

simvq-audio evaluate recordings/

simvq-audio evaluate recordings/ --out report/ --metrics default,f0_rmse --jobs 8
"""

app = typer.Typer(
    name=PROGRAM,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    # Plain tracebacks, for bug reports.
    pretty_exceptions_enable=False,
    epilog=_EXAMPLES,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from simvq_audio import __version__

        print(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Neural speech codec: speech at about 1 kbit/s."""


@app.command(epilog=_ENCODE_EXAMPLES)
def encode(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A recording, a folder, or - for standard input.")
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="A .codes file, .npy for bare indices, a folder, or - for standard output.",
        ),
    ],
    model: ModelOption = None,
    device: DeviceOption = "auto",
    coding: Annotated[
        PayloadCoding | None,
        typer.Option(
            "--coding",
            help="entropy: about a quarter smaller, for models with a prior, as the one built in. "
            "fixed: every code takes the same number of bits. Both decode to the same. "
            "Default: entropy, and with --stream fixed.",
            show_default=False,
        ),
    ] = None,
    kbps: Annotated[
        float | None,
        typer.Option(
            "--kbps",
            min=0.001,
            help="Bring each recording to this bit rate, without header, by taking codes that "
            "cost fewer bits. Slower than without. Default: the best codes.",
            show_default=False,
        ),
    ] = None,
    codebook: CodebookOption = None,
    stream: StreamOption = False,
    raw: RawOption = None,
    rate: RateOption = None,
    channels: ChannelsOption = None,
    packet_ms: PacketOption = 80.0,
    batch_seconds: BatchSecondsOption = 30.0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Encode a recording, or every recording of a folder.

    In a folder, hidden files are ignored and files whose output exists are skipped.
    """
    if kbps is not None and coding is PayloadCoding.fixed:
        raise CommandError("--kbps needs entropy coding; leave out --coding fixed")
    if kbps is not None and codebook is not None:
        raise CommandError("--codebook has a fixed bit rate; give --codebook or --kbps")
    _check_stream_options(stream, source, raw)
    if raw is None and (rate, channels) != (None, None):
        raise CommandError("--rate and --channels describe --raw samples; a header has its own")
    if stream and kbps is not None:
        raise CommandError("--kbps chooses codes over a whole recording; leave out --stream")
    default = PayloadCoding.fixed if stream else PayloadCoding.entropy
    packing = (coding or default).value
    settings = CodingOptions(
        model, device, batch_seconds, force, quiet, as_json, packing, kbps, codebook
    )
    if stream:
        from simvq_audio.cli.live import RawAudio, encode_live

        described = None if raw is None else RawAudio(raw, rate, channels)
        encode_live(source, target, described, packet_ms, settings)
    elif _is_folder(source):
        from simvq_audio.cli.code_folder import encode_folder

        encode_folder(source, target, settings)
    else:
        from simvq_audio.cli.code_file import encode_file

        encode_file(source, target, settings)


@app.command(epilog=_DECODE_EXAMPLES)
def decode(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN", help="A .codes or .npy file, a folder of them, or - for standard input."
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUT", help="A .wav or .flac file, a folder, or - for WAV on standard output."
        ),
    ],
    model: ModelOption = None,
    device: DeviceOption = "auto",
    native_rate: Annotated[
        bool,
        typer.Option("--native-rate", help="Write at the model's sample rate, not the original."),
    ] = False,
    audio_format: Annotated[
        AudioFormat | None,
        typer.Option(
            "--format",
            help="What to write for a folder. Default: wav. A single file has its suffix.",
            show_default=False,
        ),
    ] = None,
    start: StartOption = 0.0,
    end: EndOption = None,
    codebook: CodebookOption = None,
    stream: StreamOption = False,
    raw: RawOption = None,
    batch_seconds: BatchSecondsOption = 30.0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Decode a file of codes, or every one of a folder.

    The recording has its original sample rate and length. From .npy, which does not hold them,
    it has the model's.
    """
    settings = CodingOptions(model, device, batch_seconds, force, quiet, as_json, codebook=codebook)
    _check_stream_options(stream, source, raw)
    whole = start == 0 and end is None
    if not whole and (stream or _is_folder(source)):
        raise CommandError("--start and --end are for a single file of codes")
    if stream:
        from simvq_audio.cli.live import decode_live

        decode_live(source, target, raw, native_rate, settings)
    elif _is_folder(source):
        from simvq_audio.cli.code_folder import decode_folder

        suffix = f".{(audio_format or AudioFormat.wav).value}"
        decode_folder(source, target, native_rate, suffix, settings)
    else:
        from simvq_audio.cli.code_file import decode_file

        suffix = ".wav" if target == STANDARD_STREAM else Path(target).suffix.lower()
        if audio_format is not None and suffix != f".{audio_format.value}":
            raise CommandError(
                f"{target}: --format {audio_format.value} is for folders; "
                f"a single file has the format of its suffix, and - is wav"
            )
        if whole:
            decode_file(source, target, native_rate, settings)
        else:
            from simvq_audio.cli.code_part import decode_part

            decode_part(source, target, start, end, native_rate, settings)


app.command("repair", epilog=repair.EXAMPLES)(repair.repair)
app.command("generate", epilog=generate.EXAMPLES)(generate.generate)
app.command("tokenize", epilog=corpora.EXAMPLES)(corpora.tokenize)
app.command("evaluate", epilog=_EVALUATE_EXAMPLES)(evaluation.evaluate)
app.command("compare", epilog=evaluation.COMPARE_EXAMPLES)(evaluation.compare)
app.command("info")(info.info)
app.command("models")(info.models)
app.command("plot")(plot.plot)
app.command("demo")(demo.demo)
app.command("benchmark", epilog=benchmark.EXAMPLES)(benchmark.benchmark)
app.command("train")(training.train)
app.command("export")(training.export)
app.add_typer(training.data, name="data")


@app.command("import-published")
def import_published(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint published by its authors.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The model file to write.")],
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Take the last weights, not their moving average."),
    ] = False,
    force: ForceOption = False,
) -> None:
    """Convert a published checkpoint into a model file for --model."""
    from simvq_audio.cli.paths import refuse_same, refuse_target_file

    refuse_same(str(checkpoint), str(out))
    refuse_target_file(out, force=force)
    # The slow import comes after the checks.
    from simvq_audio.model.published_import import import_published as convert

    summary = convert(checkpoint, out, raw=raw)
    print_message(
        f"{out}: {summary.parameters} parameters, codebook of {summary.codebook_size} entries, "
        f"{summary.source} weights"
    )


def _check_stream_options(stream: bool, source: str, raw: str | None) -> None:
    if raw is not None and not stream:
        raise CommandError("--raw is for live audio; add --stream")
    if stream and _is_folder(source):
        raise CommandError(f"{source}: is a folder; --stream takes one recording")


def _is_folder(path: str) -> bool:
    return path != STANDARD_STREAM and Path(path).is_dir()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; errors of the user are reported in one line on standard error.

    Args:
        arguments: default: those of the command line.

    Raises:
        SystemExit: 0 on success, 1 on an error, 2 on wrong usage, 130 on Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names can hold characters that the terminal's encoding lacks.
            stream.reconfigure(errors="backslashreplace")
    try:
        _run(arguments)
    finally:
        _flush_output()


def _run(arguments: Sequence[str] | None) -> None:
    try:
        # Reports quote the command line.
        typed = tuple(sys.argv[1:] if arguments is None else arguments)
        app(args=arguments, prog_name=PROGRAM, obj=typed)
    except SimvqAudioError as error:
        print_problem("error", str(error))
    except OSError as error:
        print_problem("error", os_error_text(error))
    except SystemExit as error:
        # How Typer passes on a KeyboardInterrupt.
        if error.code == _INTERRUPTED:
            print_problem("error", "interrupted")
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        print_problem("error", _OUT_OF_MEMORY.get(typed[0] if typed else "", "out of memory"))
    raise SystemExit(1)


def _flush_output() -> None:
    """Flush standard output here, where a closed pipe (``| head``) can end quietly."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes again at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None

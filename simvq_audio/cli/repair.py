"""``repair``: codes of which some were lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simvq_audio.cli.code_file import FileReport, open_codes, refuse_target, report
from simvq_audio.cli.console import STANDARD_STREAM, CommandError, binary_stdout, progress
from simvq_audio.cli.options import (
    BatchSecondsOption,
    CodingOptions,
    DeviceOption,
    ForceOption,
    JsonOption,
    ModelOption,
    QuietOption,
)
from simvq_audio.cli.paths import CODES_SUFFIX, INDICES_SUFFIX

if TYPE_CHECKING:
    import numpy as np

EXAMPLES = """
[bold]Examples[/bold]

simvq-audio repair received.codes repaired.wav --lost lost.txt

simvq-audio repair speech.codes repaired.codes --simulate 0.2 --burst 3 --seed 1
"""


def repair(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A .codes or .npy file, or - for standard input.")
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUT", help="A .wav or .flac file, which sounds best, or .codes or .npy."
        ),
    ],
    lost: Annotated[
        Path | None,
        typer.Option(
            "--lost",
            metavar="FILE",
            help="Which frames are lost: text with a frame or a range such as 12-17 on each line, "
            "counted from 0, or .npy with true where lost.",
            show_default=False,
        ),
    ] = None,
    simulate: Annotated[
        float | None,
        typer.Option(
            "--simulate",
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="Lose this share of the frames, to try it.",
            show_default=False,
        ),
    ] = None,
    burst: Annotated[
        int, typer.Option("--burst", min=1, help="With --simulate: frames lost in a row.")
    ] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="With --simulate.")] = 0,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    batch_seconds: BatchSecondsOption = 30.0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Repair codes of which some were lost, from the codes on both sides.

    What stands at the lost places does not matter. It works for gaps of up to about 0.1 s; a longer
    one becomes a steady sound.
    """
    if (lost is None) == (simulate is None):
        raise CommandError("give --lost FILE or --simulate SHARE, to say which frames are lost")
    to_codes = target != STANDARD_STREAM and Path(target).suffix.lower() in (
        CODES_SUFFIX,
        INDICES_SUFFIX,
    )
    if target != STANDARD_STREAM and not to_codes:
        from simvq_audio.audio import output_format

        output_format(target)
    settings = CodingOptions(model, device, batch_seconds, force, quiet, as_json)
    refuse_target(source, target, settings)
    loaded, size = open_codes(source)
    codec = settings.load_codec()
    from simvq_audio.codec.files import checked_codes, write_codes

    start = time.perf_counter()
    codes = checked_codes(loaded, codec)
    if lost is not None:
        mask = read_lost(lost, codes.num_frames)
    else:
        from simvq_audio.codec.repair import simulated_loss

        mask = simulated_loss(codes.num_frames, simulate or 0.0, burst, seed)
    if to_codes:
        size = write_codes(codec.repair(codes, mask), Path(target))
        report(FileReport(source, target, codes, size, size, time.perf_counter() - start), settings)
        return
    with progress("repairing", codes.duration, quiet=quiet) as advance:
        sink = binary_stdout() if target == STANDARD_STREAM else Path(target)
        clipped = codec.decode_file(codes, sink, lost=mask, progress=advance)
    elapsed = time.perf_counter() - start
    written = None if target == STANDARD_STREAM else Path(target).stat().st_size
    report(FileReport(source, target, codes, size, written, elapsed, clipped), settings)


def read_lost(path: Path, frames: int) -> np.ndarray:
    """Which frames are lost, bool (frames,) or, from .npy, (channels, frames).

    Raises:
        CommandError: the file says something else.
    """
    import numpy as np

    if path.suffix.lower() == INDICES_SUFFIX:
        try:
            mask = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise CommandError(f"{path}: cannot be read as .npy ({error})") from error
        if not isinstance(mask, np.ndarray) or mask.dtype != bool:
            raise CommandError(f"{path}: must hold booleans, true where a frame is lost")
        return mask
    mask = np.zeros(frames, bool)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: is no text; give lines such as 12 or 12-17") from error
    for number, line in enumerate(lines, 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        first, dash, last = text.partition("-")
        if not (first.strip().isdecimal() and (last.strip().isdecimal() or not dash)):
            raise CommandError(f"{path}, line {number}: {text!r} is no frame such as 12 or 12-17")
        begin, end = int(first), int(last if dash else first)
        if not begin <= end < frames:
            raise CommandError(
                f"{path}, line {number}: {text} does not lie in the frames 0 to {frames - 1}"
            )
        mask[begin : end + 1] = True
    return mask

"""The command that draws one recording beside its decoded file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simvq_audio.cli.console import CommandError, print_message
from simvq_audio.cli.options import ForceOption
from simvq_audio.cli.paths import refuse_same, refuse_target_file

_SUFFIXES = (".png", ".svg", ".pdf")


def plot(
    original: Annotated[Path, typer.Argument(metavar="IN", help="The original recording.")],
    decoded: Annotated[Path, typer.Argument(metavar="OUT", help="The same recording, decoded.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A .png, .svg or .pdf file. Default: that of OUT with the suffix .png.",
            show_default=False,
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Draw waveforms, spectrograms and their difference.

    OUT is drawn at the rate of IN. Several channels are drawn as their mean.
    """
    target = decoded.with_suffix(".png") if output is None else output
    if target.suffix.lower() not in _SUFFIXES:
        raise CommandError(
            f"{target}: pictures are written as {', '.join(_SUFFIXES)}; use one of these"
        )
    for source in (original, decoded):
        refuse_same(str(source), str(target))
    refuse_target_file(target, force=force)
    from simvq_audio.evaluation.report.comparison_plot import read_pair, write_pair

    pair = read_pair(original, decoded)
    write_pair(pair, target)
    for note in pair.notes:
        print_message(note)
    print_message(f"{target}: {original} and {decoded}")

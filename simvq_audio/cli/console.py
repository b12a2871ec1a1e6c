"""What the commands print, and where.

Results go to standard output, unless audio or codes go there. Progress bars and errors go to
standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from simvq_audio.errors import SimvqAudioError, one_line

PROGRAM = "simvq-audio"

# The path that stands for standard input or standard output.
STANDARD_STREAM = "-"


class CommandError(SimvqAudioError):
    """A command that is refused or failed in part; the message says what to change."""


def binary_stdin() -> BinaryIO:
    """Return standard input as bytes."""
    return sys.stdin.buffer


def binary_stdout() -> BinaryIO:
    """Return standard output as bytes.

    Raises:
        CommandError: it is a terminal, which binary data would garble.
    """
    if sys.stdout.isatty():
        raise CommandError("binary data is not written to a terminal; redirect or pipe it")
    return sys.stdout.buffer


def print_message(text: str, *, stderr: bool = False) -> None:
    """Print lines of text, with numbers highlighted on a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    if not stream.isatty():
        print(text, file=stream)  # rich takes a twentieth of the start
        return
    from rich.console import Console

    # Without markup, since file names may contain brackets; unwrapped, for pipes into grep.
    Console(stderr=stderr).print(text, markup=False, emoji=False, soft_wrap=True)


def print_json(result: dict[str, Any]) -> None:
    """Print one JSON object in ASCII, which every terminal can show."""
    print(json.dumps(result, indent=2))


def print_problem(kind: str, text: str) -> None:
    """Print one line on standard error: ``simvq-audio: kind: text``."""
    print(f"{PROGRAM}: {kind}: {one_line(text)}", file=sys.stderr)


@contextmanager
def progress(label: str, total: float | None, *, quiet: bool) -> Iterator[Callable[[float], None]]:
    """Show a progress bar on standard error, if that is a terminal, until the block ends.

    Args:
        label: shown beside the bar.
        total: the amount of work, or None if unknown.
        quiet: show nothing.

    Yields:
        a function to call with each amount of work done.
    """
    # Silent in logs, where a bar would be one line per update; a disabled Progress still prints an
    # empty line there before rich 15.
    if quiet or not sys.stderr.isatty():
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda amount: bar.advance(task, amount)


def describe_size(num_bytes: int) -> str:
    """A readable size: exact below 10 kB, in decimal units above."""
    if num_bytes < 10_000:
        return f"{num_bytes} bytes"
    size = float(num_bytes)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def describe_duration(seconds: float) -> str:
    """A readable duration."""
    if seconds < 120:
        return f"{seconds:.2f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.2f} h"

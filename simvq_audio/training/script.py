"""What the data preparation scripts share: errors in one line, and the list of what was skipped."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from simvq_audio.cli.console import os_error_text
from simvq_audio.errors import SimvqAudioError


def run_script(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None,
) -> int:
    """Parse the command line and do the work; a user's mistake ends in one line and exit code 1."""
    args = parser.parse_args(arguments)
    try:
        work(args)
    except (SimvqAudioError, OSError) as error:
        text = os_error_text(error) if isinstance(error, OSError) else str(error)
        print(f"{parser.prog}: error: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped", file=sys.stderr)
        return 130
    return 0


def print_skipped(unreadable: Sequence[str]) -> None:
    """List recordings that could not be read on standard error, and how many they are."""
    for line in unreadable:
        print(f"skipped: {line}", file=sys.stderr)
    if unreadable:
        print(f"{len(unreadable)} unreadable recordings skipped", file=sys.stderr)


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """The option that says how many recordings are read at a time."""
    parser.add_argument(
        "--jobs",
        type=positive,
        default=os.cpu_count() or 1,
        help="recordings read at a time (default: one a CPU core)",
    )


def positive(text: str) -> int:
    """An option's value that must be a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 on")
    return int(text)

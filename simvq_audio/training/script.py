"""For scripts: errors in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from simvq_audio.errors import SimvqAudioError, os_error_text


def run_script(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None,
) -> int:
    """Parse the command line and do the work; errors of the user give one line and exit code 1."""
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


def positive(text: str) -> int:
    """An option's value that must be a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 on")
    return int(text)

"""Which files lie below a folder."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def find_files(
    folder: str | os.PathLike[str], suffixes: Collection[str]
) -> tuple[list[Path], list[OSError]]:
    """Find the files with one of these suffixes, in a folder and everything below it.

    Hidden files and folders are left out: what systems leave there, such as ``._a.wav``, has
    the suffix of a recording without being one.

    Args:
        folder: where to search.
        suffixes: lowercase, with the dot.

    Returns:
        the files, sorted within each folder, and why some folders could not be read.
    """
    found: list[Path] = []
    errors: list[OSError] = []
    for place, subfolders, names in os.walk(folder, onerror=errors.append):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [
            Path(place, name)
            for name in sorted(names)
            if Path(name).suffix.lower() in suffixes and not name.startswith(".")
        ]
    return found, errors

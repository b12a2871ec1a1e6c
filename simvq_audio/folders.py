"""The files in a folder and below it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path, PurePath


def is_hidden(path: PurePath) -> bool:
    """Whether a file, or a folder on the way to it, has a name that begins with a dot.

    Operating systems leave such files beside recordings: ``._a.wav`` is no audio.

    Args:
        path: relative to the folder that is searched.
    """
    return any(part.startswith(".") and part not in (".", "..") for part in path.parts)


def find_files(
    folder: str | os.PathLike[str], suffixes: Collection[str]
) -> tuple[list[Path], list[OSError]]:
    """Find the files with one of these suffixes, in a folder and everything below it.

    Hidden ones (``is_hidden``) are left out.

    Args:
        folder: where to search.
        suffixes: lowercase, with the dot.

    Returns:
        the files, sorted within each folder, and why some folders could not be read.
    """
    found: list[Path] = []
    errors: list[OSError] = []
    for place, subfolders, names in os.walk(folder, onerror=errors.append):
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(PurePath(name)))
        found += [
            Path(place, name)
            for name in sorted(names)
            if Path(name).suffix.lower() in suffixes and not is_hidden(PurePath(name))
        ]
    return found, errors


def name_clashes(sources: Iterable[PurePath], suffix: str) -> dict[PurePath, str]:
    """Files whose output would have the name of another's, and why they are refused.

    Args:
        sources: paths relative to one folder.
        suffix: of the outputs, which takes the place of the sources' own.
    """
    sources_of: defaultdict[PurePath, list[PurePath]] = defaultdict(list)
    for source in sources:
        sources_of[source.with_suffix(suffix)].append(source)
    return {
        source: f"{' and '.join(path.name for path in same)} would all become {made.name}; "
        "rename them"
        for made, same in sources_of.items()
        if len(same) > 1
        for source in same
    }

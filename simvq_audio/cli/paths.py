"""Which files a command reads and writes, checked before any work."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from simvq_audio.cli.console import CommandError
from simvq_audio.errors import failure_text
from simvq_audio.folders import find_files, name_clashes

CODES_SUFFIX = ".codes"
INDICES_SUFFIX = ".npy"


@dataclass(frozen=True)
class Job:
    """A file of a folder, and its output."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Failure:
    """A file of a folder that failed, and why, in one line."""

    source: Path
    reason: str


def refuse_same(source: str, target: str) -> None:
    """Refuse to write over what is read.

    Raises:
        CommandError: both paths are the same file or folder.
    """
    if os.path.realpath(source) == os.path.realpath(target):
        raise CommandError(f"{target}: IN and OUT are the same path")


def refuse_target_file(target: Path, *, force: bool) -> None:
    """Refuse an output file that cannot or must not be written.

    Raises:
        CommandError: it is a folder, its folder does not exist, or it exists without ``force``.
    """
    if target.is_dir():
        raise CommandError(f"{target}: is a folder; give the name of a file as OUT")
    if not target.parent.is_dir():
        raise CommandError(f"{target.parent}: no such folder; make it first")
    if target.exists() and not force:
        raise CommandError(f"{target}: exists; --force overwrites it")


def refuse_target_folder(target: Path) -> None:
    """Refuse an output folder that is a file.

    Raises:
        CommandError: it exists and is no folder.
    """
    if target.exists() and not target.is_dir():
        raise CommandError(f"{target}: is a file; IN is a folder, so OUT must be one")


def find_jobs(
    source: Path, target: Path, suffixes: Collection[str], target_suffix: str
) -> tuple[list[Job], list[Failure]]:
    """Find the files of a folder, hidden ones left out, and mirror their paths under another.

    Args:
        source: the folder to search, with everything below it.
        target: the folder to mirror it to.
        suffixes: lowercase suffixes of the files wanted.
        target_suffix: the suffix of the files to be made.

    Returns:
        the jobs, sorted by path; and as failures the folders that cannot be read and the files
        whose outputs would have the same name.

    Raises:
        CommandError: the folder has no such file.
    """
    found, errors = find_files(source, suffixes)
    failures = [
        Failure(Path(error.filename), failure_text(error, error.filename)) for error in errors
    ]
    if not found and not failures:
        raise CommandError(
            f"{source}: holds no file with a suffix of {', '.join(sorted(suffixes))}"
        )
    names = [path.relative_to(source) for path in found]
    refused = name_clashes(names, target_suffix)
    failures += [Failure(source / name, reason) for name, reason in refused.items()]
    jobs = [
        Job(source / name, (target / name).with_suffix(target_suffix))
        for name in names
        if name not in refused
    ]
    return jobs, failures

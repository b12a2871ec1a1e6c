"""Which decoded file belongs to which recording."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from simvq_audio.audio import AUDIO_SUFFIXES
from simvq_audio.errors import AudioError
from simvq_audio.evaluation.halves import read_halves
from simvq_audio.folders import find_files


@dataclass(frozen=True)
class Recordings:
    """The recordings below a folder.

    Attributes:
        folder: where they lie.
        names: their paths below it, with "/" between folders, sorted.
        failures: folders that could not be read, and why, by name.
    """

    folder: Path
    names: tuple[str, ...]
    failures: dict[str, str]

    def path(self, name: str) -> str:
        """The absolute path of a recording."""
        return os.path.abspath(self.folder / name)

    def within(self, folders: Sequence[str]) -> Recordings:
        """Those in these folders (paths below ``folder``) and below them; no folders takes all.

        Raises:
            AudioError: a folder holds no recording.
        """
        if not folders:
            return self
        for folder in folders:
            if not any(_lies_in(name, folder) for name in self.names):
                raise AudioError(f"{self.folder / folder}: no folder with recordings")
        chosen = tuple(n for n in self.names if any(_lies_in(n, folder) for folder in folders))
        return Recordings(self.folder, chosen, self.failures)

    def half(self, half: str | None) -> Recordings:
        """Those of one half of the speakers, "choose" or "report"; None takes all.

        Raises:
            ConfigError: the folder has no manifest that says who speaks.
            AudioError: no recording is in that half.
        """
        if half is None:
            return self
        halves = read_halves(self.folder)
        chosen = tuple(name for name in self.names if halves.get(name) == half)
        if not chosen:
            raise AudioError(f"{self.folder}: no recording of the half {half} is in its manifest")
        return Recordings(self.folder, chosen, self.failures)

    def take(self, limit: int | None) -> Recordings:
        """About ``limit`` of them, spread evenly; None takes all."""
        if limit is None or limit >= len(self.names):
            return self
        chosen = tuple(self.names[i * len(self.names) // limit] for i in range(limit))
        return Recordings(self.folder, chosen, self.failures)


def _lies_in(name: str, folder: str) -> bool:
    return PurePosixPath(name).is_relative_to(folder)


def find_recordings(folder: str | os.PathLike[str]) -> Recordings:
    """Find every recording in a folder and below it; hidden ones are left out.

    Raises:
        AudioError: there is no such folder, or it holds no recording.
    """
    root = Path(folder)
    if not root.is_dir():
        kind = "is a file, not a folder" if root.exists() else "no such folder"
        raise AudioError(f"{folder}: {kind}; name a folder of recordings")
    found, errors = find_files(root, AUDIO_SUFFIXES)
    if not found and not errors:
        known = ", ".join(sorted(AUDIO_SUFFIXES))
        raise AudioError(f"{folder}: holds no recording (a file with one of {known})")
    return Recordings(
        root,
        tuple(sorted(path.relative_to(root).as_posix() for path in found)),
        {
            Path(error.filename).relative_to(root).as_posix(): error.strerror or str(error)
            for error in errors
        },
    )


@dataclass(frozen=True)
class Pairing:
    """Recordings and what a codec made of them, by their paths below either folder.

    Attributes:
        decoded: the decoded file of each recording that has one.
        failures: recordings without, and decoded files that belong to none, and why.
    """

    decoded: dict[str, str]
    failures: dict[str, str]


def pair(references: Sequence[str], decoded: Sequence[str]) -> Pairing:
    """Pair recordings and decoded files by their relative paths.

    A decoded file of ``a/b.flac`` is, in this order, ``a/b.flac``; ``a/b.flac.wav`` (any suffix
    of a recording after the whole name); ``a/b.wav`` (any such suffix in place of its own). A
    file is used once. Where one step finds several files for a recording, or several recordings
    for a file, none of them is paired: each is named with the reason.
    """
    paired: dict[str, str] = {}
    failures: dict[str, str] = {}
    left, unused = list(references), list(decoded)
    steps: list[tuple[Callable[[str], str], Callable[[str], str]]] = [
        (_whole, _whole),
        (_whole, _stem),
        (_stem, _stem),
    ]
    for reference_key, decoded_key in steps:
        recordings_of, files_of = _grouped(left, reference_key), _grouped(unused, decoded_key)
        for key in recordings_of.keys() & files_of.keys():
            recordings, files = recordings_of[key], files_of[key]
            if len(recordings) == 1 == len(files):
                paired[recordings[0]] = files[0]
                continue
            reason = f"ambiguous: {_listed(recordings)} could be decoded as {_listed(files)}"
            failures.update(dict.fromkeys([*recordings, *files], f"{reason}; rename them"))
        used = set(paired.values())
        left = [name for name in left if name not in paired and name not in failures]
        unused = [name for name in unused if name not in used and name not in failures]
    failures.update(dict.fromkeys(left, "there is no decoded file of this path"))
    for name in unused:
        failures[name] = "a decoded file that belongs to no recording left to pair"
    return Pairing({name: paired[name] for name in references if name in paired}, failures)


def _whole(name: str) -> str:
    return name


def _stem(name: str) -> str:
    """The path without its suffix, which can follow another: a/b.flac.wav -> a/b.flac."""
    return str(PurePosixPath(name).with_suffix(""))


def _grouped(names: Sequence[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return groups


def _listed(names: Sequence[str]) -> str:
    return " or ".join(sorted(names))

"""Which recordings of a folder are evaluated.

A development set has two halves, by speaker: models are chosen on one half, and what is reported is
scored on the other, to which nothing was fitted. The half of a speaker depends on the name
only, so it stays the same when recordings are added or left out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from simvq_audio.audio import AUDIO_SUFFIXES
from simvq_audio.errors import AudioError, ConfigError
from simvq_audio.folders import find_files

CHOOSE, REPORT = HALVES = ("choose", "report")
MANIFEST_NAME = "manifest.jsonl"


@dataclass(frozen=True)
class Recordings:
    """The recordings below a folder.

    Attributes:
        folder: that contains them.
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
        """Those in these folders (paths below ``folder``) and below them; all of them if there are
        no folders.

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
            ConfigError: the folder has no manifest with speakers.
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


def half_of(speaker: str) -> str:
    """The half of a speaker: "choose" where the last hexadecimal digit of the name's SHA-256 is
    even, else "report"."""
    digit = hashlib.sha256(speaker.encode()).hexdigest()[-1]
    return HALVES[int(digit, 16) % 2]


def read_halves(folder: Path) -> dict[str, str]:
    """The half of each recording that the folder's ``manifest.jsonl`` lists, by its path there.

    A line is a JSON object with "path", relative to the folder, and "speaker".

    Raises:
        ConfigError: there is no such file, or a line of it has no path or no speaker.
    """
    path = folder / MANIFEST_NAME
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ConfigError(f"halves need the speakers in {path}: {reason}") from error
    halves = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, speaker = row["path"], row["speaker"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} line {number}: has no path and speaker") from error
        if not isinstance(name, str) or not isinstance(speaker, str):
            raise ConfigError(f"{path} line {number}: path and speaker must be strings")
        halves[name] = half_of(speaker)
    return halves

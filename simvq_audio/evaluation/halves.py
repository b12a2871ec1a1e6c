"""A development set in two halves, by speakers: one chooses, the other is only ever reported.

What decides between models fits them, little by little, to its own recordings. The half of a
speaker follows from the name alone, so it stays the same when recordings are added or left out.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from simvq_audio.errors import ConfigError

CHOOSE, REPORT = HALVES = ("choose", "report")
MANIFEST_NAME = "manifest.jsonl"


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
        raise ConfigError(f"halves are those of speakers, which {path} names: {reason}") from error
    halves = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, speaker = row["path"], row["speaker"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} line {number}: names no path and speaker") from error
        if not isinstance(name, str) or not isinstance(speaker, str):
            raise ConfigError(f"{path} line {number}: path and speaker must be strings")
        halves[name] = half_of(speaker)
    return halves

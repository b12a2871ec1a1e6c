"""Pairs of recordings and decoded files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Pairing:
    """Recordings and their decoded files, by their paths below the folders.

    Attributes:
        decoded: the decoded file of each recording that has one.
        failures: recordings and decoded files without a partner, and why.
    """

    decoded: dict[str, str]
    failures: dict[str, str]


def pair(references: Sequence[str], decoded: Sequence[str]) -> Pairing:
    """Pair recordings and decoded files by their relative paths.

    A decoded file of ``a/b.flac`` is, in this order, ``a/b.flac``; ``a/b.flac.wav`` (any suffix
    of a recording after the whole name); ``a/b.wav`` (any such suffix in place of its own). A
    file is used once. If a step finds several files for a recording, or several recordings for a
    file, all of them are failures.
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

"""Corpora: lists of recordings, read in parts and always in the same order."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np

from simvq_audio.corpora.records import Recording
from simvq_audio.errors import SimvqAudioError

_T = TypeVar("_T")


class CorpusError(SimvqAudioError):
    """A corpus or an output folder cannot be used; the message says what to change."""


class Corpus(ABC):
    """Recordings to be encoded, in parts; each part becomes a shard.

    Attributes:
        kind: "folder", "wav.scp", "manifest" or "webdataset".
        columns: names and types ("bool", "int64", "double" or "string") of what it says about its
            recordings.
        num_parts: how many parts there are.
        count: how many recordings; None if that takes reading all of them.
        fingerprint: hexadecimal; of the list, not of the audio. Corpora with the same one have the
            same recordings in the same parts.
    """

    kind: str
    columns: dict[str, str]
    num_parts: int
    count: int | None
    fingerprint: str

    @abstractmethod
    def parts(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, Iterator[Recording]]]:
        """Yield the wanted parts in ascending order, each with its number.

        A part must be read before the next one is asked for.

        Raises:
            CorpusError: while a part is read, its archive is damaged.
        """


class Listing:
    """Counts the entries of a list and computes its fingerprint while it is read.

    Raises:
        CorpusError: upon ``finish``, an id is there twice.
    """

    def __init__(self) -> None:
        self.count = 0
        self._all = hashlib.sha256()
        self._ids = array("Q")

    def add(self, identity: str, text: str) -> None:
        """Add an entry: its id and everything else in the list about it."""
        self.count += 1
        data = text.encode("utf-8", "surrogateescape")
        self._all.update(len(data).to_bytes(8, "big") + data)
        digest = hashlib.blake2b(identity.encode("utf-8", "surrogateescape"), digest_size=8)
        self._ids.append(int.from_bytes(digest.digest(), "big"))

    def finish(self, name: str, ids: Callable[[], Iterator[str]]) -> str:
        """The fingerprint.

        Args:
            name: of the list, for messages.
            ids: goes through the list again.
        """
        sorted_ids = np.sort(np.frombuffer(self._ids, np.uint64)) if self.count else np.empty(0)
        twice = set(sorted_ids[1:][sorted_ids[1:] == sorted_ids[:-1]].tolist())
        if twice:
            seen: set[str] = set()
            for each in ids():
                if each in seen:
                    raise CorpusError(f"{name}: the id {each!r} is there twice; make ids unique")
                digest = hashlib.blake2b(each.encode("utf-8", "surrogateescape"), digest_size=8)
                if int.from_bytes(digest.digest(), "big") in twice:
                    seen.add(each)
        return self._all.hexdigest()[:32]


def chunked(items: Iterator[_T], size: int) -> Iterator[tuple[int, list[_T]]]:
    """Split into lists of ``size``, numbered from 0."""
    number = 0
    while chunk := list(islice(items, size)):
        yield number, chunk
        number += 1

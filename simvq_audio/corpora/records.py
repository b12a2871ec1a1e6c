"""The input and output records of a run."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

# Columns of every row; columns of a manifest with these names get a prefix.
OWN_COLUMNS = ("id", "codes", "channels", "samples", "rate", "codes_id")


@dataclass(frozen=True)
class Recording:
    """A recording of a corpus.

    Attributes:
        id: what the corpus calls it.
        source: a path, or the content of an audio file.
        columns: what the manifest says about it, by ``Corpus.columns``.
        offset: seconds of the file before it.
        duration: its length in seconds; None: to the end of the file.
    """

    id: str
    source: str | bytes
    columns: dict[str, Any] = field(default_factory=dict)
    offset: float = 0.0
    duration: float | None = None

    def open(self) -> str | BinaryIO:
        """What an ``AudioReader`` takes."""
        return self.source if isinstance(self.source, str) else io.BytesIO(self.source)


@dataclass(frozen=True)
class Row:
    """A coded recording.

    Attributes:
        codes: uint16 or uint32, (channels, frames), or (channels, codebooks, frames).
        samples: a channel of the original.
        rate: of the original, Hz.
    """

    id: str
    codes: np.ndarray
    samples: int
    rate: int
    columns: dict[str, Any]

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.samples / self.rate


@dataclass(frozen=True)
class Failure:
    """A recording that failed, and the reason in one line."""

    id: str
    reason: str


def code_dtype(codebook_size: int | tuple[int, ...]) -> np.dtype:
    """The smallest of uint16 and uint32 that holds every code."""
    largest = codebook_size if isinstance(codebook_size, int) else max(codebook_size)
    return np.dtype(np.uint16 if largest <= 1 << 16 else np.uint32)

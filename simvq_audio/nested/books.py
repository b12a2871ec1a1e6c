"""Files of nested codebooks: safetensors of integers, with a description in the metadata."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simvq_audio.atomic import atomic_path, write_error
from simvq_audio.errors import ModelError
from simvq_audio.tensors import read_tensors

FORMAT_VERSION = 1
_KEY = "simvq_audio_nested"


@dataclass(frozen=True, eq=False)
class NestedBook:
    """A codebook whose entries are some of a larger one.

    Attributes:
        full_codes_id: of the codes of the full codebook.
        entries: int64 (size,), the code of each entry in the full codebook.
        parents: int64, for each code of the next larger codebook, nested or full, the entry of
            this one that represents its cluster. Between nested codebooks they never decrease: the
            children of an entry are contiguous.
        codes_id: 12 hexadecimal digits that ``.codes`` files name.
    """

    full_codes_id: str
    entries: np.ndarray
    parents: np.ndarray

    @property
    def size(self) -> int:
        """Entries."""
        return len(self.entries)

    @property
    def codes_id(self) -> str:
        """48 bits of SHA-256 over the digits of ``full_codes_id`` and the entries, int32."""
        entries = self.entries.astype("<i4").tobytes()
        return hashlib.sha256(self.full_codes_id.encode() + entries).hexdigest()[:12]


def save_books(path: str | os.PathLike[str], books: Sequence[NestedBook]) -> None:
    """Write the nested codebooks of one kind of codes.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {}
    for book in books:
        tensors[f"entries.{book.size}"] = book.entries.astype(np.int32)
        tensors[f"parents.{book.size}"] = book.parents.astype(np.int32)
    header = {
        "format": FORMAT_VERSION,
        "codes_id": books[0].full_codes_id,
        "nested": {str(book.size): book.codes_id for book in books},
    }
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})
        except SafetensorError as error:  # a full disk, for instance
            raise write_error(error, Path(path)) from error


def load_books(path: str | os.PathLike[str]) -> list[NestedBook]:
    """Read a file of nested codebooks.

    Raises:
        ModelError: it is missing or damaged.
    """
    # With NumPy alone, so that codes can be decoded where little is installed.
    metadata, tensors = read_tensors(path)
    try:
        header = json.loads(metadata[_KEY])
        books = [
            NestedBook(
                header["codes_id"],
                tensors[f"entries.{size}"].astype(np.int64),
                tensors[f"parents.{size}"].astype(np.int64),
            )
            for size in header["nested"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}); install simvq-audio again") from error
    if [book.codes_id for book in books] != list(header["nested"].values()):
        raise ModelError(f"{path} is damaged (fingerprint mismatch); install simvq-audio again")
    return books

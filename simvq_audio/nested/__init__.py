"""Nested codebooks: smaller codebooks made of entries of a model's codebook.

Those of the package are in this folder, one file for each ``codes_id``.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from simvq_audio.errors import ConfigError
from simvq_audio.nested.books import NestedBook, load_books, save_books

__all__ = ["NestedBook", "book_by_id", "load_books", "nested_book", "nested_books", "save_books"]


def nested_books(codes_id: str) -> dict[int, NestedBook]:
    """The nested codebooks of a model with these codes, by size, largest first; may be empty."""
    books = [book for book in _books() if book.full_codes_id == codes_id]
    return {book.size: book for book in sorted(books, key=lambda book: -book.size)}


def nested_book(codes_id: str, size: int) -> NestedBook:
    """The nested codebook of this size.

    Args:
        codes_id: of the full codebook.

    Raises:
        ConfigError: there is none.
    """
    books = nested_books(codes_id)
    if not books:
        raise ConfigError("this model has no nested codebooks; leave out the codebook size")
    if size not in books:
        sizes = ", ".join(map(str, books))
        raise ConfigError(f"there is no nested codebook of {size} entries; there are {sizes}")
    return books[size]


def book_by_id(codes_id: str) -> NestedBook | None:
    """The nested codebook of this name in ``.codes`` files, or None."""
    return next((book for book in _books() if book.codes_id == codes_id), None)


@lru_cache(maxsize=1)
def _books() -> list[NestedBook]:
    files = sorted(Path(__file__).parent.glob("*.safetensors"))
    return [book for path in files for book in load_books(path)]

"""Random nested codebooks for the small model of the tests."""

from __future__ import annotations

import numpy as np
import pytest

import simvq_audio.nested
from simvq_audio.nested import NestedBook


def random_books(codes_id: str) -> list[NestedBook]:
    """Codebooks of 64 and 16 entries for a model with 512."""
    rng = np.random.default_rng(0)
    large = rng.permutation(512)[:64]
    parents = np.sort(np.arange(64) % 16)
    return [
        NestedBook(codes_id, large, rng.integers(0, 64, 512)),
        NestedBook(codes_id, large[::4].copy(), parents),
    ]


def install_books(monkeypatch: pytest.MonkeyPatch, codes_id: str) -> list[NestedBook]:
    """Make random nested codebooks the only ones that there are."""
    books = random_books(codes_id)
    monkeypatch.setattr(simvq_audio.nested, "_books", lambda: books)
    return books

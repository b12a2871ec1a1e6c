"""Use of the codebook over a set of recordings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from simvq_audio.evaluation.results import ALL, CodebookUse


class CodeCounter:
    """Counts codes by folder and in total, one recording after the other.

    Args:
        codebook_size: number of entries.
    """

    def __init__(self, codebook_size: int) -> None:
        self._codebook_size = codebook_size
        self._counts: dict[str, np.ndarray] = {}

    def add(self, folder: str, indices: np.ndarray) -> None:
        """Count the (channels, frames) codes of a recording."""
        # Imports torch, which is slow.
        import torch

        from simvq_audio.model.usage import code_counts

        counts = code_counts(torch.tensor(indices, dtype=torch.long), self._codebook_size).numpy()
        for key in dict.fromkeys((ALL, folder)):
            if key in self._counts:
                self._counts[key] += counts
            else:
                self._counts[key] = counts.copy()

    def use(self, folders: Iterable[str]) -> dict[str, CodebookUse]:
        """The use by folder, "all" first; folders without codes are left out."""
        keys = [key for key in dict.fromkeys((ALL, *folders)) if key in self._counts]
        return {key: codebook_use(self._counts[key]) for key in keys}


def codebook_use(counts: np.ndarray) -> CodebookUse:
    """Utilisation, perplexity and entropy (see ``model.usage``) of (codebook_size,) counts."""
    import torch

    from simvq_audio.model.usage import entropy, perplexity, utilisation

    tensor = torch.from_numpy(counts)
    used = np.sort(counts[counts > 0])[::-1]
    return CodebookUse(
        codebook_size=len(counts),
        frames=int(counts.sum()),
        counts=tuple(used.tolist()),
        utilisation=utilisation(tensor).item(),
        perplexity=perplexity(tensor).item(),
        entropy=entropy(tensor).item(),
    )

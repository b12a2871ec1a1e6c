"""Masked priors: networks that predict lost codes from the codes on both sides.

They repair codes and generate them. Those of the package are files in this folder, one for each
``codes_id``.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from simvq_audio.prior.masked.storage import (
    MaskedHeader,
    load_masked_prior,
    read_masked_header,
    save_masked_prior,
)

if TYPE_CHECKING:
    from simvq_audio.prior.masked.network import MaskedPrior

__all__ = [
    "MaskedHeader",
    "load_masked_prior",
    "masked_prior_for_codes",
    "read_masked_header",
    "save_masked_prior",
]


def masked_prior_for_codes(codes_id: str, device: str = "cpu") -> MaskedPrior | None:
    """The masked prior in the package for codes of this kind, or None.

    Args:
        device: where it runs.
    """
    for path, header in _headers():
        if header.codes_id == codes_id:
            return _load(path, device)
    return None


@lru_cache(maxsize=1)
def _headers() -> list[tuple[Path, MaskedHeader]]:
    files = sorted(Path(__file__).parent.glob("*.safetensors"))
    return [(path, read_masked_header(path)) for path in files]


@lru_cache(maxsize=2)
def _load(path: Path, device: str) -> MaskedPrior:
    return load_masked_prior(path).to(device)

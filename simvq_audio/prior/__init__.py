"""Priors: networks that predict codes from the codes before them, with the same result on
every machine.

The priors of the package are files in this folder, one for each ``codes_id``.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from simvq_audio.errors import UnknownPriorError
from simvq_audio.prior.causal import CausalPrior
from simvq_audio.prior.storage import PriorHeader, load_prior, read_prior_header, save_prior

__all__ = [
    "CausalPrior",
    "PriorHeader",
    "load_prior",
    "prior_by_id",
    "prior_file_for_codes",
    "prior_for_codes",
    "read_prior_header",
    "save_prior",
]


def prior_by_id(prior_id: str) -> CausalPrior:
    """The prior in the package that a ``.codes`` file names.

    Raises:
        UnknownPriorError: there is none.
    """
    for path, header in _headers():
        if header.prior_id == prior_id:
            return _load(path)
    raise UnknownPriorError(
        f"the file was coded with the prior {prior_id}, which this version does not have; "
        "update simvq-audio"
    )


def prior_for_codes(codes_id: str) -> CausalPrior | None:
    """The prior in the package that predicts codes of this kind, or None."""
    path = prior_file_for_codes(codes_id)
    return None if path is None else _load(path)


def prior_file_for_codes(codes_id: str) -> Path | None:
    """The path of the prior in the package for codes of this kind, or None."""
    for path, header in _headers():
        if header.codes_id == codes_id:
            return path
    return None


@lru_cache(maxsize=1)
def _headers() -> list[tuple[Path, PriorHeader]]:
    files = sorted(Path(__file__).parent.glob("*.safetensors"))
    return [(path, read_prior_header(path)) for path in files]


@lru_cache(maxsize=2)
def _load(path: Path) -> CausalPrior:
    return load_prior(path)

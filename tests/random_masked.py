"""A small random masked prior for the small model of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import simvq_audio.prior.masked
from simvq_audio.prior.masked import load_masked_prior, read_masked_header, save_masked_prior
from simvq_audio.prior.masked.network import MaskedPrior, MaskedShape

SHAPE = MaskedShape(
    codebook_size=512, embedding=8, taps=1, width=16, layers=2, heads=2, hidden=24, query=8
)


def random_masked_prior(seed: int = 0) -> MaskedPrior:
    """Wide random weights, so that every code near a gap matters."""
    torch.manual_seed(seed)
    prior = MaskedPrior(SHAPE).eval().requires_grad_(False)
    for parameter in prior.parameters():
        wide = 1.0 if parameter.ndim > 1 else 0.3
        parameter.copy_(torch.randn_like(parameter) * wide / parameter.shape[-1] ** 0.25)
    return prior


def install_masked_prior(
    monkeypatch: pytest.MonkeyPatch, folder: Path, codes_id: str
) -> MaskedPrior:
    """Make a random masked prior the only one that there is."""
    path = folder / "masked.safetensors"
    save_masked_prior(path, random_masked_prior(), codes_id)
    found = [(path, read_masked_header(path))]
    monkeypatch.setattr(simvq_audio.prior.masked, "_headers", lambda: found)
    return load_masked_prior(path)

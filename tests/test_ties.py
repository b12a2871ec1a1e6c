"""Codes that float32 cannot decide."""

from __future__ import annotations

import copy

import pytest
import torch

from simvq_audio.codec.streams import inference
from simvq_audio.codec.ties import TieBreaker
from simvq_audio.model.quantizers.nearest import nearest_entries, nearest_with_margins


@pytest.fixture(scope="module")
def tied(model):
    """A model with every entry of the codebook twice, a hair's breadth apart."""
    tied = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(3)
    half = len(tied.quantizer.basis) // 2
    first = tied.quantizer.basis[:half]
    noise = torch.randn(first.shape, generator=generator)
    tied.quantizer.basis[half:] = first * (1 + 2e-7 * noise.sign())
    return tied


def _in_double(model, waveform):
    with torch.inference_mode(False), torch.no_grad():
        encoder = copy.deepcopy(model.encoder).double()
        quantizer = copy.deepcopy(model.quantizer).double()
        return quantizer.search(encoder(waveform.double()).transpose(1, 2))


def test_ties_are_decided_as_float64_decides_them(tied):
    waveform = 0.1 * torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0))
    with inference():
        latent = tied.encode_latent(waveform)
        codes = TieBreaker(tied).encode(latent, list(waveform))
        single = tied.quantizer.encode(latent)
    expected = _in_double(tied, waveform)
    assert torch.equal(codes, expected)
    assert not torch.equal(single, expected)  # otherwise the line above shows nothing


def test_frames_of_a_stream_see_only_their_surroundings(tied):
    """The window of a stream begins later than the recording and has the same codes."""
    waveform = 0.1 * torch.randn(1, 320 * 80, generator=torch.Generator().manual_seed(1))
    context = tied.encoder.context_frames
    with inference():
        latent = tied.encode_latent(waveform)[..., 30:50]
        window = waveform[0, (30 - context) * 320 : (50 + context) * 320]
        codes = TieBreaker(tied).encode(latent, [window], first=context)
    assert torch.equal(codes, _in_double(tied, waveform)[:, 30:50])


@pytest.mark.parametrize("size", [5, 2048, 5000])
def test_margins_are_those_of_sorted_distances(size):
    generator = torch.Generator().manual_seed(size)
    vectors = torch.randn(700, 8, generator=generator)
    codebook = torch.randn(size, 8, generator=generator)
    half_norms = 0.5 * codebook.square().sum(dim=1)
    indices, margins = nearest_with_margins(vectors, codebook, half_norms)
    nearest = torch.cdist(vectors.double(), codebook.double()).square().topk(2, largest=False)
    assert torch.equal(indices, nearest_entries(vectors, codebook))
    expected = (nearest.values[:, 1] - nearest.values[:, 0]) / 2
    torch.testing.assert_close(margins.double(), expected, rtol=0, atol=1e-5)

"""Weights in fewer bits: sizes, errors, and calibration that helps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

EXACT = "donot_use_mm_for_euclid_dist"


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "recipes" / "compress"))
    yield
    for name in ("vectors", "table", "rounding", "small"):
        sys.modules.pop(name, None)


@pytest.fixture
def compress(_path):
    import vectors

    return vectors


def test_rounded(compress):
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    for bits in (4, 8, 12):
        held = compress.Rounded(weight, bits)
        step = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
        assert ((held() - weight).abs() <= 0.51 * step).all()
        assert held.bytes == 6 * 40 * bits / 8 + 2 * 6


def test_clustered(compress):
    weight = torch.randn(32, 96, generator=torch.Generator().manual_seed(0))
    errors = []
    for dim, bits in ((4, 8), (2, 6), (2, 8)):
        held = compress.Clustered(weight, dim, bits)
        held.settle(calibrated=False)
        assert held().shape == weight.shape
        entries = (held() / held.scale).reshape(-1, dim)
        assert torch.cdist(entries, held.entries, compute_mode=EXACT).amin(dim=1).max() < 1e-5
        assert len(held.entries) == 2**bits
        assert held.bytes == weight.numel() / dim * bits / 8 + 2 * (32 + 2**bits * dim)
        errors.append(float((held() - weight).square().mean()))
    # 2, 3 and 4 bits a weight; for a normal distribution 2 bits leave a sixteenth at best.
    assert 0.15 > errors[0] > errors[1] > errors[2]


def test_a_projected_codebook_is_exact_where_vectors_have_few_dimensions(compress):
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(16, 2, generator=generator) @ torch.randn(2, 6, generator=generator)
    chosen = torch.randint(16, (64, 8), generator=generator)
    weight = patterns[chosen].reshape(64, 48)
    # Rows of one scale, so that few entries hold everything.
    weight = weight / weight.std(dim=1, keepdim=True).mean()
    held = compress.Clustered(weight / weight.std(dim=1, keepdim=True), 6, 9, rank=2)
    held.settle(calibrated=False)
    expected = weight / weight.std(dim=1, keepdim=True)
    torch.testing.assert_close(held(), expected, atol=1e-4, rtol=0)


def test_calibration_brings_a_model_nearer_to_what_it_was(compress, model, monkeypatch):
    monkeypatch.setattr(compress, "_SEQUENCES", 8)
    codes = compress.sampled_codes("0" * 12, 512)
    with torch.no_grad():
        wanted = model.decode(codes)
    errors = []
    for calibrated in (False, True):
        variant = compress.Variant(
            "few", "decoder", lambda weight: compress.Clustered(weight, 2, 3), calibrated
        )
        other, size = compress.compressed(model, variant, codes)
        with torch.no_grad():
            errors.append(float((other.decode(codes) - wanted).square().mean()))
        kept = 2 * sum(tensor.numel() for tensor in model.decoder.state_dict().values())
        assert size < 0.6 * kept
        # Only the decoder changed, and the model that was given did not.
        assert torch.equal(other.encoder.out.weight, model.encoder.out.weight)
    assert errors[1] < 0.9 * errors[0]
    with torch.no_grad():
        assert torch.equal(model.decode(codes), wanted)


def test_the_verdict(_path):
    import table

    rows = {
        "encoder as it is": {"bytes": 8e6},
        "quantiser as it is": {"bytes": 1e6},
        "decoder as it is": {"bytes": 15e6, "distillmos": 3.5},
        "encoder 8 bit": {"bytes": 4e6, "same": 0.97},
        "encoder 12 bit": {"bytes": 6e6, "same": 0.9995},
        "decoder VQ 4 bit": {"bytes": 4e6, "distillmos": 3.46},
        "decoder VQ 2 bit": {"bytes": 2e6, "distillmos": 3.4},
    }
    assert "encoder 12 bit, decoder VQ 4 bit, 11.00 MB" in table.verdict(rows)
    assert "more than 7 MB" in table.verdict(rows)
    assert "| decoder VQ 2 bit | 2.00 | all | 3.400 |  |  |" in table.table(rows)


def test_rounding_by_second_moments_costs_less(_path):
    """The same entropy, less error at the output than plain rounding."""
    from rounding import rounded

    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(24, 24, generator=generator) * torch.logspace(0, -2, 24)
    inputs = torch.randn(4000, 24, generator=generator) @ mixing.T
    heard = torch.randn(16, 16, generator=generator) * torch.logspace(0, -2, 16)
    weight = torch.randn(16, 24, generator=generator)
    moments = inputs.double().T @ inputs.double() / 4000, heard.double() @ heard.double().T
    errors, sizes = [], []
    for h, g, cost in (
        (*moments, 2.0**-10),
        (torch.eye(24).double(), torch.eye(16).double(), 2.0**-9),
    ):
        held = rounded(weight, h, g, cost)
        error = torch.from_numpy(held.expand()) - weight
        errors.append(float((heard.T @ error @ inputs.T).square().mean()))
        _, counts = torch.unique(torch.from_numpy(held.numbers), return_counts=True)
        shares = counts / counts.sum()
        sizes.append(float(-(shares * shares.log2()).sum()))
    assert sizes[0] < sizes[1] and errors[0] < 0.5 * errors[1]


def test_a_small_model_has_the_codes_and_nearly_the_sound(_path, model, model_file, tmp_path):
    import numpy as np
    import small
    import soundfile

    from simvq_audio.model.storage import load_model, read_header

    random = np.random.default_rng(0)
    for number in range(3):
        path = tmp_path / "in" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * random.standard_normal(30_000), 24_000)
    out = tmp_path / "few.safetensors"
    costs = ["--encoder-cost", "-36", "--decoder-cost", "-30"]
    arguments = [str(tmp_path / "in"), str(out), "--model", str(model_file), "--minutes", "1"]
    assert small.main([*arguments, "--name", "few", *costs]) == 0
    few, header = load_model(out)
    assert header.codes_id == read_header(model_file).codes_id and header.config.name == "few"
    assert out.stat().st_size < 0.5 * model_file.stat().st_size
    waveform = torch.from_numpy(0.1 * random.standard_normal((1, 24_000))).float()
    with torch.no_grad():
        codes = model.encode(waveform)
        assert (few.encode(waveform) == codes).float().mean() > 0.9
        wanted, found = model.decode(codes), few.decode(codes)
    assert (found - wanted).square().mean() < 0.01 * wanted.square().mean()

"""Every kind of quantiser behind the one protocol, and what is peculiar to each."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from simvq_audio.errors import ConfigError, MissingExtraError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.config import ModelConfig, SpectralEncoderConfig, VocosDecoderConfig
from simvq_audio.model.quantizers import make_quantizer
from simvq_audio.model.quantizers.base import rotate_through
from simvq_audio.model.quantizers.config import (
    EmaVQConfig,
    FactorisedVQConfig,
    FSQConfig,
    PackageConfig,
    ResidualConfig,
    SimVQConfig,
    VQConfig,
)
from simvq_audio.model.storage import load_model, save_model
from simvq_audio.model.usage import code_counts, entry_numbers, utilisation

WIDTH = 6
TABLE = {"codebook_size": 64, "latent_dim": WIDTH}
OURS = [
    SimVQConfig(**TABLE),
    SimVQConfig(**TABLE, basis="trained", rotation=True),
    VQConfig(**TABLE),
    EmaVQConfig(**TABLE),
    FactorisedVQConfig(**TABLE, code_dim=4),
    FSQConfig(levels=(5, 4, 3), latent_dim=WIDTH),
    ResidualConfig(stages=(EmaVQConfig(**TABLE), SimVQConfig(codebook_size=16, latent_dim=WIDTH))),
]


def package(name: str, *sizes: int, **options) -> PackageConfig:
    return PackageConfig(name=name, latent_dim=WIDTH, codebook_sizes=sizes, options=options)


PACKAGE = [
    package("VectorQuantize", 64, codebook_size=64, learnable_codebook=True, ema_update=False),
    package("VectorQuantize", 64, codebook_size=64, threshold_ema_dead_code=0.1),
    package("ResidualVQ", 32, 16, codebook_size=[32, 16]),
    package("FSQ", 60, levels=[5, 4, 3]),
    package("LFQ", 32, codebook_size=32),
    package("SimVQ", 64, codebook_size=64),
]


def name_of(config) -> str:
    return getattr(config, "name", config.kind)


@pytest.fixture(params=[*OURS, *PACKAGE], ids=name_of)
def quantizer(request):
    if request.param.kind == "package":
        pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(0)
    return make_quantizer(request.param)


def latents(frames: int = 4000, seed: int = 3) -> torch.Tensor:
    """(1, WIDTH, frames), correlated, scaled and shifted: nothing like N(0, 1/WIDTH)."""
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(9))
    return (torch.randn(frames, WIDTH, generator=draw) @ mixing.T + 3).T[None]


def start(quantizer, **options) -> None:
    quantizer.start(latents()[0].T, torch.Generator().manual_seed(0), **options)


def error(quantizer, latent: torch.Tensor) -> float:
    """Squared, over the variance."""
    rest = latent - quantizer.decode(quantizer.encode(latent))
    return (rest.square().mean() / latent.var(dim=2).mean()).item()


def test_codes_fit_the_layout_and_decode_to_what_training_sees(quantizer):
    start(quantizer)
    quantizer.eval()
    latent = latents(50, seed=4).repeat(2, 1, 1)
    sizes = quantizer.config.codebook_sizes
    indices = quantizer.encode(latent)
    shape = (2, 50) if len(sizes) == 1 else (2, len(sizes), 50)
    assert indices.shape == shape and indices.dtype == torch.long
    for number, size in enumerate(sizes):
        of_one = indices if len(sizes) == 1 else indices[:, number]
        assert 0 <= of_one.min() and of_one.max() < size
    result = quantizer(latent)
    assert torch.equal(result.indices, indices)
    torch.testing.assert_close(quantizer.decode(indices), result.latent, atol=1e-4, rtol=1e-4)
    # Frame by frame it is the same, and no frames are no codes.
    parts = [quantizer.encode(part) for part in latent.split(7, dim=2)]
    assert torch.equal(torch.cat(parts, dim=-1), indices)
    assert quantizer.encode(latent[..., :0]).shape == (*shape[:-1], 0)


def test_a_start_puts_entries_where_latents_are(quantizer):
    before = error(quantizer, latents(seed=5))
    start(quantizer)
    after = error(quantizer, latents(seed=5))
    # The package's SimVQ has no bias, and stays where it was.
    assert after < before and (after < 0.5 or name_of(quantizer.config) == "SimVQ")
    if quantizer.config.kind == "package":
        return
    counts = code_counts(
        entry_numbers(quantizer.encode(latents()), quantizer.config.codebook_sizes),
        sum(quantizer.config.codebook_sizes),
    )
    assert utilisation(counts) > 0.5


def test_gradients_reach_the_latent_and_what_learns(quantizer):
    start(quantizer)
    quantizer.train()
    latent = latents(30).requires_grad_()
    result = quantizer(latent)
    (result.latent.square().mean() + sum(result.losses.values())).backward()
    assert latent.grad.isfinite().all() and (latent.grad != 0).any()
    learning = [p for p in quantizer.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learning)
    known = {id(p) for p in learning}
    assert all(id(p) in known for p in quantizer.fast_parameters())


def test_a_model_of_any_kind_is_rebuilt_from_its_file(quantizer, tmp_path):
    shape = {"n_fft": 320, "hop_length": 80, "dim": 16, "hidden_dim": 16, "blocks": 1}
    config = ModelConfig(
        sample_rate=8000,
        encoder=SpectralEncoderConfig(**shape),
        quantizer=quantizer.config,
        decoder=VocosDecoderConfig(**shape),
    )
    torch.manual_seed(0)
    model = Autoencoder(config).eval()
    start(model.quantizer)
    save_model(tmp_path / "a.safetensors", config, model.state_dict())
    again, header = load_model(tmp_path / "a.safetensors")
    assert header.config == config
    waveform = 0.1 * torch.randn(1, 8000)
    codes = again.encode(waveform)
    assert torch.equal(codes, model.encode(waveform))
    assert torch.equal(again.decode(codes), model.decode(codes))
    assert again.decode(codes).shape == (1, 8000)


def test_entries_may_keep_their_draw_at_the_latents_moments():
    for config in (VQConfig(codebook_size=20_000, latent_dim=WIDTH), SimVQConfig(**TABLE)):
        torch.manual_seed(0)
        quantizer = make_quantizer(config)
        before = quantizer.codebook().clone()
        start(quantizer, entries_from_latents=False)
        assert error(quantizer, latents(seed=5)) < error(quantizer, latents(seed=5) + 30)
        if config.kind == "vq":
            flat, entries = latents()[0].T, quantizer.codebook()
            torch.testing.assert_close(entries.mean(0), flat.mean(0), atol=0.1, rtol=0.05)
            torch.testing.assert_close(entries.T.cov(), flat.T.cov(), atol=0.2, rtol=0.1)
            assert not torch.equal(entries, before)


def test_k_means_lowers_the_error_of_tables():
    for config in (VQConfig(**TABLE), EmaVQConfig(**TABLE)):
        errors = []
        for rounds in (0, 8):
            torch.manual_seed(0)
            quantizer = make_quantizer(config)
            start(quantizer, kmeans_rounds=rounds)
            errors.append(error(quantizer, latents()))
        assert errors[1] < 0.9 * errors[0]


def test_plain_vq_is_vq_vaes_formula():
    torch.manual_seed(0)
    quantizer = make_quantizer(VQConfig(**TABLE))
    latent = torch.randn(2, WIDTH, 9, requires_grad=True)
    result = quantizer(latent)
    z = latent.transpose(1, 2)
    nearest = torch.cdist(z, quantizer.entries).argmin(-1)
    assert torch.equal(result.indices, nearest)
    chosen = quantizer.entries[nearest]
    for name, expected in (
        ("codebook", F.mse_loss(chosen, z.detach())),
        ("commitment", F.mse_loss(z, chosen.detach())),
    ):
        torch.testing.assert_close(result.losses[name], expected)
        inputs = [quantizer.entries] if name == "codebook" else [latent]
        ours, theirs = (
            torch.autograd.grad(loss, inputs, retain_graph=True)[0]
            for loss in (result.losses[name], expected)
        )
        torch.testing.assert_close(ours, theirs)
    assert quantizer.fast_parameters() == [quantizer.entries]


def test_factorised_vq_is_vit_vqgans_formula():
    torch.manual_seed(0)
    quantizer = make_quantizer(FactorisedVQConfig(**TABLE, code_dim=4))
    latent = torch.randn(2, WIDTH, 9, requires_grad=True)
    result = quantizer(latent)
    unit = F.normalize(quantizer.project_in(latent.transpose(1, 2)), dim=-1)
    table = F.normalize(quantizer.entries, dim=-1)
    nearest = (unit @ table.T).argmax(-1)
    assert torch.equal(result.indices, nearest)
    for name, expected in (
        ("codebook", F.mse_loss(table[nearest], unit.detach())),
        ("commitment", F.mse_loss(unit, table[nearest].detach())),
    ):
        torch.testing.assert_close(result.losses[name], expected)
        learns = quantizer.entries if name == "codebook" else latent
        ours, theirs = (
            torch.autograd.grad(loss, learns, retain_graph=True)[0]
            for loss in (result.losses[name], expected)
        )
        torch.testing.assert_close(ours, theirs)
    # The lengths of entries do not matter.
    with torch.no_grad():
        quantizer.entries.mul_(3)
    assert torch.equal(quantizer.encode(latent), nearest)
    with pytest.raises(IndexError):
        quantizer.decode(torch.tensor([[64]]))


def test_moving_averages_are_those_of_the_paper():
    torch.manual_seed(0)
    quantizer = make_quantizer(EmaVQConfig(**TABLE, decay=0.8, dead_share=0.0)).train()
    sums = uses = None
    for step in range(5):
        latent = torch.randn(1, WIDTH, 40)
        entries = quantizer.entries.clone()
        result = quantizer(latent)
        chosen = F.one_hot(result.indices[0], 64).float()
        if uses is None:
            uses = torch.full((64,), 40 / 64)
            sums = entries * uses[:, None]
        uses = 0.8 * uses + 0.2 * chosen.sum(0)
        sums = 0.8 * sums + 0.2 * chosen.T @ latent[0].T
        torch.testing.assert_close(quantizer.entries.data, sums / uses[:, None], msg=str(step))
        assert set(result.losses) == {"commitment"}
    quantizer.eval()
    before = quantizer.entries.clone()
    quantizer(torch.randn(1, WIDTH, 40))
    assert torch.equal(quantizer.entries, before)


def test_entries_that_are_hardly_chosen_move_to_latents():
    torch.manual_seed(0)
    quantizer = make_quantizer(EmaVQConfig(**TABLE, decay=0.5)).train()
    with torch.no_grad():
        quantizer.entries[:] += 100  # one of them is nearest to everything
    batch = latents(300)
    for _ in range(8):
        quantizer(batch)
    counts = code_counts(quantizer.encode(batch), 64)
    assert utilisation(counts) > 0.8


def test_latents_that_are_not_finite_leave_averages_alone():
    torch.manual_seed(0)
    quantizer = make_quantizer(EmaVQConfig(**TABLE)).train()
    quantizer(latents(50))
    before, uses = quantizer.entries.clone(), quantizer.uses.clone()
    bad = latents(50)
    bad[0, 0, 7] = float("nan")
    quantizer(bad)
    assert torch.equal(quantizer.entries, before) and torch.equal(quantizer.uses, uses)


def test_stages_code_what_is_left():
    torch.manual_seed(0)
    quantizer = make_quantizer(OURS[-1])
    start(quantizer)
    quantizer.eval()
    latent = latents(200, seed=6)
    first, second = quantizer.stages
    rest = latent - first.decode(first.encode(latent))
    indices = quantizer.encode(latent)
    assert torch.equal(indices[:, 0], first.encode(latent))
    assert torch.equal(indices[:, 1], second.encode(rest))
    assert error(quantizer, latent) < 0.7 * error(first, latent)
    # Straight through as a whole: what arrives at the sum arrives at the latent unchanged.
    latent.requires_grad_()
    direction = torch.randn_like(latent)
    (gradient,) = torch.autograd.grad(quantizer(latent).latent, latent, direction)
    assert torch.equal(gradient, direction)


@pytest.mark.parametrize("levels", [(8, 8, 8), (5, 3), (2, 7, 4)])
def test_fsq_has_the_grid_of_its_paper(levels):
    quantizer = make_quantizer(FSQConfig(levels=levels, latent_dim=len(levels)))
    with torch.no_grad():
        for layer in (quantizer.project_in, quantizer.project_out):
            layer.weight.copy_(torch.eye(len(levels)))
            layer.bias.zero_()
    size = quantizer.config.codebook_size
    everything = torch.arange(size)[None]
    points = quantizer.decode(everything)[0].T
    assert len(points.unique(dim=0)) == size
    for number, count in enumerate(levels):
        values = (torch.arange(count) - count // 2) / (count // 2)
        assert torch.equal(points[:, number].unique(), values)
    # Far out, every dimension is at its outermost value.
    far = torch.full((1, len(levels), 2), 50.0)
    far[..., 1] *= -1
    assert quantizer.encode(far).tolist() == [[size - 1, 0]]
    with pytest.raises(IndexError):
        quantizer.decode(torch.tensor([[size]]))


def test_fsq_agrees_with_the_package():
    package = pytest.importorskip("vector_quantize_pytorch")
    ours = make_quantizer(FSQConfig(levels=(8, 5, 4), latent_dim=3))
    theirs = package.FSQ([8, 5, 4], dim=3).eval()
    with torch.no_grad():
        for layer in (ours.project_in, ours.project_out):
            layer.weight.copy_(torch.eye(3))
            layer.bias.zero_()
    z = 2 * torch.randn(1, 500, 3)
    values, indices = theirs(z)
    assert torch.equal(ours.encode(z.transpose(1, 2)), indices.long())
    torch.testing.assert_close(ours.decode(indices.long()), values.transpose(1, 2))


def test_the_rotation_takes_vectors_to_entries_and_keeps_angles():
    torch.manual_seed(0)
    z, entries = torch.randn(50, WIDTH, requires_grad=True), torch.randn(50, WIDTH)
    turned = rotate_through(z, entries)
    torch.testing.assert_close(turned, entries)
    direction = torch.randn(50, WIDTH)
    (gradient,) = torch.autograd.grad(turned, z, direction)
    scale = entries.norm(dim=1) / z.norm(dim=1)
    torch.testing.assert_close(gradient.norm(dim=1), scale * direction.norm(dim=1))
    torch.testing.assert_close(
        F.cosine_similarity(gradient, z), F.cosine_similarity(direction, entries)
    )


def test_what_the_package_refuses_is_said(monkeypatch):
    pytest.importorskip("vector_quantize_pytorch")
    with pytest.raises(ConfigError, match="has no quantiser 'VQQ'"):
        make_quantizer(package("VQQ", 64))
    with pytest.raises(ConfigError, match="FSQ of vector-quantize-pytorch"):
        make_quantizer(package("FSQ", 64, depth=3))
    monkeypatch.setitem(__import__("sys").modules, "vector_quantize_pytorch", None)
    with pytest.raises(MissingExtraError, match=r"simvq-audio\[study\]"):
        make_quantizer(package("FSQ", 60, levels=[5, 4, 3]))

"""SimVQ against its definition, its memory, and its start-up."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from simvq_audio.model.quantizers.config import SimVQConfig
from simvq_audio.model.quantizers.nearest import nearest_entries
from simvq_audio.model.quantizers.simvq import SimVQ
from simvq_audio.model.usage import code_counts, entropy, perplexity, utilisation


def make(codebook_size=64, latent_dim=8, **options) -> SimVQ:
    torch.manual_seed(0)
    return SimVQ(SimVQConfig(codebook_size=codebook_size, latent_dim=latent_dim, **options))


def start(quantizer: SimVQ, latents: torch.Tensor, **options) -> None:
    """From latents (batch, latent_dim, frames)."""
    flat = latents.transpose(1, 2).flatten(0, 1)
    quantizer.start(flat, torch.Generator().manual_seed(0), **options)


@pytest.mark.parametrize("codebook_size", [2, 3, 64, 1000])
@pytest.mark.parametrize("bias", [True, False])
def test_forward_is_the_papers_formula(codebook_size, bias):
    quantizer = make(codebook_size, bias=bias)
    latent = torch.randn(3, 8, 11, requires_grad=True)
    result = quantizer(latent)

    z = latent.transpose(1, 2)
    codebook = quantizer.proj(quantizer.basis)
    distances = (z.unsqueeze(2) - codebook).square().sum(-1)
    nearest = distances.argmin(-1)
    assert result.indices.shape == (3, 11)
    assert torch.equal(result.indices, nearest)
    entries = codebook[nearest]
    torch.testing.assert_close(result.latent, entries.transpose(1, 2))
    expected = ((entries - z.detach()) ** 2).mean() + 0.25 * ((entries.detach() - z) ** 2).mean()
    loss = result.losses["codebook"] + 0.25 * result.losses["commitment"]
    torch.testing.assert_close(loss, expected)

    # Gradients: the loss reaches W through the chosen entries alone, the latent through beta.
    names = ["latent", "weight", *(["bias"] if bias else [])]
    inputs = [latent, *quantizer.proj.parameters()]
    for name, ours, theirs in zip(
        names,
        torch.autograd.grad(loss, inputs, retain_graph=True),
        torch.autograd.grad(expected, inputs),
    ):
        torch.testing.assert_close(ours, theirs, msg=name)
    # Straight through: what arrives at the quantised latent arrives at the latent unchanged.
    direction = torch.randn_like(result.latent)
    (straight,) = torch.autograd.grad(result.latent, latent, direction)
    assert torch.equal(straight, direction)


def test_basis_is_frozen_and_saved():
    quantizer = make()
    assert [name for name, _ in quantizer.named_parameters()] == ["proj.weight", "proj.bias"]
    assert "basis" in quantizer.state_dict()


def test_basis_has_the_papers_variance():
    quantizer = make(codebook_size=20_000, latent_dim=50)
    assert quantizer.basis.var().item() == pytest.approx(1 / 50, rel=0.01)


def test_decode_goes_through_w_and_inverts_encode():
    quantizer = make()
    latent = torch.randn(2, 8, 5)
    indices = quantizer.encode(latent)
    expected = F.linear(quantizer.basis[indices], quantizer.proj.weight, quantizer.proj.bias)
    torch.testing.assert_close(quantizer.decode(indices), expected.transpose(1, 2))
    # Each entry is its own nearest neighbour.
    everything = torch.arange(64)[None]
    assert torch.equal(quantizer.encode(quantizer.decode(everything)), everything)


def test_no_frames_give_no_codes():
    quantizer = make()
    assert quantizer.encode(torch.zeros(2, 8, 0)).shape == (2, 0)
    assert quantizer.decode(torch.zeros(2, 0, dtype=torch.long)).shape == (2, 8, 0)


@pytest.mark.parametrize("change", ["in place", "load", "replace", "basis"])
def test_cached_codebook_is_dropped_when_it_changes(change):
    quantizer = make().eval()
    before = quantizer.codebook().clone()
    assert quantizer.codebook() is quantizer.codebook()
    with torch.no_grad():
        if change == "in place":
            quantizer.proj.weight.mul_(2)
        elif change == "load":
            state = {k: v + 1 for k, v in quantizer.state_dict().items()}
            quantizer.load_state_dict(state)
        elif change == "replace":
            quantizer.proj.weight = torch.nn.Parameter(quantizer.proj.weight * 3)
        else:
            quantizer.basis.add_(1)
    expected = quantizer.proj(quantizer.basis)
    assert not torch.allclose(before, expected)
    torch.testing.assert_close(quantizer.codebook(), expected)


@pytest.mark.parametrize("fused", [False, True])
def test_training_searches_the_codebook_that_the_optimiser_left(fused):
    """Fused optimisers change W without raising its version, which the cache goes by."""
    quantizer = make()
    optimizer = torch.optim.AdamW(quantizer.parameters(), lr=0.3, fused=fused)
    latent = torch.randn(1, 8, 200)
    for _ in range(3):
        optimizer.zero_grad()
        quantizer(latent).losses["codebook"].backward()
        optimizer.step()
    codebook = quantizer.proj(quantizer.basis)
    nearest = torch.cdist(latent.transpose(1, 2)[0], codebook).argmin(1)
    torch.testing.assert_close(quantizer.codebook(), codebook)
    assert torch.equal(quantizer(latent).indices[0], nearest)
    quantizer.eval()
    assert torch.equal(quantizer.encode(latent)[0], nearest)


def test_autocast_changes_no_code():
    quantizer = make(codebook_size=4096, latent_dim=64)
    latent = 0.02 * torch.randn(1, 64, 500)  # close calls: half precision would flip many
    with torch.autocast("cpu", torch.bfloat16):
        under = quantizer(latent)
        encoded = quantizer.encode(latent)
    plain = quantizer(latent)
    assert torch.equal(under.indices, plain.indices)
    assert torch.equal(encoded, plain.indices)
    assert all(loss.dtype == torch.float32 for loss in under.losses.values())


@pytest.mark.parametrize("tile", [(7, 64), (100, 511), (512, 2048)])
def test_tiles_of_the_search_change_nothing(monkeypatch, tile):
    vectors, codebook = torch.randn(100, 8), torch.randn(1000, 8)
    codebook[700] = codebook[3]  # equally far in another tile: the first counts
    vectors[0] = codebook[3]
    expected = torch.cdist(vectors.double(), codebook.double()).argmin(dim=1)
    monkeypatch.setattr("simvq_audio.model.quantizers.nearest._TILE", tile)
    assert torch.equal(nearest_entries(vectors, codebook), expected)
    assert nearest_entries(vectors[:0], codebook).shape == (0,)


def test_largest_codebook_with_a_minute_stays_below_one_gib():
    # In a process of its own: peak memory never comes down again.
    script = """
import resource, torch
from simvq_audio.model.quantizers.config import SimVQConfig
from simvq_audio.model.quantizers.simvq import SimVQ
quantizer = SimVQ(SimVQConfig(codebook_size=262144, latent_dim=64))
latent = torch.randn(1, 64, 60 * 75, requires_grad=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = quantizer(latent)
sum(result.losses.values()).backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    kib = int(
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    )
    assert kib < 2**20


def train_toy(covariance_start: bool, steps: int = 150) -> float:
    """Perplexity of 256 codes after training a tiny linear autoencoder on correlated noise."""
    torch.manual_seed(1)
    mixing = torch.randn(16, 16) @ torch.diag(torch.linspace(2.0, 0.1, 16))
    encoder, decoder = torch.nn.Linear(16, 8), torch.nn.Linear(8, 16)
    # The offset between latents and codebook that real encoders start with.
    torch.nn.init.constant_(encoder.bias, 4.0)
    quantizer = make(codebook_size=256, latent_dim=8)
    optimizer = torch.optim.Adam(
        [*encoder.parameters(), *decoder.parameters(), *quantizer.parameters()], lr=1e-3
    )
    counts = torch.zeros(256, dtype=torch.long)
    for step in range(steps):
        x = torch.randn(32, 20, 16) @ mixing
        latent = encoder(x).transpose(1, 2)
        if covariance_start and step < 20:
            quantized, loss = latent, 0.0
        else:
            if covariance_start and step == 20:
                start(quantizer, latent.detach(), entries_from_latents=False)
            result = quantizer(latent)
            quantized = result.latent
            loss = result.losses["codebook"] + 0.25 * result.losses["commitment"]
            if step >= steps - 10:
                counts += code_counts(result.indices, 256)
        total = F.mse_loss(decoder(quantized.transpose(1, 2)), x) + loss
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return perplexity(counts).item()


def test_covariance_start_prevents_the_collapse_of_plain_initialisation():
    assert train_toy(covariance_start=False) < 20
    assert train_toy(covariance_start=True) > 100


def test_covariance_start_gives_the_codebook_the_latents_moments():
    quantizer = make(codebook_size=50_000, latent_dim=6)
    mixing = torch.randn(6, 6)
    latents = (torch.randn(4, 5000, 6) @ mixing.T + torch.arange(6.0)).transpose(1, 2)
    start(quantizer, latents, entries_from_latents=False)
    flat = latents.transpose(1, 2).reshape(-1, 6)
    codebook = quantizer.codebook()
    torch.testing.assert_close(codebook.mean(0), flat.mean(0), atol=0.1, rtol=0.05)
    torch.testing.assert_close(codebook.T.cov(), flat.T.cov(), atol=0.15, rtol=0.05)


def bimodal_latents(frames: int) -> torch.Tensor:
    """(1, 6, frames) in two clusters: as far from Gaussian as speech and silence are."""
    generator = torch.Generator().manual_seed(3)
    sign = torch.randint(0, 2, (frames, 1), generator=generator) * 2 - 1
    scale = torch.tensor([8.0, 0.5, 0.5, 0.5, 0.5, 0.5])
    noise = torch.randn(frames, 6, generator=generator)
    return (sign * scale + 0.3 * noise).T[None]


def test_basis_drawn_from_the_latents_follows_their_distribution():
    latents = bimodal_latents(20_000)
    used = {}
    for drawn in (False, True):
        quantizer = make(codebook_size=1024, latent_dim=6)
        start(quantizer, latents, entries_from_latents=drawn)
        used[drawn] = perplexity(code_counts(quantizer.encode(latents), 1024)).item()
    assert used[True] > 700
    assert used[False] < 400


def test_drawn_basis_keeps_its_variance_and_stands_on_latents():
    latents = bimodal_latents(5000)
    quantizer = make(codebook_size=512, latent_dim=6)
    start(quantizer, latents)
    assert quantizer.basis.var(0).mean().item() == pytest.approx(1 / 6, rel=0.1)
    distances = (
        torch.cdist(quantizer.codebook(), latents[0].T, compute_mode="donot_use_mm_for_euclid_dist")
        .min(dim=1)
        .values
    )
    assert distances.max() < 1e-3


def test_drawn_basis_of_few_latents_has_no_equal_entries():
    latents = bimodal_latents(100)
    quantizer = make(codebook_size=512, latent_dim=6)
    start(quantizer, latents)
    assert len(quantizer.codebook().unique(dim=0)) == 512


@pytest.mark.parametrize("bias", [True, False])
def test_each_round_of_k_means_lowers_the_error_until_entries_are_means(bias):
    latents = bimodal_latents(2000)
    weights, errors = [], []
    for rounds in (0, 1, 2, 5, 60):
        quantizer = make(codebook_size=48, latent_dim=6, bias=bias)
        start(quantizer, latents, kmeans_rounds=rounds)
        weights.append(quantizer.proj.weight.clone())
        errors.append((latents - quantizer.decode(quantizer.encode(latents))).square().mean())
    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(errors))
    assert errors[-1] < 0.85 * errors[0]
    assert all(torch.equal(weight, weights[0]) for weight in weights)
    indices = quantizer.encode(latents)[0]
    for index in indices.unique():
        mean = latents[0][:, indices == index].mean(dim=1)
        torch.testing.assert_close(quantizer.codebook()[index], mean, atol=1e-4, rtol=0)


def test_k_means_leaves_entries_without_latents_where_they_are():
    # As many entries as latents: some start from the same latent, and one of those gets it.
    latents = bimodal_latents(40)
    before, after = (make(codebook_size=64, latent_dim=6) for _ in range(2))
    start(before, latents)
    start(after, latents, kmeans_rounds=1)
    hit = torch.zeros(64, dtype=torch.bool)
    hit[before.encode(latents).flatten()] = True
    assert 0 < hit.sum() < 64
    assert torch.equal(after.basis[~hit], before.basis[~hit])


def test_latents_without_variance_in_a_direction_give_a_finite_codebook():
    latents = bimodal_latents(2000)
    latents[:, 3:] = 1.0
    quantizer = make(codebook_size=64, latent_dim=6)
    start(quantizer, latents)
    assert quantizer.codebook().isfinite().all()
    assert all(loss.isfinite() for loss in quantizer(latents).losses.values())


def test_covariance_start_needs_two_latents():
    with pytest.raises(ValueError, match="two latents"):
        start(make(), torch.randn(1, 8, 1))


def test_usage_of_known_codes():
    indices = torch.tensor([[0, 0, 1, 1], [2, 2, 3, 3]])
    counts = code_counts(indices, 8)
    assert counts.tolist() == [2, 2, 2, 2, 0, 0, 0, 0]
    assert utilisation(counts).item() == 0.5
    assert entropy(counts).item() == pytest.approx(2.0)
    assert perplexity(counts).item() == pytest.approx(4.0)
    assert perplexity(code_counts(torch.tensor([5, 5]), 262_144)).item() == pytest.approx(1.0)

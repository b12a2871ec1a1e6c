"""Every quantiser of the study: its codes, its gradient, its start; ours against the package's."""

from __future__ import annotations

import pytest
import torch
import vector_quantize_pytorch as vqp
from simvq_audio.model.quantizer import SimVQ
from study.bottleneck import Unquantized, draw_entries
from study.ours import Simvq
from study.package import PackageSimvq, Projected, Residual, Table, fsq_levels
from study.rows import ROWS, SIZES, plan
from study.session import relative_error

from simvq_audio.errors import ConfigError
from simvq_audio.model.config import QuantizerConfig

WIDTH = 8
QUANTIZERS = [row for row in ROWS.values() if row.group != "reference"]


def correlated(count: int, seed: int = 0) -> torch.Tensor:
    """Latents (count, WIDTH) with a mean, and variance in some directions more than in others."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(2, 0.2, WIDTH)
    mixing = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
    return torch.randn(count, WIDTH, generator=generator) * scales @ mixing + 0.7


def batch(count: int, seed: int = 1) -> torch.Tensor:
    return correlated(2 * count, seed).view(2, count, WIDTH).transpose(1, 2).contiguous()


def started(row, size: int = 64):
    torch.manual_seed(0)
    bottleneck = row.make(size, WIDTH).train()
    if not row.cold:
        bottleneck.start(correlated(500), torch.Generator().manual_seed(0), 100)
    return bottleneck


@pytest.mark.parametrize("rotation", [False, True])
def test_equal_weights_give_the_codes_and_losses_of_the_packages_simvq(rotation):
    torch.manual_seed(2)
    theirs = vqp.SimVQ(WIDTH, 256, rotation_trick=rotation)
    ours = Simvq(256, WIDTH, bias=False, rotation=rotation).train()
    ours.simvq.basis.copy_(theirs.frozen_codebook)
    ours.simvq.proj.load_state_dict(theirs.code_transform.state_dict())
    latent = (0.3 * batch(150)).requires_grad_()
    weights = torch.randn(2, WIDTH, 150)
    results = []
    for run in (lambda: ours(latent), lambda: theirs(latent.transpose(1, 2))):
        latent.grad = None
        entries, indices, loss = run()
        if entries.shape[1] != WIDTH:
            entries = entries.transpose(1, 2)
        ((entries * weights).sum() + loss).backward()
        results.append((indices, entries, loss, latent.grad.clone()))
    (indices, *numbers), (their_indices, *their_numbers) = results
    assert torch.equal(indices, their_indices)
    assert len(indices.unique()) > 20
    for number, their_number in zip(numbers, their_numbers):
        torch.testing.assert_close(number, their_number, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        ours.simvq.proj.weight.grad, theirs.code_transform.weight.grad, rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(ours.decode(indices), theirs.indices_to_codes(indices).mT)


@pytest.mark.parametrize("row", QUANTIZERS, ids=lambda row: row.name)
def test_codes_lie_below_k_and_decode_to_what_the_decoder_saw(row):
    bottleneck = started(row)
    latent = batch(60).requires_grad_()
    quantized = bottleneck(latent)
    assert quantized.latent.shape == latent.shape
    assert quantized.indices.shape == (2, 60)
    assert quantized.indices.dtype == torch.long
    assert 0 <= quantized.indices.min() and quantized.indices.max() < 64
    (quantized.latent.square().sum() + quantized.loss).backward()
    assert latent.grad.abs().sum() > 0
    bottleneck.eval()
    again = bottleneck.encode(latent)
    assert again.shape == (2, 60)
    entries = bottleneck.decode(again)
    with torch.no_grad():
        expected = bottleneck(latent)
    assert torch.equal(again, expected.indices)
    torch.testing.assert_close(entries, expected.latent.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "row", [row for row in QUANTIZERS if not row.cold], ids=lambda row: row.name
)
def test_a_started_quantiser_lies_where_the_latents_lie(row):
    bottleneck = started(row).eval()
    latent = batch(200, seed=0)
    error = relative_error(latent, bottleneck.decode(bottleneck.encode(latent))).item()
    cold = row.make(64, WIDTH).eval()
    cold_error = relative_error(latent, cold.decode(cold.encode(latent))).item()
    assert error < 0.75 * cold_error
    assert error < 0.75


def test_an_entry_that_nothing_hits_is_replaced_and_one_in_use_is_not():
    table = Table(64, WIDTH, ema=True).train()
    table.start(correlated(500), torch.Generator().manual_seed(0), 100)
    table.quantizer._codebook.embed.data[0, 5] = 1000.0
    kept = table.encode(batch(50)).unique()
    for seed in range(60):
        table(batch(50, seed))
    assert table.quantizer.codebook[5].abs().max() < 100
    assert len(table.encode(batch(50)).unique()) > len(kept) / 2


def test_a_learnt_table_moves_by_its_gradient_alone():
    table = Table(64, WIDTH, ema=False).train()
    table.start(correlated(500), torch.Generator().manual_seed(0), 100)
    before = table.quantizer.codebook.detach().clone()
    table(batch(50)).loss.backward()
    assert torch.equal(table.quantizer.codebook, before)
    (parameter,) = table.parameters()
    assert parameter.grad.abs().sum() > 0


def test_a_trained_basis_learns_and_a_frozen_one_is_no_parameter():
    for trained in (True, False):
        simvq = Simvq(64, WIDTH, trained_basis=trained).train()
        simvq(batch(50)).loss.backward()
        names = {name for name, parameter in simvq.named_parameters() if parameter.grad is not None}
        expected = {"simvq.proj.weight", "simvq.proj.bias"}
        assert names == (expected | {"simvq.basis"} if trained else expected)


def test_residual_codes_name_both_stages():
    residual = Residual(32, WIDTH).train()
    residual.start(correlated(500), torch.Generator().manual_seed(0), 100)
    residual.eval()
    latent = batch(40)
    _, stages, _ = residual.quantizer(latent.mT)
    codes = residual.encode(latent)
    assert torch.equal(codes, stages[..., 0] * 4 + stages[..., 1])
    tables = [layer.codebook for layer in residual.quantizer.layers]
    assert [len(table) for table in tables] == [8, 4]
    expected = tables[0][codes // 4] + tables[1][codes % 4]
    torch.testing.assert_close(residual.decode(codes), expected.mT)


@pytest.mark.parametrize("size", [64, *SIZES])
def test_fsq_has_exactly_as_many_codes(size):
    assert torch.tensor(fsq_levels(size)).prod() == size
    assert min(fsq_levels(size)) >= 4


def test_drawn_entries_are_latents_and_repeated_ones_differ():
    latents = correlated(40)
    entries = draw_entries(latents, 100, torch.Generator().manual_seed(0))
    assert torch.equal(entries[:40].sort(dim=0).values, latents.sort(dim=0).values)
    assert len(entries.unique(dim=0)) == 100


def test_the_packages_simvq_starts_with_the_covariance_of_the_latents():
    package = PackageSimvq(4096, WIDTH)
    latents = correlated(4000)
    package.start(latents, torch.Generator(), 100)
    codebook = package.quantizer.codebook.detach()
    torch.testing.assert_close(codebook.T.cov(), latents.T.cov(), rtol=0.3, atol=0.15)


def test_the_largest_sizes_can_be_made():
    for row in ROWS.values():
        if row.name in ("fsq", "simvq-latents", "rvq"):
            row.make(max(row.sizes), WIDTH)


def test_without_a_quantiser_the_latent_stays():
    latent = batch(5)
    quantized = Unquantized()(latent)
    assert quantized.latent is latent
    assert quantized.indices.max() == 0


def test_plan_takes_seed_by_seed_and_the_slow_ones_late():
    runs = plan(None, None, [0, 1, 2])
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    slow = names.index("vq-262144-s0")
    assert max(n for n, run in enumerate(runs[:slow]) if run.seed == 1) < slow
    assert names.index("simvq-latents-8192-s1") < slow < names.index("simvq-latents-8192-s2")
    assert "vq-262144-s1" not in names
    assert [run.name for run in plan(["fsq"], [8192], [3])] == ["fsq-8192-s3"]


@pytest.mark.parametrize(
    "arguments, message",
    [((["none"], None, [0]), "no row 'none'"), ((["fsq"], [77], [0]), "codebook sizes")],
)
def test_a_plan_without_runs_is_an_error(arguments, message):
    with pytest.raises(ConfigError, match=message):
        plan(*arguments)


def test_ours_is_the_models_own_quantiser():
    torch.manual_seed(0)
    ours = Simvq(64, WIDTH)
    torch.manual_seed(0)
    model = SimVQ(QuantizerConfig(64, WIDTH))
    latent = batch(30)
    assert torch.equal(ours.encode(latent), model.encode(latent))


def test_projected_quantisers_do_not_learn_faster_than_the_rest():
    assert not Projected(64, WIDTH, kind="fsq").fast
    assert Simvq(64, WIDTH).fast

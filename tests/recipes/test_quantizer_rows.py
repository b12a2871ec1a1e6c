"""Every row of the study: its configuration, its quantiser, and the plan of runs."""

from __future__ import annotations

import pytest
import torch
import vector_quantize_pytorch as vqp
from study.rows import ROWS, Run, find_row, plan
from study.training import configure

from simvq_audio.errors import ConfigError
from simvq_audio.model.quantizers import make_quantizer
from simvq_audio.model.quantizers.config import SimVQConfig

WIDTH = 8
QUANTIZERS = [row for row in ROWS.values() if row.group != "reference"]


@pytest.mark.parametrize("rotation", [False, True])
def test_equal_weights_give_the_codes_and_losses_of_the_packages_simvq(rotation):
    torch.manual_seed(2)
    theirs = vqp.SimVQ(WIDTH, 256, rotation_trick=rotation)
    ours = make_quantizer(
        SimVQConfig(codebook_size=256, latent_dim=WIDTH, bias=False, rotation=rotation)
    ).train()
    ours.basis.copy_(theirs.frozen_codebook)
    ours.proj.load_state_dict(theirs.code_transform.state_dict())
    latent = (0.3 * torch.randn(2, WIDTH, 150)).requires_grad_()
    weights = torch.randn(2, WIDTH, 150)

    def run_ours():
        entries, indices, losses = ours(latent)
        return entries, indices, losses["codebook"] + 0.25 * losses["commitment"]

    results = []
    for run in (run_ours, lambda: theirs(latent.transpose(1, 2))):
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
        ours.proj.weight.grad, theirs.code_transform.weight.grad, rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(ours.decode(indices), theirs.indices_to_codes(indices).mT)


@pytest.mark.parametrize("row", QUANTIZERS, ids=lambda row: row.name)
def test_every_size_of_every_row_is_a_configuration(row):
    for size in row.sizes:
        config = configure(Run(row.name, size, 3))
        sizes = config.model.quantizer.codebook_sizes
        codes = torch.tensor(sizes).prod()
        # The levels of FSQ's paper come near.
        assert codes == size or (row.name == "fsq" and 0.9 < codes / size < 1.1)
        assert config.seed == 3 and config.steps == 550 * row.length
        assert (config.quantizer_start.unquantized_steps == 0) == row.cold
        assert config.optimizer.quantizer_factor == (40 if row.fast else 1)
        assert config.steps < config.adversary.start_step


def test_equal_seeds_start_from_equal_encoders_and_decoders():
    from simvq_audio.model.autoencoder import Autoencoder

    states = []
    for name in ("simvq-latents", "vq-ema", "fsq"):
        config = configure(Run(name, 1024, 1))
        torch.manual_seed(config.seed)
        states.append(Autoencoder(config.model).state_dict())
    for name, value in states[0].items():
        if not name.startswith("quantizer."):
            assert all(torch.equal(value, state[name]) for state in states)


def test_a_learning_basis_has_the_rate_that_the_row_says():
    fast, slow = (
        make_quantizer(configure(Run(name, 8192, 0)).model.quantizer)
        for name in ("simvq-trained-basis", "simvq-trained-slow")
    )
    assert any(p is fast.basis for p in fast.fast_parameters())
    assert slow.basis.requires_grad
    assert not any(p is slow.basis for p in slow.fast_parameters())
    assert any(p is slow.proj.weight for p in slow.fast_parameters())


def test_plan_begins_with_what_the_page_claims():
    runs = plan(None, None, [0, 1, 2])
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    first = names[:21]
    for row in ("vq-cold-fast", "simvq-cold-fast", "simvq-trained-slow", "simvq-latents"):
        assert {f"{row}-8192-s{seed}" for seed in range(3)} <= set(first)
    assert names.index("factorised-8192-s0") < names.index("simvq-latents-65536-s0")
    assert find_row(runs[-1].row).length > 1
    assert [run.name for run in plan(["fsq"], [8192], [3])] == ["fsq-8192-s3"]


@pytest.mark.parametrize(
    "arguments, message",
    [((["none"], None, [0]), "no row 'none'"), ((["fsq"], [77], [0]), "codebook sizes")],
)
def test_a_plan_without_runs_is_an_error(arguments, message):
    with pytest.raises(ConfigError, match=message):
        plan(*arguments)

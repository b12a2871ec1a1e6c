"""One step: its gradients, its averages, and what it does with numbers that are not finite."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from tiny_runs import Noise, assert_same, make_trainer, tiny, weights

from simvq_audio.errors import ConfigError
from simvq_audio.model.storage import load_model
from simvq_audio.training.losses import discriminator_loss, generator_losses, limit_bandwidth
from simvq_audio.training.step import Plan
from simvq_audio.training.trainer import TrainingDiverged

EVERYTHING = Plan(quantize=True, discriminate=True, heard=True, hold=False)


def networks(tmp_path, **changes):
    config = tiny(optimizer__clip_norm=0, adversary__clip_norm=0, **changes)
    return make_trainer(tmp_path, config).networks


def gradients(module):
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def assert_close(ours, theirs):
    assert ours.keys() == theirs.keys()
    total = torch.stack([gradient.norm() for gradient in theirs.values()]).norm()
    for name, gradient in theirs.items():
        # Single precision; in some parameters the parts that originals and fakes play cancel out.
        allowed = 1e-4 * (gradient.norm() + 0.1 * total)
        assert (ours[name] - gradient).norm() < allowed, name


def test_one_pass_gives_the_gradients_of_two(tmp_path):
    step = networks(tmp_path)
    config = step.config
    model, judges = deepcopy(step.model), deepcopy(step.discriminators)
    batch = Noise().batch(0, 4)
    step(batch, 0, EVERYTHING, 1.0)

    # The textbook's way: the generator's loss through the discriminators, then theirs, each with a
    # pass of its own.
    original, bandwidths = batch
    result = model(original)
    original = limit_bandwidth(original, bandwidths, config.model.sample_rate)
    made = limit_bandwidth(result.waveform, bandwidths, config.model.sample_rate)
    judged = generator_losses(config.discriminators, judges(original), judges(made))
    spectral = step.spectral(made, original)
    losses = result.quantized.losses
    loss = config.loss.mel * spectral["mel"]
    loss = loss + config.loss.quantizer * (
        losses["codebook"] + config.loss.commitment * losses["commitment"]
    )
    loss = loss + config.loss.adversarial * judged["adversarial"]
    loss = loss + config.loss.feature_matching * judged["feature_matching"]
    loss.backward()
    assert_close(gradients(step.model), gradients(model))
    judges.zero_grad()
    theirs = discriminator_loss(config.discriminators, judges(original), judges(made.detach()))
    theirs.backward()
    assert_close(gradients(step.discriminators), gradients(judges))


def test_discriminators_judge_one_window_of_every_crop(tmp_path):
    step = networks(tmp_path, adversary__window_seconds=0.05, loss__mel=1e-9)
    batch = Noise().batch(0, 4)
    judged = []
    step.discriminators.register_forward_pre_hook(lambda module, inputs: judged.append(inputs[0]))
    places = set()
    for number in range(4):
        judged.clear()
        step(batch, number, EVERYTHING, 0.0)
        original, reconstruction = judged
        assert original.shape == reconstruction.shape == (4, 400)
        windows = batch[0].unfold(1, 400, 1).transpose(0, 1)
        (first,) = (i for i, w in enumerate(windows) if torch.allclose(w, original, atol=1e-6))
        places.add(first)
    assert len(places) > 1

    # What lies outside the window has no part in the generator's gradient from it.
    made = step.model(batch[0]).waveform.detach().requires_grad_()
    torch.manual_seed(0)
    _, gradient = step._discriminate(batch[0], made, True)
    assert (gradient != 0).any(dim=0).sum() <= 400
    assert gradient.norm() > 0


def test_gradients_are_shortened_to_the_norm(tmp_path):
    step = make_trainer(tmp_path, tiny(optimizer__clip_norm=0.01)).networks
    outcome = step(Noise().batch(0, 4), 0, EVERYTHING, 1.0)
    assert outcome.losses["gradient_norm"] > 1
    total = torch.stack([g.norm() for g in gradients(step.model).values()]).norm()
    assert total.item() == pytest.approx(0.01, rel=1e-3)


def test_the_codebook_that_is_searched_is_the_present_one(tmp_path):
    step = networks(tmp_path)
    for number in range(3):
        step(Noise().batch(number, 4), number, EVERYTHING, 1.0)
    quantizer = step.model.quantizer
    expected = quantizer.basis @ quantizer.proj.weight.T + quantizer.proj.bias
    assert torch.allclose(quantizer.codebook(), expected, atol=1e-6)


def test_averages_follow_the_weights(tmp_path):
    step = networks(tmp_path, optimizer__ema=0.75)
    before = deepcopy(dict(step.average.named_parameters()))
    step(Noise().batch(0, 4), 100, EVERYTHING, 1.0)
    for name, parameter in step.model.named_parameters():
        expected = 0.75 * before[name] + 0.25 * parameter
        assert torch.allclose(dict(step.average.named_parameters())[name], expected, atol=1e-7)


def test_w_learns_faster(tmp_path):
    step = networks(tmp_path, optimizer__quantizer_factor=10.0)
    step(Noise().batch(0, 4), 0, EVERYTHING, 0.5)
    groups = step.generator_optimizer.param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rates[id(step.model.quantizer.proj.weight)] == pytest.approx(5e-3)
    assert rates[id(step.model.encoder.out.weight)] == pytest.approx(5e-4)


def test_a_step_without_finite_gradients_changes_nothing(tmp_path):
    trainer = make_trainer(tmp_path)
    step, noise = trainer.networks, Noise(bad_steps=frozenset({1}))
    step(noise.batch(0, 4), 0, EVERYTHING, 1.0)
    before = weights(trainer)
    step(noise.batch(1, 4), 1, EVERYTHING, 1.0)
    after = weights(trainer)
    assert (step.skipped.total, step.skipped.in_a_row) == (1, 1)
    for name in [n for n in before if ".average." in n or "skipped" in n]:
        del before[name], after[name]  # averages go on towards the weights
    assert_same(before, after)
    step(noise.batch(2, 4), 2, EVERYTHING, 1.0)
    assert (step.skipped.total, step.skipped.in_a_row) == (1, 0)
    assert all(torch.isfinite(p).all() for p in step.model.parameters())


def test_a_run_that_stays_without_them_ends(tmp_path):
    bad = Noise(bad_steps=frozenset(range(2, 40)))
    trainer = make_trainer(tmp_path, source=bad)
    with pytest.raises(TrainingDiverged, match="no finite gradients in the last 8 steps"):
        trainer.run()
    assert trainer.step == 10  # 3 in a row at step 5, 8 at step 10; 4 are too many


def test_a_held_generator_does_not_move(tmp_path):
    config = tiny(
        adversary__start_step=0,
        adversary__warmup_steps=3,
        adversary__hold_generator=True,
        quantizer_start__unquantized_steps=0,
    )
    trainer = make_trainer(tmp_path, config)
    before = weights(trainer)
    trainer.run(max_steps=3)
    held = weights(trainer)
    moved = {n.split(".")[1] for n in before if not torch.equal(before[n], held[n])}
    assert moved == {"discriminators"}
    trainer.run(max_steps=1)
    assert not torch.equal(
        held["weights.model.decoder.head.out.weight"],
        trainer.networks.model.decoder.head.out.weight,
    )


def frozen_run(tmp_path, freeze, **changes):
    """A run of 9 steps, discriminators included, on a model that is there; its weights before."""
    first = make_trainer(tmp_path / "first")
    first.run(max_steps=9)
    trainer = make_trainer(
        tmp_path / "second", tiny(freeze=freeze, adversary__start_step=2, **changes)
    )
    trainer.start_from_model(tmp_path / "first" / "model.safetensors")
    before = deepcopy(trainer.networks.model.state_dict())
    trainer.run(max_steps=9)
    return trainer, before


@pytest.mark.parametrize(
    ("freeze", "precision"),
    [
        (["encoder", "quantizer"], "bf16"),
        (["encoder", "quantizer"], "fp32"),
        (["encoder"], "fp32"),
        (["quantizer"], "fp32"),
        (["decoder"], "fp32"),
    ],
)
def test_frozen_parts_stay_bit_for_bit(tmp_path, freeze, precision):
    trainer, before = frozen_run(tmp_path, freeze, precision=precision)
    _, header = load_model(tmp_path / "second" / "model.safetensors")
    _, first = load_model(tmp_path / "first" / "model.safetensors")
    for network in (trainer.networks.model, trainer.networks.average):
        for part in ("encoder", "quantizer", "decoder"):
            same = [
                torch.equal(value, before[name])
                for name, value in network.state_dict().items()
                if name.startswith(f"{part}.")
            ]
            if part in freeze:
                assert all(same), part
            else:
                assert not all(same), part
    assert (header.codes_id == first.codes_id) == ("quantizer" in freeze)
    for part in freeze:
        module = getattr(trainer.networks.model, part)
        assert not module.training
        assert all(p.grad is None and not p.requires_grad for p in module.parameters())
    assert trainer.networks.model.training
    trainer.networks.model.train()
    assert not any(getattr(trainer.networks.model, part).training for part in freeze)


def test_a_frozen_encoder_gives_the_codes_of_inference(tmp_path):
    trainer, _ = frozen_run(tmp_path, ["encoder", "quantizer"], precision="bf16")
    step, batch = trainer.networks, Noise().batch(5, 4)
    outcome = step(batch, 5, EVERYTHING, 1.0)
    assert torch.equal(outcome.indices, step.average.encode(batch[0]))


def test_the_decoder_may_be_another_than_the_models(tmp_path):
    first = make_trainer(tmp_path / "first")
    first.run(max_steps=9)
    model = tmp_path / "first" / "model.safetensors"
    config = tiny(freeze=["encoder", "quantizer"], model__decoder__blocks=2)
    second = make_trainer(tmp_path / "second", config)
    assert second.start_from_model(model) == ["decoder"]
    ours, theirs = (trainer.networks.average.decoder.state_dict() for trainer in (second, first))
    # What fits is taken: the first of two blocks, and the layers around them.
    assert theirs.keys() < ours.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    second.run(max_steps=2)
    assert load_model(tmp_path / "second" / "model.safetensors")[1].codes_id == (
        load_model(model)[1].codes_id
    )
    with pytest.raises(ConfigError, match=r"model\.decoder\.blocks = 1, this run has 2"):
        other = tiny(freeze=["decoder"], model__decoder__blocks=2)
        make_trainer(tmp_path / "third", other).start_from_model(model)
    with pytest.raises(ConfigError, match=r"model\.encoder\.blocks = 1, this run has 2"):
        other = tiny(model__encoder__blocks=2)
        make_trainer(tmp_path / "third", other).start_from_model(model)


def test_averaged_tables_are_trained_by_the_step(tmp_path):
    trainer = make_trainer(
        tmp_path, tiny(model__quantizer__kind="ema", quantizer_start__unquantized_steps=2)
    )
    trainer.run(max_steps=2)
    trainer.start_quantizer()
    before = trainer.networks.model.quantizer.entries.clone()
    trainer.run(max_steps=2)
    assert not torch.equal(trainer.networks.model.quantizer.entries, before)
    optimized = {
        id(p) for g in trainer.networks.generator_optimizer.param_groups for p in g["params"]
    }
    assert id(trainer.networks.model.quantizer.entries) not in optimized

"""One step: its gradients, its averages, and what it does with numbers that are not finite."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from tiny_runs import Noise, assert_same, make_trainer, tiny, weights

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
    loss = config.spectral.mel.weight * spectral["mel"]
    loss = loss + config.loss.quantizer * result.quantized.loss
    loss = loss + config.loss.adversarial * judged["adversarial"]
    loss = loss + config.loss.feature_matching * judged["feature_matching"]
    loss.backward()
    assert_close(gradients(step.model), gradients(model))
    judges.zero_grad()
    theirs = discriminator_loss(config.discriminators, judges(original), judges(made.detach()))
    theirs.backward()
    assert_close(gradients(step.discriminators), gradients(judges))


def test_discriminators_judge_one_window_of_every_crop(tmp_path):
    step = networks(tmp_path, adversary__window_seconds=0.05, spectral__mel__weight=1e-9)
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
    term = step._discriminate(batch[0], made, True, torch.ones(()), {})
    (gradient,) = torch.autograd.grad(term, made)
    assert (gradient != 0).any(dim=0).sum() <= 400
    assert gradient.norm() > 0


def test_parts_of_a_batch_give_the_gradient_of_the_whole(tmp_path):
    whole, parts = networks(tmp_path), networks(tmp_path, optimizer__accumulate=2)
    for step in (whole, parts):
        outcome = step(Noise().batch(0, 4), 0, EVERYTHING, 1.0)
        assert outcome.indices.shape == (4, 20)
    assert_close(gradients(parts.model), gradients(whole.model))
    assert_close(gradients(parts.discriminators), gradients(whole.discriminators))


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
    step = networks(tmp_path, quantizer_start__learning_rate_factor=10.0)
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


def test_float16_scale_falls_rises_and_leaves_gradients_alone(tmp_path):
    from simvq_audio.training.gradients import LossScale, unscale_and_clip

    scale = LossScale(True, torch.device("cpu"))
    first = scale.value.item()
    scale.update(torch.tensor(1.0))
    assert scale.value == first / 2
    for _ in range(2000):
        scale.update(torch.tensor(0.0))
    assert scale.value == first
    parameter = torch.nn.Parameter(torch.zeros(3))
    (torch.tensor([1.0, 2.0, 2.0]) * parameter * scale.value).sum().backward()
    norm, bad = unscale_and_clip([parameter], scale.value, 0)
    assert (norm.item(), bad.item()) == (3.0, 0.0)
    assert parameter.grad.tolist() == [1.0, 2.0, 2.0]


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

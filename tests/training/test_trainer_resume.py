"""Stopped at any moment and resumed, a run ends as if it had not been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY, assert_same, make_trainer, packed, tiny, weights

from simvq_audio.errors import ConfigError, ModelError
from simvq_audio.model.storage import load_model, read_header
from simvq_audio.training.checkpoint import checkpoint_path, load_checkpoint
from simvq_audio.training.fabric import make_fabric
from simvq_audio.training.source import open_source

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_thread():
    """As the child processes have: sums in another order have other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(tmp_path, *options, command=(sys.executable,)):
    """Run recipes/train.py on the packed recordings, in another process."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    recipe = REPOSITORY / "recipes" / "train.py"
    where = ["--data", tmp_path / "packed", "--out", tmp_path / "run"]
    return subprocess.Popen(
        [*command, recipe, tmp_path / "config.toml", *where, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_step(process, run, step):
    """Return once a checkpoint of ``step`` or a later one is there."""
    while not any(int(p.stem[5:]) >= step for p in (run / "checkpoints").glob("step_*.pt")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


@pytest.mark.parametrize(
    "quantizer", [{"kind": "ema"}, {"kind": "vq"}, {"kind": "fsq"}, "residual"]
)
def test_every_kind_of_quantiser_goes_on(tmp_path, quantizer):
    table = {"kind": "ema", "codebook_size": 16, "latent_dim": 8}
    if quantizer == "residual":
        quantizer = {"kind": "residual", "stages": [table, table]}
    elif quantizer["kind"] == "fsq":
        quantizer = {"kind": "fsq", "levels": [5, 3], "latent_dim": 8}
    else:
        quantizer = {**table, **quantizer}
    config = tiny(model__quantizer=quantizer, quantizer_start__entries_from_latents=True, steps=20)
    whole = make_trainer(tmp_path / "whole", config)
    whole.run()
    make_trainer(tmp_path / "parts", config).run(max_steps=11)
    parts = make_trainer(tmp_path / "parts", config)
    parts.resume()
    parts.run()
    assert_same(weights(parts), weights(whole))


def test_a_run_with_frozen_parts_goes_on(tmp_path):
    make_trainer(tmp_path / "first").run(max_steps=9)
    config = tiny(freeze=["encoder", "quantizer"], steps=20, precision="bf16")
    for name, stops in (("whole", [20]), ("parts", [11, 20])):
        for stop in stops:
            trainer = make_trainer(tmp_path / name, config)
            if stop == stops[0]:
                trainer.start_from_model(tmp_path / "first" / "model.safetensors")
            else:
                trainer.resume()
            trainer.run(max_steps=stop - trainer.step)
        if name == "whole":
            whole = trainer
    assert_same(weights(trainer), weights(whole))
    with pytest.raises(ConfigError, match="freeze"):
        make_trainer(tmp_path / "parts", tiny(steps=20, precision="bf16")).resume()


@pytest.mark.parametrize("stop", [7, 20])  # before the discriminators are heard, and after
def test_balanced_losses_go_on(tmp_path, stop):
    config = tiny(loss={"balance": True, "mel": 1.0, "bins": 0.5}, steps=30)
    whole = make_trainer(tmp_path / "whole", config)
    whole.run()
    make_trainer(tmp_path / "parts", config).run(max_steps=stop)
    parts = make_trainer(tmp_path / "parts", config)
    parts.resume()
    parts.run()
    state = weights(parts)
    assert_same(state, weights(whole))
    balanced = ("mel", "bins", "adversarial", "feature_matching")
    assert all((state[f"moments.balance.{name}"] > 0).all() for name in balanced)


@pytest.mark.parametrize(
    ("stop", "from_latents", "rounds"), [(6, False, 0), (11, True, 0), (23, True, 2)]
)
def test_stopped_by_steps(tmp_path, stop, from_latents, rounds):
    config = tiny(
        quantizer_start__entries_from_latents=from_latents,
        quantizer_start__kmeans_rounds=rounds,
    )
    whole = make_trainer(tmp_path / "whole", config)
    first = whole.networks.model.quantizer.basis.clone()
    whole.run()
    drawn = whole.networks.average.quantizer.basis
    assert torch.equal(drawn, whole.networks.model.quantizer.basis)
    assert torch.equal(drawn, first) != from_latents
    make_trainer(tmp_path / "parts", config).run(max_steps=stop)
    parts = make_trainer(tmp_path / "parts", config)
    assert parts.resume() == checkpoint_path(tmp_path / "parts", stop)
    assert parts.step == stop
    parts.run()
    assert parts.step == 40
    assert_same(weights(parts), weights(whole))


def test_stopped_by_signals(tmp_path):
    """SIGTERM, then kill -9, then to the end, through the recipe."""
    steps = 160
    (tmp_path / "config.toml").write_text(TINY.replace("steps = 40", f"steps = {steps}", 1))
    packed(tmp_path / "packed")
    run = tmp_path / "run"

    process = start(tmp_path)
    wait_for_step(process, run, 10)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    first = max(int(p.stem[5:]) for p in (run / "checkpoints").glob("step_*.pt"))
    assert f"step {first} of {steps}" in output

    process = start(tmp_path, "--resume")
    wait_for_step(process, run, first + 20)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    config = tiny(steps=steps)
    trainers = []
    for out in (run, tmp_path / "whole"):
        fabric = make_fabric("cpu", "fp32")
        source = open_source(tmp_path / "packed", config, fabric.device)
        trainers.append(make_trainer(out, config, source))
    trainers[0].resume()
    assert first < trainers[0].step < steps
    for trainer in trainers:
        trainer.run()
    assert_same(weights(trainers[0]), weights(trainers[1]))
    logged = [json.loads(line)["step"] for line in (run / "metrics.jsonl").open()]
    assert logged == sorted(set(logged))


def test_two_processes_are_one_with_the_whole_batch(tmp_path):
    text = TINY.replace("unquantized_steps = 6", "unquantized_steps = 0")
    text = text.replace("start_step = 8\nwarmup_steps = 4", "start_step = 0\nwarmup_steps = 0")
    (tmp_path / "config.toml").write_text(text)
    packed(tmp_path / "packed")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = start(tmp_path, "--max-steps=1", "--device=cpu", command=torchrun)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    two = load_checkpoint(checkpoint_path(tmp_path / "run", 1))

    config = tiny(
        quantizer_start__unquantized_steps=0, adversary__start_step=0, adversary__warmup_steps=0
    )
    fabric = make_fabric("cpu", "fp32")
    one = make_trainer(
        tmp_path / "one", config, open_source(tmp_path / "packed", config, fabric.device)
    )
    one.run(max_steps=1)
    # A discriminator that has learnt nothing says the same of originals and fakes: what they teach
    # it nearly cancels out, and takes some digits with it.
    for network, tolerance in (("generator", 1e-6), ("discriminator", 1e-5)):
        # After one step, Adam's first moment is the (clipped) gradient times 1 - beta1.
        theirs = two["moments"][f"{network}_optimizer"]
        ours = getattr(one.networks, f"{network}_optimizer").state_dict()["state"]
        assert ours.keys() == theirs.keys()
        a, b = (
            torch.cat([state[key]["exp_avg"].flatten() for key in sorted(state)])
            for state in (ours, theirs)
        )
        assert a.norm() > 0
        assert (a - b).norm() / a.norm() < tolerance
    for name, value in one.networks.model.state_dict().items():
        assert (two["model"][name] - value).norm() <= 1e-5 * value.norm() + 1e-6, name


def test_the_carrying_form_goes_on_without_moments(tmp_path):
    trainer = make_trainer(tmp_path / "run")
    trainer.run(max_steps=15)
    carry = tmp_path / "other" / "carry.pt"
    carry.parent.mkdir()
    (tmp_path / "run" / "carry.pt").rename(carry)
    whole = checkpoint_path(tmp_path / "run", 15)
    assert carry.stat().st_size < 0.4 * whole.stat().st_size
    other = make_trainer(carry.parent)
    assert other.resume() == carry
    assert other.step == 15
    for name, value in trainer.networks.model.state_dict().items():
        assert torch.allclose(other.networks.model.state_dict()[name], value, rtol=1e-3, atol=1e-6)
    assert other._learning_rate_factor() == 0.25  # the first of 4 steps of warm-up
    other.run(max_steps=3)
    assert not other.networks.skipped.total
    # A full checkpoint, once there, is preferred, and goes on in the middle of the warm-up.
    again = make_trainer(carry.parent)
    assert again.resume() == checkpoint_path(carry.parent, 18)
    assert again._learning_rate_factor() == 1.0
    assert_same(weights(again), weights(other))


def test_a_checkpoint_of_version_0_1_0_goes_on(tmp_path):
    """Its model's configuration still held the weight of the commitment term."""
    trainer = make_trainer(tmp_path)
    trainer.run(max_steps=2)
    path = checkpoint_path(tmp_path, 2)
    state = load_checkpoint(path)
    state["config"]["model"]["quantizer"]["commitment"] = 0.25
    torch.save(state, path)
    other = make_trainer(tmp_path)
    assert other.resume() == path
    assert_same(weights(other), weights(trainer))


def test_the_model_file_is_valid_from_the_first_step_on(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.run(max_steps=0)
    assert read_header(tmp_path / "model.safetensors").config == trainer.config.model
    trainer.run(max_steps=7)
    model, header = load_model(tmp_path / "model.safetensors")
    assert header.metadata["training"] == "7 steps"
    average = trainer.networks.average.state_dict()
    assert all(torch.equal(value, average[name]) for name, value in model.state_dict().items())


def test_a_run_starts_from_a_model(tmp_path):
    first = make_trainer(tmp_path / "first")
    first.run(max_steps=9)
    model = tmp_path / "first" / "model.safetensors"
    second = make_trainer(tmp_path / "second", tiny(model__name="tuned", seed=9))
    second.start_from_model(model)
    expected = first.networks.average.state_dict()
    for network in (second.networks.model, second.networks.average):
        assert all(torch.equal(v, expected[n]) for n, v in network.state_dict().items())
    second.run(max_steps=2)
    quantizer = second.networks.average.quantizer.proj.weight
    # No unquantised steps and no new W: it has moved by training alone.
    assert 0 < (quantizer - expected["quantizer.proj.weight"]).norm() < 0.5 * quantizer.norm()


def test_only_a_run_of_the_same_networks_is_resumed(tmp_path):
    with pytest.raises(ModelError, match="holds no checkpoint to resume from"):
        make_trainer(tmp_path).resume()
    make_trainer(tmp_path).run(max_steps=1)
    with pytest.raises(ConfigError, match=r"model\.quantizer\.codebook_size = 32"):
        make_trainer(tmp_path, tiny(model__quantizer__codebook_size=64)).resume()
    longer = make_trainer(tmp_path, tiny(steps=41, optimizer__learning_rate=1e-2))
    longer.resume()
    longer.run(max_steps=1)
    assert longer.networks.generator_optimizer.param_groups[0]["base_lr"] == 1e-2

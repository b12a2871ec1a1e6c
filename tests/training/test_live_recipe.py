"""A model that looks less far ahead, taught by one that looks further."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY, make_trainer, packed, tiny

from simvq_audio.cli import main
from simvq_audio.codec import Codec
from simvq_audio.errors import ConfigError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.storage import load_model, read_header, save_model
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.recipes import find_recipe


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A model of the tiny kind with two blocks in each part, which uses what lies ahead."""
    config = tiny(model__encoder__blocks=2, model__decoder__blocks=2)
    model = Autoencoder(config.model).requires_grad_(False)
    for block in model.encoder.stack.convnext:
        for layer in (block.dwconv, block.pwconv1, block.pwconv2):
            layer.weight.mul_(20)
    model.encoder.out.weight.mul_(20)
    path = tmp_path / "teacher.safetensors"
    save_model(path, config.model, model.state_dict())
    return path


def train(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["train", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_a_live_model_begins_from_another_and_keeps_its_codes(tmp_path, teacher, capsys):
    recipe = tmp_path / "live.toml"
    live = f'freeze = ["quantizer"]\nteacher = "{teacher}"\n' + TINY.replace(
        'name = "tiny"', 'name = "live"'
    )
    for part in ("encoder", "decoder"):
        header = f"[model.{part}]\n"
        live = live.replace(header, f"{header}look_ahead_frames = 1\n").replace("blocks = 1\n", "")
    recipe.write_text(live + "[loss]\ndistil = 10.0\nquantizer = 1.0\n")
    run, data = tmp_path / "run", packed(tmp_path / "packed")
    arguments = (recipe, "--data", data, "--out", run, "--max-steps")
    assert train(*arguments, 1, "--init", teacher) == 0
    # Nothing starts from scratch, although both parts are configured in another way.
    assert "scratch" not in capsys.readouterr().out
    ours, theirs = read_header(run / "model.safetensors"), read_header(teacher)
    assert ours.codes_id == theirs.codes_id
    assert ours.config.encoder == dataclasses.replace(theirs.config.encoder, look_ahead_frames=1)
    assert train(*arguments, 5, "--resume") == 0
    after, _ = load_model(run / "model.safetensors")
    before, _ = load_model(teacher)
    assert torch.equal(after.quantizer.codebook(), before.quantizer.codebook())
    assert not torch.equal(after.encoder.out.weight, before.encoder.out.weight)
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("distil" in json.dumps(line) for line in logged)


def test_the_encoder_comes_closer_to_its_teacher(tmp_path, teacher):
    live = {"model__encoder__blocks": 2, "model__encoder__look_ahead_frames": 0}
    config = tiny(
        **live,
        model__decoder__blocks=2,
        freeze=["quantizer"],
        teacher=str(teacher),
        loss={"distil": 1000.0},
        adversary__start_step=1000,
        optimizer__warmup_steps=0,
    )
    trainer = make_trainer(tmp_path / "run", config)
    trainer.start_from_model(teacher)
    model, _ = load_model(teacher)
    waveform, _ = trainer.source.batch(0, 4)

    def distance() -> float:
        with torch.no_grad():
            ours = trainer.networks.model.encoder(waveform)
            return float((ours - model.encoder(waveform)).square().mean())

    before = distance()
    trainer.run(max_steps=30)
    assert distance() < 0.8 * before


def test_teachers_that_do_not_fit_are_refused(tmp_path, teacher):
    both = {"freeze": ["quantizer"], "teacher": str(teacher), "loss": {"distil": 1.0}}
    with pytest.raises(ConfigError, match="teacher's latent is 8 wide, the model's 4"):
        make_trainer(tmp_path / "a", tiny(**both, model__quantizer__latent_dim=4))
    hops = {"model__encoder__hop_length": 160, "model__decoder__hop_length": 160}
    with pytest.raises(ConfigError, match="teacher's hop_length is 80, the model's is 160"):
        make_trainer(tmp_path / "b", tiny(**both, **hops))
    with pytest.raises(ConfigError, match="need each other"):
        tiny(teacher="compact-1")


def test_the_recipe_that_ships_looks_80_ms_ahead(tmp_path):
    config = TrainingConfig.load(find_recipe("compact/live"))
    assert config.teacher == "compact-1" and config.freeze == ("quantizer",)
    path = tmp_path / "live.safetensors"
    save_model(path, config.model, Autoencoder(config.model).state_dict())
    codec = Codec.load(path, device="cpu")
    frame = 1000 / codec.frame_rate
    ahead = codec.encoder(24_000).latency_ms - frame + codec.decoder().latency_ms
    assert ahead == pytest.approx(80)

"""The recipes: every configuration loads, and a user's mistake is one clear line."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_runs import TINY, make_trainer, packed, tiny

from simvq_audio.cli import main
from simvq_audio.embedded import embedded_model
from simvq_audio.errors import ConfigError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.published_import import published
from simvq_audio.model.storage import load_model, read_header
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.losses import MelConfig
from simvq_audio.training.recipes import find_recipe, shipped_recipes
from simvq_audio.training.source import open_source
from simvq_audio.training.watch import Watch

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = sorted(str(path.relative_to(RECIPES)) for path in RECIPES.rglob("*.toml"))


def load(name: str) -> TrainingConfig:
    return TrainingConfig.load(RECIPES / name)


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_script(capsys):
    """Run ``simvq-audio train``, ``export`` or a script; return exit code and what it printed."""

    def run(name, *arguments):
        arguments = [str(argument) for argument in arguments]
        if name in ("train", "export"):
            with pytest.raises(SystemExit) as ended:
                main([name, *arguments])
            code = ended.value.code or 0
        else:
            code = script(name).main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_recipes_that_ship_are_found_by_name(tmp_path, monkeypatch):
    assert find_recipe("compact/cpu") == RECIPES / "compact" / "cpu.toml"
    assert shipped_recipes() == sorted(name.removesuffix(".toml") for name in FILES)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("")
    assert find_recipe("mine.toml") == Path("mine.toml")
    with pytest.raises(ConfigError, match=r"there is no recipe compact/gpus; .*compact/gpu, "):
        find_recipe("compact/gpus")


@pytest.mark.parametrize("name", FILES)
def test_configurations_load_and_come_back(name):
    config = load(name)
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    # Crops are long enough for every window that judges them.
    assert config.crop_samples > 2048
    # Batches divide among 8 devices, but for runs that are made for one.
    one_device = ("quantizers/", "compact/decoder.toml", "compact/live.toml")
    assert config.data.batch_size % 8 == 0 or name.startswith(one_device)


@pytest.mark.parametrize(
    ("name", "size"), [("1k", 1024), ("4k", 4096), ("8k", 8192), ("65k", 65536), ("262k", 262144)]
)
def test_published_rows(name, size):
    config = load(f"libritts/simvq_{name}.toml")
    expected = published(size).to_dict()
    assert {**config.model.to_dict(), "name": "published"} == expected
    assert config.mel == MelConfig(scales=((1024, 256, 100),), filters="htk", floor=1e-7)
    assert config.loss.spectral == {"mel": 45.0, "bins": 0.0, "pesq": 0.0, "stoi": 0.0}
    assert (config.data.batch_size, config.data.crop_seconds, config.steps) == (128, 1.0, 138_600)
    assert (config.loss.quantizer, config.loss.commitment) == (1000.0, 0.25)
    assert (config.optimizer.betas, config.optimizer.ema) == ((0.5, 0.9), 0.999)
    assert config.optimizer.learning_rate == config.adversary.learning_rate == 1e-4
    kinds = [family.kind for family in config.discriminators.families]
    assert kinds == ["period", "resolution", "period", "band"]


def test_the_small_recipe_trains_the_embedded_models_kind():
    embedded = read_header(embedded_model().path).config
    assert {**load("compact/cpu.toml").model.to_dict(), "name": ""} == {
        **embedded.to_dict(),
        "name": "",
    }


def test_the_gpu_recipe_keeps_the_embedded_models_limits():
    config, embedded = load("compact/gpu.toml").model, read_header(embedded_model().path).config
    assert (config.frame_rate, config.bitrate) == (embedded.frame_rate, embedded.bitrate)
    with torch.device("meta"):
        model = Autoencoder(config)
    assert sum(tensor.numel() for tensor in model.state_dict().values()) <= 15_000_000


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("libritts/")])
def test_a_step_moves_no_codebook_further_than_the_embedded_models(name):
    """W's learning rate falls with the square root of the width: one step of Adam moves W(C) by up
    to its learning rate times ||c||_1, which is about (2 d / pi)^0.5."""

    def move(config: TrainingConfig) -> float:
        optimizer = config.optimizer
        rate = optimizer.learning_rate * optimizer.quantizer_factor
        return rate * config.model.quantizer.latent_dim**0.5

    assert move(load(name)) <= move(load("compact/cpu.toml"))


def test_recipes_inherit(tmp_path):
    (tmp_path / "base.toml").write_text(
        "steps = 7\n[data]\nbatch_size = 2\nworkers = 3\n[mel]\nscales = [[64, 16, 6]]\n"
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "middle.toml").write_text('base = "../base.toml"\n[data]\nworkers = 0\n')
    (tmp_path / "own.toml").write_text(
        'base = "more/middle.toml"\nseed = 5\n[mel]\nscales = [[128, 32, 6]]\n'
    )
    config = TrainingConfig.load(tmp_path / "own.toml")
    assert (config.steps, config.seed, config.data.batch_size, config.data.workers) == (7, 5, 2, 0)
    assert config.mel.scales == ((128, 32, 6),)
    (tmp_path / "shipped.toml").write_text('base = "compact/decoder"\nseed = 5\n')
    shipped = TrainingConfig.load(find_recipe("compact/decoder"))
    assert TrainingConfig.load(tmp_path / "shipped.toml") == dataclasses.replace(shipped, seed=5)
    for text, words in (
        ('base = "own.toml"', "is its own base"),
        ('base = "none.toml"', "cannot read"),
        ('base = "none"', "there is no recipe none"),
        ("base = 3", "base must be the name of a file, not 3"),
        ('base = "base.toml"\n[data]\nworkers = -1', "data.workers must be greater"),
    ):
        (tmp_path / "own.toml").write_text(text)
        with pytest.raises(ConfigError, match=words):
            TrainingConfig.load(tmp_path / "own.toml")


def test_fine_tuning_takes_the_model_from_init(tmp_path, run_script):
    """And going on takes it from the run."""
    model = make_trainer(tmp_path / "first", tiny(model__decoder__dim=24))
    model.run(max_steps=1)
    first = tmp_path / "first" / "model.safetensors"
    recipe = tmp_path / "tune.toml"
    recipe.write_text(re.sub(r"(?s)\[model\].*?(?=\[data\])", '[model]\nname = "tuned"\n', TINY))
    run, data = tmp_path / "run", packed(tmp_path / "packed")
    arguments = ("train", recipe, "--data", data, "--out", run)
    code, out, err = run_script(*arguments, "--init", first, "--max-steps", 1)
    assert code == 0, err
    config = read_header(run / "model.safetensors").config
    assert config == dataclasses.replace(read_header(first).config, name="tuned")
    code, out, err = run_script(*arguments, "--resume", "--max-steps", 1)
    assert code == 0 and "step 2 of 40" in out, err

    # What the recipe has of its own starts from scratch.
    recipe.write_text(recipe.read_text() + "[model.decoder]\nblocks = 2\n")
    arguments = ("train", recipe, "--data", data, "--out", tmp_path / "other")
    code, out, err = run_script(*arguments, "--init", first, "--max-steps", 1)
    assert code == 0 and "decoder start from scratch" in out, err
    config = read_header(tmp_path / "other" / "model.safetensors").config
    assert (config.decoder.blocks, config.decoder.dim) == (2, 24)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sead = 1", "unknown key {}.sead"),
        ('precision = "fp16"', "{}.precision must be 'fp32' or 'bf16', not 'fp16'"),
        ("steps = 0", "{}.steps must be greater than or equal to 1, not 0"),
        ("[optimizer]\nlearning = 1", "unknown key {}.optimizer.learning"),
        ("[optimizer]\nbetas = [0.9]", "{}.optimizer.betas.1 is missing"),
        ("[optimizer]\nema = 1.5", "{}.optimizer.ema must be less than or equal to 1, not 1.5"),
        ('[optimizer]\nschedule = "step"', "schedule must be 'constant' or 'cosine', not 'step'"),
        ("[data]\nbatch_size = 2.5", "{}.data.batch_size must be a valid integer, not 2.5"),
        ("[adversary]\nstart_step = -1", "{}.adversary.start_step must be greater than or equal"),
        ('[validation]\nbest_by = "ear"', "{}.validation.best_by must be 'mel', 'pesq_wb',"),
        ("[loss]\ncommitment = -1", "{}.loss.commitment must be greater than or equal to 0"),
        ("[optimizer]\nquantizer_factor = 0", "{}.optimizer.quantizer_factor must be greater"),
        ("[adversary]\nwindow_seconds = 2.0", "must not be longer than data.crop_seconds (1.5)"),
        ('freeze = ["encodr"]', "{}.freeze.0 must be 'encoder', 'quantizer' or 'decoder'"),
        ('freeze = ["encoder", "quantizer", "decoder"]', "freeze leaves nothing"),
        ("[model.encoder]\nkind = 3", "{}.model.encoder.kind must be one of"),
        ('model = "compact"', "{}.model must be a table of settings, not 'compact'"),
        ("data = 3", "{}.data must be a table"),
        ('discriminators = "none"', "{}.discriminators: must be 'compact' or 'published'"),
        ("steps = ", "is not valid TOML"),
    ],
)
def test_a_wrong_configuration_is_one_line(tmp_path, run_script, line, words):
    path = tmp_path / "config.toml"
    path.write_text(line)
    code, out, err = run_script("train", path, "--data", tmp_path, "--out", tmp_path / "run")
    assert code == 1
    assert words.format(path) in err and str(path) in err
    assert err.count("\n") == 1 and not out
    assert not (tmp_path / "run").exists()


def test_other_mistakes_are_one_line_too(tmp_path, run_script, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = tmp_path / "config.toml"
    config.write_text(TINY)
    data = packed(tmp_path / "packed")
    run = tmp_path / "run"

    def fails(words, *options, data=data, out=run):
        code, _, err = run_script("train", config, "--data", data, "--out", out, *options)
        assert code == 1
        assert words in err and err.startswith("simvq-audio: error: ") and err.count("\n") == 1

    fails("cannot read the manifest", data=tmp_path / "missing.jsonl")
    fails("holds no packed speech", data=tmp_path / "missing")
    fails("there is no cuda: this machine has 0 CUDA devices", "--device=cuda")
    fails("unknown device 'tpu'", "--device=tpu")
    fails("holds no checkpoint to resume from", "--resume")
    fails("give one of them", "--resume", "--init", "compact")
    fails("there is no model file", "--init", tmp_path / "none.safetensors")
    fails("holds no recording", "--dev", tmp_path)
    fails("Not a directory", out=config / "run")
    assert not list(run.glob("*.safetensors"))

    full = lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        fails("No space left on device")

    code, out, _ = run_script("train", config, "--data", data, "--out", run, "--max-steps", 5)
    assert code == 0
    assert "step 5/40" in out and f"step 5 of 40; model: {run / 'model.safetensors'}" in out
    fails("holds a run already")
    code, out, _ = run_script(
        "train", config, "--data", data, "--out", run, "--resume", "--max-minutes", 0
    )
    assert code == 0
    assert "step 5 of 40" in out


def test_only_packed_speech_is_held_on_the_device(tmp_path):
    config = tiny(data__hold_on_device=True)
    held = open_source(packed(tmp_path / "packed"), config, torch.device("cpu"))
    read = open_source(tmp_path / "packed", tiny(), torch.device("cpu"))
    for ours, theirs in zip(held.batch(3, 4), read.batch(3, 4)):
        assert torch.equal(ours, theirs)
    with pytest.raises(ConfigError, match="hold_on_device needs packed speech"):
        open_source(tmp_path / "dev.jsonl", config, torch.device("cpu"))


def test_batches_must_divide_among_processes(tmp_path):
    class Three:
        world_size = 3

    from simvq_audio.training.trainer import Trainer

    with pytest.raises(ConfigError, match="multiple of the number of processes, 3"):
        Trainer(tiny(), Three(), None, tmp_path)


def test_a_run_in_bfloat16_learns(tmp_path):
    config = tiny(precision="bf16", adversary__start_step=1000, log_every=10)
    make_trainer(tmp_path, config, watch=Watch(tmp_path, 40, console=Console(quiet=True))).run()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert rows[-1]["mel"] < 0.7 * rows[0]["mel"]
    assert rows[-1]["skipped"] == 0
    assert "quantizer" in rows[0] and "discriminator" not in rows[-1]


def test_the_progress_line_of_a_terminal(tmp_path, capsys):
    console = Console(force_terminal=True, width=200)
    watch = Watch(tmp_path, 40, console=console)
    make_trainer(tmp_path, watch=watch).run(max_steps=5)
    assert "step 5/40  mel " in capsys.readouterr().out


def test_curves_are_drawn_from_the_metrics(tmp_path, run_script):
    pytest.importorskip("matplotlib")
    watch = Watch(tmp_path, 40, console=Console(quiet=True))
    make_trainer(tmp_path, watch=watch).run(max_steps=20)
    with open(tmp_path / "metrics.jsonl", "a") as log:
        log.write('{"step": 21, "mel": 0.')  # as a run that is killed leaves it
    code, out, _ = run_script("plot_run", tmp_path)
    assert code == 0 and "curves.png" in out
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = run_script("plot_run", tmp_path / "missing")
    assert code == 1 and "cannot read" in err and err.count("\n") == 1


def test_a_runs_model_is_exported(tmp_path, run_script):
    make_trainer(tmp_path / "run").run(max_steps=1)
    given, out = tmp_path / "run" / "model.safetensors", tmp_path / "mine.safetensors"
    arguments = ("export", given, out, "--description", "Mine.", "--licence", "MIT")
    code, printed, err = run_script(*arguments)
    assert code == 0, err
    ours, header = load_model(out)
    assert header.model_id in printed and out.stat().st_size < 0.6 * given.stat().st_size
    assert (header.metadata["description"], header.metadata["licence"]) == ("Mine.", "MIT")
    assert header.metadata["training"] == "1 steps"
    for name, value in load_model(given)[0].state_dict().items():
        assert torch.equal(ours.state_dict()[name], value.half().float())
    code, _, err = run_script(*arguments)
    assert code == 1 and "--force" in err and err.count("\n") == 1

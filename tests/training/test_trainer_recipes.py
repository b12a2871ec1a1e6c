"""The recipes: every configuration loads, and a user's mistake is one clear line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_runs import TINY, make_trainer, packed, tiny

from simvq_audio.embedded import embedded_model
from simvq_audio.errors import ConfigError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.config import compact, published
from simvq_audio.model.storage import load_model, read_header, save_model
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.devices import make_fabric
from simvq_audio.training.losses.config import published as published_losses
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
    """Run a recipe as its command would; return the exit code and what it printed."""

    def run(name, *arguments):
        code = script(name).main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.mark.parametrize("name", FILES)
def test_configurations_load_and_come_back(name):
    config = load(name)
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    # Crops are long enough for every window that judges them, and batches divide among 8 devices.
    assert config.crop_samples > 2048
    assert config.data.batch_size % 8 == 0


@pytest.mark.parametrize(
    ("name", "size"), [("1k", 1024), ("4k", 4096), ("8k", 8192), ("65k", 65536), ("262k", 262144)]
)
def test_published_rows(name, size):
    config = load(f"libritts/simvq_{name}.toml")
    expected = published(size).to_dict()
    assert {**config.model.to_dict(), "name": "published"} == expected
    assert config.spectral == published_losses()
    assert (config.data.batch_size, config.data.crop_seconds, config.steps) == (128, 1.0, 138_600)
    assert (config.loss.quantizer, config.loss.commitment) == (1000.0, 0.25)
    assert (config.optimizer.betas, config.optimizer.ema) == ((0.5, 0.9), 0.999)
    assert config.optimizer.learning_rate == config.adversary.learning_rate == 1e-4
    kinds = [family.kind for family in config.discriminators.families]
    assert kinds == ["period", "resolution", "period", "band"]


def test_compact_recipes_build_the_embedded_model():
    assert load("compact/cpu.toml").model == compact()
    tuned = load("finetune/compact.toml")
    embedded = read_header(embedded_model().path).config
    assert {**tuned.model.to_dict(), "name": ""} == {**embedded.to_dict(), "name": ""}
    assert tuned.adversary.hold_generator


def test_the_gpu_recipe_keeps_the_embedded_models_limits():
    config = load("compact/gpu.toml").model
    assert (config.frame_rate, config.bitrate) == (compact().frame_rate, compact().bitrate)
    with torch.device("meta"):
        model = Autoencoder(config)
    assert sum(tensor.numel() for tensor in model.state_dict().values()) <= 15_000_000


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sead = 1", "unknown key 'sead'"),
        ('precision = "int8"', "precision must be one of fp32, bf16, fp16"),
        ("steps = 0", "steps must be a whole number of at least 1"),
        ("[optimizer]\nlearning = 1", "unknown key 'learning' in optimizer"),
        ("[optimizer]\nbetas = [0.9]", "betas must be two numbers"),
        ("[optimizer]\nema = 1.5", "ema must lie from 0 to 1"),
        ('[optimizer]\nschedule = "step"', "schedule must be one of constant, cosine, linear"),
        ("[optimizer]\naccumulate = 3", "data.batch_size (8) must be a multiple"),
        ("[data]\nbatch_size = 2.5", "data.batch_size must be of type int"),
        ("[adversary]\nstart_step = -1", "start_step must be a whole number of at least 0"),
        ('[validation]\nbest_by = "ear"', "best_by must be one of mel, pesq_wb, stoi"),
        ("[loss]\ncommitment = -1", "commitment must be a number of at least zero"),
        ("[quantizer_start]\nlearning_rate_factor = 0", "learning_rate_factor must be a number"),
        ("[adversary]\nwindow_seconds = 2.0", "must not be longer than data.crop_seconds (1.5)"),
        ("[quantizer_start]\nkmeans_rounds = 3", "kmeans_rounds needs basis_from_latents"),
        ("[spectral.mell]", "unknown key 'mell'"),
        ("[loss]\nquantizer = -1", "LossConfig.quantizer must be a number"),
        ("[model.encoder]\nkind = 3", "unknown encoder kind 3"),
        ("data = 3", "data must be a table"),
        ('discriminators = "none"', "names no known configuration"),
        ("steps = ", "is not valid TOML"),
    ],
)
def test_a_wrong_configuration_is_one_line(tmp_path, run_script, line, words):
    path = tmp_path / "config.toml"
    path.write_text(line)
    code, out, err = run_script("train", path, "--data", tmp_path, "--out", tmp_path / "run")
    assert code == 1
    assert words in err and str(path) in err
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
        assert words in err and err.startswith("train.py: error: ") and err.count("\n") == 1

    fails("cannot read the manifest", data=tmp_path / "missing.jsonl")
    fails("holds no packed speech", data=tmp_path / "missing")
    fails("there is no cuda device here", "--device=cuda")
    fails("unknown device 'tpu'", "--device=tpu")
    fails("holds no checkpoint to resume from", "--resume")
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


def test_half_precision_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="fp16 needs a CUDA device"):
        make_fabric("auto", "fp16")


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

    with pytest.raises(ConfigError, match="multiple of 3 processes"):
        Trainer(tiny(), Three(), None, tmp_path)


def test_a_run_in_bfloat16_learns(tmp_path):
    config = tiny(precision="bf16", adversary__start_step=1000, log_every=10)
    make_trainer(tmp_path, config, watch=Watch(tmp_path, 40, console=Console(quiet=True))).run()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert rows[-1]["mel"] < 0.7 * rows[0]["mel"]
    assert rows[-1]["perplexity"] > 1 and rows[-1]["skipped"] == 0
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
    code, out, _ = run_script("plot_run", tmp_path)
    assert code == 0 and "curves.png" in out
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = run_script("plot_run", tmp_path / "missing")
    assert code == 1 and "cannot read" in err and err.count("\n") == 1


def test_a_steady_tone_is_levelled_and_nothing_else_changes(tmp_path, run_script):
    (tmp_path / "config.toml").write_text(TINY)
    data = packed(tmp_path / "packed")
    torch.manual_seed(0)
    model = Autoencoder(tiny().model).eval()
    tone, bins = 120, 161

    def stands_out(path):
        codes = torch.arange(32).repeat(4)[None]
        waveform = load_model(path)[0].decode(codes).detach()[0]
        window = torch.hann_window(320)
        powers = torch.stft(waveform, 320, 80, window=window, return_complex=True).abs().square()
        return script("level_bins").prominence(powers.T)[tone]

    with torch.no_grad():
        model.decoder.head.out.bias[:bins] = -3.0
        model.decoder.head.out.bias[tone] += 2.5
        # Makes whole turns in a hop, so a phase that stays is a tone.
        model.decoder.head.out.weight[bins + tone] = 0
    given, out = tmp_path / "given.safetensors", tmp_path / "levelled.safetensors"
    save_model(given, tiny().model, model.state_dict())
    options = (tmp_path / "config.toml", "--data", data, "--model", given, "--out", out)

    code, _, err = run_script("level_bins", *options, "--above", 4000)
    assert code == 1 and "leaves no band" in err and err.count("\n") == 1
    assert not out.exists()

    code, printed, _ = run_script("level_bins", *options, "--above", 2000, "--crops", 16)
    assert code == 0
    assert stands_out(given) > 6 and stands_out(out) < 2
    before, after = load_model(given)[0].state_dict(), load_model(out)[0].state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert sorted(changed) == ["decoder.head.out.bias", "decoder.head.out.weight"]
    for name in changed:
        moved = (before[name] != after[name]).nonzero()[:, 0]
        assert 80 <= moved.min() and moved.max() < bins
    assert read_header(out).model_id in printed

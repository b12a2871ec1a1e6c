"""Importing Lightning checkpoints: which tensors are taken, what is refused and how.

The files have the published names with a narrower model behind them, which ``published`` is
replaced by; ``test_published_parity.py`` checks names and shapes at full size.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from simvq_audio.errors import ModelError
from simvq_audio.model import published_import
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.config import ModelConfig, SeanetEncoderConfig, VocosDecoderConfig
from simvq_audio.model.published_import import ImportSummary, import_published, published_names
from simvq_audio.model.quantizers.config import SimVQConfig
from simvq_audio.model.storage import load_model, read_header

BASIS = "quantize.embedding.weight"
WINDOW = "head.istft.window"
UNUSED = ("loss.dac.discriminators.0.conv.weight", "decoder.model.0.conv.conv.weight_g")


def narrow(codebook_size: int = 16) -> ModelConfig:
    return ModelConfig(
        name="narrow",
        encoder=SeanetEncoderConfig(filters=2),
        quantizer=SimVQConfig(codebook_size=codebook_size, latent_dim=8),
        decoder=VocosDecoderConfig(dim=32, hidden_dim=48, blocks=2, attention_prenet=True),
    )


@pytest.fixture(autouse=True)
def narrow_published(monkeypatch):
    monkeypatch.setattr(published_import, "published", narrow)


def random_state(seed: int, codebook_size: int = 16) -> dict[str, torch.Tensor]:
    """The plain tensors of the narrow model, by published name, the window among them."""
    torch.manual_seed(seed)
    config = narrow(codebook_size)
    tensors = Autoencoder(config).state_dict()
    state = {
        theirs: tensors[ours] + 0.01 * torch.randn_like(tensors[ours])
        for ours, theirs in published_names(config).items()
    }
    return {**state, WINDOW: torch.hann_window(1280)}


def averages(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` as a moving average is named; it leaves out what is not trained."""
    kept = {name: tensor for name, tensor in state.items() if name not in (BASIS, WINDOW)}
    return {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in kept.items()}


def lightning_file(path: Path, tensors: dict[str, Any], **extra: Any) -> Path:
    """A file as Lightning's trainer writes it."""
    content = {
        "epoch": 49,
        "global_step": 277_200,
        "pytorch-lightning_version": "2.2.0",
        "state_dict": tensors,
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}],
        "lr_schedulers": [],
        "hyper_parameters": {"learning_rate": 1e-4, "quantconfig": {"target": "x.SimVQ1D"}},
        "callbacks": {"ModelCheckpoint": {"best_model_path": "", "best_k_models": {}}},
        **extra,
    }
    torch.save(content, path)
    return path


def full(raw_seed: int = 0, ema_seed: int = 1, codebook_size: int = 16) -> dict[str, Any]:
    """Everything that a published file has, its average unlike the last weights."""
    return {
        **random_state(raw_seed, codebook_size),
        **averages(random_state(ema_seed, codebook_size)),
        "model_ema.decay": torch.tensor(0.999),
        "model_ema.num_updates": torch.tensor(-1, dtype=torch.int),
        **{name: torch.randn(4) for name in UNUSED},
        **{f"model_ema.{name.replace('.', '')}": torch.randn(4) for name in UNUSED},
    }


def assert_holds(path: Path, expected: dict[str, torch.Tensor]) -> None:
    model, _ = load_model(path)
    tensors = model.state_dict()
    names = published_names(model.config)
    assert set(tensors) == set(names)
    for ours, theirs in names.items():
        assert torch.equal(tensors[ours], expected[theirs].float()), ours


def fault_line(path: Path, *, raw: bool = False) -> str:
    """The message of the refusal, which must be one line and leave nothing behind."""
    out = path.parent / "out.safetensors"
    before = sorted(path.parent.iterdir())
    with pytest.raises(ModelError) as refusal:
        import_published(path, out, raw=raw)
    message = str(refusal.value)
    assert str(path) in message and "\n" not in message
    assert sorted(path.parent.iterdir()) == before
    return message


def test_average_by_default_and_last_weights_on_request(tmp_path):
    path = lightning_file(tmp_path / "epoch=49-step=277200.ckpt", full())
    plain = random_state(0)
    # The basis and the window have no average.
    average = {**random_state(1), BASIS: plain[BASIS]}
    parameters = sum(p.numel() for p in Autoencoder(narrow()).parameters())

    summary = import_published(path, tmp_path / "ema.safetensors")
    assert summary == ImportSummary(16, parameters, "ema")
    assert_holds(tmp_path / "ema.safetensors", average)

    summary = import_published(path, tmp_path / "raw.safetensors", raw=True)
    assert summary == ImportSummary(16, parameters, "raw")
    assert_holds(tmp_path / "raw.safetensors", plain)

    header = read_header(tmp_path / "ema.safetensors")
    assert (
        header.metadata["source"] == "published checkpoint epoch=49-step=277200.ckpt, ema weights"
    )
    assert header.model_id != read_header(tmp_path / "raw.safetensors").model_id


def test_imported_model_codes_as_its_tensors_do(tmp_path):
    import_published(lightning_file(tmp_path / "a.ckpt", full()), tmp_path / "out.safetensors")
    imported, _ = load_model(tmp_path / "out.safetensors")
    state = {**random_state(1), BASIS: random_state(0)[BASIS]}
    built = Autoencoder(narrow()).eval()
    built.load_state_dict({o: state[t] for o, t in published_names(narrow()).items()})
    audio = torch.randn(1, 2000)
    indices = imported.encode(audio)
    assert torch.equal(indices, built.encode(audio))
    assert torch.equal(imported.decode(indices), built.decode(indices))


@pytest.mark.parametrize("codebook_size", [2, 1000])
def test_codebook_size_comes_from_the_basis(tmp_path, codebook_size):
    path = lightning_file(tmp_path / "a.ckpt", full(codebook_size=codebook_size))
    summary = import_published(path, tmp_path / "out.safetensors")
    assert summary.codebook_size == codebook_size
    config = read_header(tmp_path / "out.safetensors").config
    assert config.quantizer.codebook_size == codebook_size


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
    state = {name: tensor.to(dtype) for name, tensor in random_state(0).items()}
    state[WINDOW] = random_state(0)[WINDOW]
    import_published(
        lightning_file(tmp_path / "a.ckpt", state), tmp_path / "out.safetensors", raw=True
    )
    assert_holds(tmp_path / "out.safetensors", state)


def test_last_weights_need_no_average(tmp_path):
    path = lightning_file(tmp_path / "a.ckpt", random_state(0))
    assert "--raw" in fault_line(path)
    assert import_published(path, tmp_path / "out.safetensors", raw=True).source == "raw"


def test_settings_of_an_average_are_no_average(tmp_path):
    state = {**random_state(0), "model_ema.decay": torch.tensor(0.999)}
    assert "--raw" in fault_line(lightning_file(tmp_path / "a.ckpt", state))


def test_every_tensor_that_does_not_fit_is_named(tmp_path):
    tensors = full()
    missing = ["encoder.model.13.lstm.bias_hh_l1", "quantize.embedding_proj.bias"]
    missing_averages = ["backbone.embed.bias", "head.out.weight"]
    for name in missing:
        del tensors[name]
    for name in missing_averages:
        del tensors[f"model_ema.{name.replace('.', '')}"]
    unexpected = ["backbone.convnext.2.gamma", "model_ema.backboneconvnext2gamma", "colorize"]
    tensors.update({name: torch.ones(3) for name in unexpected})
    tensors["backbone.norm.weight"] = torch.ones(5)
    tensors["model_ema.backbonenormbias"] = torch.ones(32, 1)
    tensors["model_ema.headoutbias"] = torch.ones(1282, dtype=torch.int64)
    tensors["backbone.norm.bias"] = "text"
    tensors["model_ema.backboneembedweight"][3, 2, 1] = float("nan")
    tensors[BASIS][0, 0] = float("-inf")

    message = fault_line(lightning_file(tmp_path / "a.ckpt", tensors))
    listed = {
        fault.split(": ", 1)[0].split("; ")[-1]: fault.split(": ", 1)[1].split(", ")
        for fault in message.split("model's; ", 1)[1].split("; ")
    }
    plain_and_average = {f"model_ema.{n.replace('.', '')} ({n})" for n in missing_averages}
    assert set(listed.pop("missing")) == {*missing, *plain_and_average}
    assert set(listed.pop("unexpected")) == set(unexpected)
    assert set(listed.pop("of another shape")) == {
        "backbone.norm.weight",
        "model_ema.backbonenormbias (backbone.norm.bias)",
    }
    assert listed.pop("not of floating point") == ["model_ema.headoutbias (head.out.bias)"]
    assert listed.pop("without values") == ["backbone.norm.bias"]
    assert set(listed.pop("not finite")) == {
        "model_ema.backboneembedweight (backbone.embed.weight)",
        BASIS,
    }
    assert not listed


def test_every_gap_is_named(tmp_path):
    names = sorted(random_state(0))
    kept = names[::7]
    tensors = random_state(0)
    path = lightning_file(tmp_path / "a.ckpt", {name: tensors[name] for name in kept})
    listed = fault_line(path, raw=True).split("missing: ", 1)[1].split(", ")
    assert sorted(listed) == sorted(set(names) - set(kept))


def test_values_that_are_not_used_are_not_judged(tmp_path):
    tensors = full()
    tensors["backbone.embed.weight"].fill_(float("nan"))
    path = lightning_file(tmp_path / "a.ckpt", tensors)
    import_published(path, tmp_path / "out.safetensors")
    (tmp_path / "out.safetensors").unlink()
    assert "not finite: backbone.embed.weight" in fault_line(path, raw=True)


def test_values_beyond_float32_are_refused(tmp_path):
    state = random_state(0)
    state["head.out.bias"] = torch.full((1282,), 1e300, dtype=torch.float64)
    path = lightning_file(tmp_path / "a.ckpt", state)
    assert "not finite: head.out.bias" in fault_line(path, raw=True)


def test_another_window_is_refused(tmp_path):
    state = {**random_state(0), WINDOW: torch.hamming_window(1280)}
    assert WINDOW in fault_line(lightning_file(tmp_path / "a.ckpt", state), raw=True)


@pytest.mark.parametrize("shape", [(1, 8), (16, 9), (16,)])
def test_an_impossible_basis_is_refused(tmp_path, shape):
    state = {**random_state(0), BASIS: torch.zeros(shape)}
    message = fault_line(lightning_file(tmp_path / "a.ckpt", state), raw=True)
    assert BASIS in message or "codebook_size" in message


def test_a_name_cannot_break_the_line(tmp_path):
    state = {**random_state(0), "two\nlines": torch.ones(1)}
    assert "unexpected: 'two\\nlines'" in fault_line(
        lightning_file(tmp_path / "a.ckpt", state), raw=True
    )


class Payload:
    """Unpickled the usual way, it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("where", ["beside", "inside", "plain pickle", "old format"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, where):
    target, path = tmp_path / "ran", tmp_path / "a.ckpt"
    payload = Payload(target)
    if where == "beside":
        lightning_file(path, full(), hyper_parameters=payload)
    elif where == "inside":
        lightning_file(path, {**full(), "backbone.norm.weight": payload})
    elif where == "plain pickle":
        path.write_bytes(pickle.dumps({"state_dict": payload}))
    else:
        torch.save({"state_dict": payload}, path, _use_new_zipfile_serialization=False)
    message = fault_line(path)
    assert not target.exists()
    if where in ("beside", "inside"):
        assert "mkdir" in message


@pytest.mark.parametrize(
    "content",
    [b"", b"RIFF....WAVE", b"\x80\x02}q\x00.", b"PK\x03\x04 cut short", os.urandom(4096)],
    ids=["empty", "wave", "pickle", "zip", "noise"],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    fault_line(path)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    path = lightning_file(tmp_path / "a.ckpt", full())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    fault_line(path)


@pytest.mark.parametrize("content", [{"weights": {}}, [1, 2], {"state_dict": [1]}, torch.ones(2)])
def test_files_without_a_state_are_refused(tmp_path, content):
    path = tmp_path / "a.ckpt"
    torch.save(content, path)
    assert "state_dict" in fault_line(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    fault_line(tmp_path / "none.ckpt")
    (tmp_path / "folder.ckpt").mkdir()
    fault_line(tmp_path / "folder.ckpt")


MEASURE = """
import json, sys
import torch
from simvq_audio.model import published_import
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.config import ModelConfig

config = ModelConfig.from_dict(json.loads(sys.argv[3]))
published_import.published = lambda codebook_size=0: config

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

with torch.device("meta"):  # torch imports a good deal at the first use of this device
    Autoencoder(config)
# Not resource.getrusage: its peak starts from the parent's.
before = peak()
published_import.import_published(sys.argv[1], sys.argv[2])
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_stays_near_what_is_imported(tmp_path):
    config = ModelConfig(
        encoder=SeanetEncoderConfig(),
        quantizer=SimVQConfig(codebook_size=4096, latent_dim=512),
        decoder=VocosDecoderConfig(dim=256, hidden_dim=768, blocks=4, attention_prenet=True),
    )
    with torch.device("meta"):
        tensors = Autoencoder(config).state_dict()
    state = {t: torch.zeros(tensors[o].shape) for o, t in published_names(config).items()}
    state[WINDOW] = torch.hann_window(1280)
    average = {name: tensor.clone() for name, tensor in averages(state).items()}
    # The rest of a real file: an optimiser's two moments of each tensor.
    moments = [torch.zeros(sum(t.numel() for t in average.values())) for _ in range(2)]
    path = lightning_file(
        tmp_path / "a.ckpt", {**state, **average}, optimizer_states=[{"state": {0: moments}}]
    )
    used = 4 * sum(tensor.numel() for tensor in state.values())
    assert path.stat().st_size > 3.5 * used

    out = tmp_path / "out.safetensors"
    command = [sys.executable, "-c", MEASURE, str(path), str(out), json.dumps(config.to_dict())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment, timeout=120
    )
    # What is taken is mapped once; releases of safetensors differ in whether they copy it.
    assert int(result.stdout) < 2.2 * used
    path.unlink()
    out.unlink()

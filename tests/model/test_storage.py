"""Model files: whole round trips, and damage refused in one line."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from simvq_audio.errors import ModelError
from simvq_audio.model.storage import load_model, read_header, save_model


def test_model_file_alone_rebuilds_the_model(model, tmp_path):
    path = tmp_path / "model.safetensors"
    fingerprint = save_model(path, model.config, model.state_dict(), {"licence": "MIT"})
    loaded, header = load_model(path)
    assert header.fingerprint == fingerprint
    assert header.config == model.config
    assert header.metadata == {"licence": "MIT"}
    assert header.parameters == sum(t.numel() for t in model.state_dict().values())
    assert header.file_bytes == path.stat().st_size
    assert not loaded.training
    waveform = 0.1 * torch.randn(1, 4000)
    indices = model.encode(waveform)
    assert torch.equal(loaded.encode(waveform), indices)
    assert torch.equal(loaded.decode(indices), model.decode(indices))


def test_half_precision_file_names_the_model_it_holds(model, tmp_path):
    half, full = tmp_path / "half.safetensors", tmp_path / "full.safetensors"
    fingerprint = save_model(half, model.config, model.state_dict(), half=True)
    loaded, _ = load_model(half)
    assert {t.dtype for t in loaded.state_dict().values()} == {torch.float32}
    # The same numbers in float32 are the same model.
    assert save_model(full, model.config, loaded.state_dict()) == fingerprint
    assert half.stat().st_size < 0.6 * full.stat().st_size


def test_fingerprint_follows_weights_and_configuration(model, tmp_path):
    path = tmp_path / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = save_model(path, model.config, state)
    state["decoder.head.out.bias"][0] += 1e-3
    assert save_model(path, model.config, state) != first


def test_loading_in_inference_mode_still_works(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, model.config, model.state_dict())
    with torch.inference_mode():
        loaded, _ = load_model(path)
        indices = loaded.encode(torch.zeros(1, 1000))
    assert torch.equal(loaded.encode(torch.zeros(1, 1000)), indices)


def refused(path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_unexpected_and_misshapen_tensors_are_named(model, tmp_path):
    path = tmp_path / "model.safetensors"
    state = dict(model.state_dict())
    del state["encoder.out.bias"]
    state["extra"] = torch.zeros(1)
    state["decoder.head.out.bias"] = torch.zeros(3)
    save_model(path, model.config, state)
    message = refused(path)
    assert "missing: encoder.out.bias" in message
    assert "unexpected: extra" in message
    assert "of another shape: decoder.head.out.bias" in message


def test_altered_weights_are_refused(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, model.config, model.state_dict())
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert "fingerprint mismatch" in refused(path)


@pytest.mark.parametrize("keep", [0, 4, 100, 3000, -10])
def test_truncated_files_are_refused(model, tmp_path, keep):
    path = tmp_path / "model.safetensors"
    save_model(path, model.config, model.state_dict())
    path.write_bytes(path.read_bytes()[:keep])
    refused(path)


def test_other_files_are_refused(model, tmp_path):
    path = tmp_path / "model.safetensors"
    assert "cannot read" in refused(path)
    path.write_text("not a model at all, but long enough to have a header length")
    refused(path)
    save_file({"x": torch.zeros(1)}, path)
    assert "is not a simvq-audio model" in refused(path)


def test_later_format_asks_for_an_update(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, model.config, model.state_dict())
    header = {"format": 2, "config": model.config.to_dict(), "fingerprint": "0" * 12}
    save_file(load_file(path), path, metadata={"simvq_audio": json.dumps(header)})
    assert "update simvq-audio" in refused(path)
    with pytest.raises(ModelError, match="update simvq-audio"):
        read_header(path)


def test_failed_save_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_model(path, model.config, model.state_dict())
    before = path.read_bytes()

    def full(tensors, target, metadata):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_model(path, model.config, model.state_dict())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]

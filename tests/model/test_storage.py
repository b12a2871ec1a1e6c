"""Model files: whole round trips, and damage refused in one line."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from simvq_audio.errors import ModelError
from simvq_audio.model.identity import fingerprint_of_format_1
from simvq_audio.model.storage import load_model, read_header, save_model


def test_model_file_alone_rebuilds_the_model(model, tmp_path):
    path = tmp_path / "model.safetensors"
    model_id = save_model(path, model.config, model.state_dict(), {"licence": "MIT"})
    loaded, header = load_model(path)
    assert header == read_header(path)
    assert header.model_id == model_id
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
    model_id = save_model(half, model.config, model.state_dict(), half=True)
    loaded, header = load_model(half)
    assert {t.dtype for t in loaded.state_dict().values()} == {torch.float32}
    # The same numbers in float32 are the same model.
    assert save_model(full, model.config, loaded.state_dict()) == model_id
    assert read_header(full).codes_id == header.codes_id
    assert half.stat().st_size < 0.6 * full.stat().st_size


def names(tmp_path, config, state) -> tuple[str, str]:
    """(codes_id, model_id) of a model file."""
    path = tmp_path / "named.safetensors"
    save_model(path, config, state)
    header = read_header(path)
    return header.codes_id, header.model_id


@pytest.mark.parametrize(
    ("changed", "codes_stay"),
    [
        ("decoder.head.out.bias", True),
        ("encoder.out.bias", True),
        ("quantizer.proj.bias", False),
        ("quantizer.proj.weight", False),
        ("quantizer.basis", False),
    ],
)
def test_names_follow_the_weights(model, tmp_path, changed, codes_stay):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    codes, whole = names(tmp_path, model.config, state)
    state[changed].view(-1)[0] += 1e-3
    codes_after, whole_after = names(tmp_path, model.config, state)
    assert whole_after != whole
    assert (codes_after == codes) is codes_stay


def test_names_follow_the_configuration(model, tmp_path):
    def named(**changes):
        return names(tmp_path, dataclasses.replace(model.config, **changes), model.state_dict())

    codes, whole = named()
    # The name is a label.
    assert named(name="other") == (codes, whole)
    # The same indices at another rate stand for another sound.
    faster = named(sample_rate=16_000)
    assert faster[0] != codes and faster[1] != whole
    encoder = dataclasses.replace(model.config.encoder, hop_length=240)
    decoder = dataclasses.replace(model.config.decoder, hop_length=240)
    assert named(encoder=encoder, decoder=decoder)[0] != codes


def as_format_1(path, model, altered=False):
    """Write a file as version 0.1.0 did, with a training weight in its configuration."""
    config = model.config.to_dict()
    config["quantizer"] = {**config["quantizer"], "commitment": 0.25}
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    fingerprint = "0123456789ab" if altered else fingerprint_of_format_1(config, tensors)
    header = {"format": 1, "config": config, "fingerprint": fingerprint, "licence": "MIT"}
    save_file(tensors, path, metadata={"simvq_audio": json.dumps(header)})
    return fingerprint


def test_files_of_format_1_still_load(model, tmp_path):
    path = tmp_path / "old.safetensors"
    fingerprint = as_format_1(path, model)
    loaded, header = load_model(path)
    assert header.config == model.config
    assert header.metadata == {"licence": "MIT"}
    assert (header.model_id, header.old_codes_ids) == (fingerprint, (fingerprint,))
    assert header.codes_id == names(tmp_path, model.config, model.state_dict())[0]
    assert read_header(path) == header
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_altered_files_of_format_1_are_refused(model, tmp_path):
    path = tmp_path / "old.safetensors"
    as_format_1(path, model, altered=True)
    assert "is damaged" in refused(path)


def test_a_false_codes_id_is_refused(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, model.config, model.state_dict())
    with open(path, "rb") as file:
        table = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header = {**json.loads(table["__metadata__"]["simvq_audio"]), "codes_id": "0123456789ab"}
    save_file(load_file(path), path, metadata={"simvq_audio": json.dumps(header)})
    assert "is damaged" in refused(path)


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
    assert "its weights are not those that it names" in refused(path)


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


@pytest.mark.parametrize(
    "config",
    ["compact", 5, [], None, {"quantizer": "simvq"}, {"encoder": [1]}, {"name": 7}],
)
@pytest.mark.parametrize("version", [1, 2])
def test_configurations_of_another_shape_are_refused(model, tmp_path, config, version):
    path = tmp_path / "model.safetensors"
    header = {"format": version, "config": config, "fingerprint": "0" * 12}
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        path,
        metadata={"simvq_audio": json.dumps(header | {"codes_id": "", "model_id": ""})},
    )
    refused(path)


@pytest.mark.parametrize(
    "changes", [{"dim": 10**6, "hidden_dim": 10**6}, {"blocks": 10**9}, {"n_fft": 2 * 10**11}]
)
def test_a_configuration_larger_than_the_file_is_refused_before_it_takes_memory(
    model, tmp_path, changes
):
    path = tmp_path / "model.safetensors"
    decoder = dataclasses.replace(model.config.decoder, **changes)
    save_model(path, dataclasses.replace(model.config, decoder=decoder), model.state_dict())
    assert "of a larger model" in refused(path)


def test_later_format_asks_for_an_update(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, model.config, model.state_dict())
    header = {"format": 4, "config": model.config.to_dict(), "codes_id": "0" * 12}
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

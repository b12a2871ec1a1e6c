"""Weights in few bits: exact round trips, files that load as any model, damage refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from simvq_audio.codec import Codec
from simvq_audio.errors import ModelError
from simvq_audio.model.compressed import Steps
from simvq_audio.model.storage import load_model, read_header, save_model
from simvq_audio.onnx.model import convert


def steps(shape: tuple[int, ...], spread: float, seed: int = 0) -> Steps:
    random = np.random.default_rng(seed)
    rows = random.integers(-40, -8, shape[0]).astype(np.int16)
    columns = random.integers(-8, 8, int(np.prod(shape[1:]))).astype(np.int16)
    numbers = np.rint(spread * random.standard_normal((len(rows), len(columns))))
    return Steps(numbers.astype(np.int32), rows, columns, shape)


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (7, 33), (16, 4, 3), (64, 200)])
@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0, 200.0, 1e5])
def test_numbers_come_back(shape, spread):
    held = steps(shape, spread)
    again = Steps.from_tensors("w", held.to_tensors("w"), shape)
    assert np.array_equal(again.numbers, held.numbers)
    assert np.array_equal(again.expand(), held.expand())
    exact = 2.0 ** ((held.rows[:, None] + held.columns.astype(float)) / 4)
    np.testing.assert_allclose(again.expand(), (held.numbers * exact).reshape(shape), rtol=2e-7)


def test_sizes_are_near_the_entropy():
    held = steps((256, 400), 6.0)
    _, counts = np.unique(held.numbers, return_counts=True)
    shares = counts / held.numbers.size
    entropy = -(shares * np.log2(shares)).sum() * held.numbers.size / 8
    assert held.to_tensors("w")["w.numbers"].nbytes < 1.05 * entropy


def test_damaged_tensors_are_refused():
    held = steps((20, 30), 3.0)
    good = held.to_tensors("w")
    numbers = good["w.numbers"]
    for changed in (
        {"w.numbers": numbers[:-1]},
        {"w.numbers": np.append(numbers, np.uint8(1))},
        {"w.numbers": numbers[:5]},
        {"w.numbers": numbers.astype(np.int16)},
        {"w.rows": np.append(held.rows, np.int16(0))},
        {"w.rows": np.zeros(30_000, np.int16)},
        {"w.columns": held.columns[None]},
    ):
        for shape in ((20, 30), (30_000, 30), (20, -1), ()):
            with pytest.raises(ValueError):
                Steps.from_tensors("w", {**good, **changed}, shape)
    random = np.random.default_rng(0)
    for _ in range(300):
        bad = numbers.copy()
        bad[random.integers(len(bad))] ^= random.integers(1, 256)
        try:
            Steps.from_tensors("w", {**good, "w.numbers": bad}, (20, 30))
        except ValueError:
            pass


@pytest.fixture
def small_file(model, tmp_path):
    """The small model with its encoder's and decoder's matrices in few bits."""
    state = model.state_dict()
    compressed = {}
    for name in ("encoder.embed.weight", "decoder.embed.weight", "decoder.head.out.weight"):
        weight = state[name].flatten(1).numpy()
        rows = np.full(len(weight), -24, np.int16)
        columns = np.zeros(weight.shape[1], np.int16)
        numbers = np.rint(weight / 2.0**-6).astype(np.int32)
        compressed[name] = Steps(numbers, rows, columns, tuple(state[name].shape))
    path = tmp_path / "few.safetensors"
    save_model(path, model.config, state, {"description": "few bits"}, compressed=compressed)
    return path


def test_a_file_in_few_bits_is_a_model_like_any_other(model, model_file, small_file, tmp_path):
    assert small_file.stat().st_size < model_file.stat().st_size
    loaded, header = load_model(small_file)
    theirs = read_header(model_file)
    # The quantiser is as it was: the codes mean the same.
    assert header.codes_id == theirs.codes_id and header.model_id != theirs.model_id
    assert header.parameters == theirs.parameters
    assert header.metadata == {"description": "few bits"}
    difference = loaded.decoder.embed.weight - model.decoder.embed.weight
    assert 0 < difference.abs().max() <= 2.0**-7
    # Saved as it is, it is the same model.
    whole = tmp_path / "whole.safetensors"
    assert save_model(whole, header.config, loaded.state_dict()) == header.model_id
    first, second = Codec.load(small_file, device="cpu"), Codec.load(whole, device="cpu")
    waveform = 0.1 * np.random.default_rng(0).standard_normal(9000).astype(np.float32)
    codes = first.encode(waveform, 24_000)
    assert second.encode(waveform, 24_000) == codes
    assert torch.equal(first.decode(codes), second.decode(codes))
    assert convert(small_file)[0].model_id == header.model_id


def test_damaged_files_are_refused(small_file):
    data = bytearray(small_file.read_bytes())
    text = bytes(data)
    for wrong in (
        text.replace(b'\\"encoder.embed.weight\\": [32', b'\\"encoder.embed.weight\\": [33'),
        text.replace(b'\\"decoder.embed.weight\\": [', b'\\"decoder.embed.wxight\\": ['),
        text[:-1],
        text[:-60] + bytes(byte ^ 1 for byte in text[-60:]),
    ):
        assert wrong != text
        small_file.write_bytes(wrong)
        for read in (load_model, convert):
            with pytest.raises(ModelError):
                read(small_file)

"""Codes that users already have: old files decode, and compact-1 goes on making the same codes.

``hello-c3de87daa4a2.codes`` and ``.npy`` were made of ``examples/hello.wav`` by version 0.1.0.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from simvq_audio import Codec, Codes, CodesError
from simvq_audio.embedded import embedded_model, embedded_models

DATA = Path(__file__).parent / "data"
HELLO = Path(__file__).parent.parent / "examples" / "hello.wav"
OLD = DATA / "hello-c3de87daa4a2"


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load("compact-1", device="cpu")


@pytest.fixture(scope="module")
def pinned() -> np.ndarray:
    return np.load(OLD.with_suffix(".npy"))


def test_the_encoder_makes_the_same_codes(codec, pinned):
    codes = codec.encode_file(HELLO)
    assert np.array_equal(codes.indices, pinned)
    assert codes.codes_id == codec.codes_id == "c153ae81d324"


def test_an_old_file_is_read_and_written_as_it_is(pinned):
    codes = Codes.load(OLD.with_suffix(".codes"))
    assert np.array_equal(codes.indices, pinned)
    assert codes.codes_id == "c3de87daa4a2"
    assert codes.to_bytes() == OLD.with_suffix(".codes").read_bytes()


@pytest.mark.parametrize("name", ["c3de87daa4a2", "ef3e61a1305e", "2125efdb6553"])
def test_files_that_name_one_of_the_old_models_decode(codec, pinned, name):
    codes = dataclasses.replace(Codes.load(OLD.with_suffix(".codes")), codes_id=name)
    decoded = codec.decode(codes)
    assert decoded.shape == (1, 194_634)
    assert torch.equal(decoded, codec.decode(codec.encode_file(HELLO)))
    # Decoders improve; what they make of these codes stays this recording.
    again = codec.encode(decoded.numpy(), codes.sample_rate)
    assert (again.indices == pinned).mean() > 0.3


def test_files_of_other_codes_are_refused(codec):
    codes = dataclasses.replace(Codes.load(OLD.with_suffix(".codes")), codes_id="1fbd756af3b3")
    with pytest.raises(CodesError, match="these codes are 1fbd756af3b3"):
        codec.decode(codes)


def test_the_program_knows_and_decodes_an_old_file(tmp_path, monkeypatch, capsys):
    from simvq_audio.cli import main

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        assert not ended.value.code
        return capsys.readouterr().out

    assert json.loads(run("info", OLD.with_suffix(".codes"), "--json"))["model"] == "compact-1"
    run("decode", OLD.with_suffix(".codes"), tmp_path / "hello.wav", "--device", "cpu")
    assert (tmp_path / "hello.wav").stat().st_size > 2 * 194_634


def test_names_of_the_embedded_model():
    assert [model.name for model in embedded_models()] == ["compact-1", "compact-1-small"]
    assert embedded_model() == embedded_model("compact") == embedded_model("compact-1")
    assert Codec.load("compact", device="cpu").name == Codec.load(device="cpu").name == "compact-1"


def test_the_card_names_the_models_that_ship():
    model, small = embedded_models()
    card = model.path.with_name("MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {model.name}\n")
    assert f"`codes_id` `{model.codes_id}`, `model_id` `{model.model_id}`" in card
    assert f"## {small.name}\n" in card and f"`model_id` `{small.model_id}`" in card


def test_the_small_model_makes_and_decodes_the_same_codes(codec, pinned):
    assert embedded_model("compact-1-small").file_bytes <= 7_000_000
    small = Codec.load("compact-1-small", device="cpu")
    assert small.codes_id == codec.codes_id and small.config.quantizer == codec.config.quantizer
    codes = small.encode_file(HELLO)
    assert (codes.indices == pinned).mean() > 0.99
    # Each decodes the other's files, to nearly the same sound.
    ours, theirs = small.decode(codes), codec.decode(codes)
    assert (ours - theirs).square().mean() < 0.1 * theirs.square().mean()

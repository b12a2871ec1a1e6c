"""``repair`` and ``generate``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from random_masked import install_masked_prior

from simvq_audio.bitstream import Codes
from simvq_audio.codec.repair import simulated_loss


@pytest.fixture(autouse=True)
def prior(small, monkeypatch, tmp_path):
    (tmp_path / "prior").mkdir()
    return install_masked_prior(monkeypatch, tmp_path / "prior", small.codec.codes_id)


@pytest.fixture
def coded(run, make_audio, tmp_path: Path) -> Path:
    make_audio(tmp_path / "a.wav")
    assert run("encode", tmp_path / "a.wav", tmp_path / "a.codes").code == 0
    return tmp_path / "a.codes"


def test_repair_to_codes_and_to_sound(run, small, coded, tmp_path: Path) -> None:
    codes = Codes.load(coded)
    lost = simulated_loss(codes.num_frames, 0.3, 2, 5)
    out, sound = tmp_path / "b.codes", tmp_path / "b.wav"
    options = ("--simulate", 0.3, "--burst", 2, "--seed", 5)
    assert run("repair", coded, out, *options).code == 0
    assert Codes.load(out) == small.codec.repair(codes, lost)
    facts = json.loads(run("repair", coded, sound, *options, "--json").output)
    assert facts["frames"] == codes.num_frames
    expected = small.codec.decode(codes, lost=lost).numpy()[0]
    np.testing.assert_allclose(soundfile.read(sound)[0], expected.clip(-1, 1), atol=1e-4)


def test_lost_frames_from_a_file(run, small, coded, tmp_path: Path) -> None:
    codes = Codes.load(coded)
    lost = np.zeros(codes.num_frames, bool)
    lost[[2, 5, 6, 7]] = True
    (tmp_path / "lost.txt").write_text("# from a log\n2\n\n5-7\n")
    np.save(tmp_path / "lost.npy", lost)
    for name in ("lost.txt", "lost.npy"):
        out = tmp_path / f"{name}.codes"
        assert run("repair", coded, out, "--lost", tmp_path / name).code == 0
        assert Codes.load(out) == small.codec.repair(codes, lost)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "no frame"),
        ("3-", "no frame"),
        ("-3", "no frame"),
        ("7-5", "does not lie"),
        ("99999", "does not lie"),
    ],
)
def test_other_lists_are_refused(run, coded, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "lost.txt").write_text(text)
    result = run("repair", coded, tmp_path / "b.wav", "--lost", tmp_path / "lost.txt")
    assert result.code == 1
    assert message in result.errors
    assert not (tmp_path / "b.wav").exists()


def test_other_arrays_are_refused(run, coded, tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", np.zeros(1, bool))
    np.save(tmp_path / "numbers.npy", np.zeros(10))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name in ("short.npy", "numbers.npy", "text.npy", "binary.txt", "missing.txt"):
        result = run("repair", coded, tmp_path / "b.wav", "--lost", tmp_path / name)
        assert result.code == 1
        assert len(result.errors.splitlines()) == 1


def test_what_is_lost_must_be_said_once(run, coded, tmp_path: Path) -> None:
    for options in ((), ("--simulate", 0.1, "--lost", tmp_path / "x.txt")):
        result = run("repair", coded, tmp_path / "b.wav", *options)
        assert result.code == 1
        assert "--lost" in result.errors
    assert run("repair", coded, coded, "--simulate", 0.1).code == 1
    assert run("repair", coded, tmp_path / "b.mp3", "--simulate", 0.1).code == 1


def test_generate(run, tmp_path: Path) -> None:
    sound, again = tmp_path / "a.wav", tmp_path / "b.wav"
    options = ("--seconds", 0.5, "--steps", 2, "--seed", 3)
    assert run("generate", sound, *options).code == 0
    assert run("generate", again, *options, "--order", "confidence").code == 0
    assert sound.read_bytes() == again.read_bytes()
    assert soundfile.info(sound).frames == 38 * 320
    assert run("generate", tmp_path / "a.npy", *options, "--order", "ancestral").code == 0
    assert np.load(tmp_path / "a.npy").shape == (38,)
    assert run("generate", sound, *options).code == 1  # it exists


def test_continue_and_infill(run, coded, tmp_path: Path) -> None:
    codes = Codes.load(coded)
    longer, filled = tmp_path / "longer.codes", tmp_path / "filled.codes"
    steps = ("--steps", 2)
    assert run("generate", longer, "--prompt", coded, "--continue", 1, *steps).code == 0
    indices = Codes.load(longer).indices
    assert indices.shape[1] == codes.num_frames + 75
    np.testing.assert_array_equal(indices[:, : codes.num_frames], codes.indices)
    end = codes.duration / 2
    gap = ("--from", 0, "--to", end)
    assert run("generate", filled, "--infill", tmp_path / "a.wav", *gap, *steps).code == 0
    indices = Codes.load(filled).indices
    rest = int(np.ceil(end * 75)) + 1
    np.testing.assert_array_equal(indices[:, rest:], codes.indices[:, rest:])


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--seconds", 1, "--prompt", "a.codes", "--continue", 1),
        ("--prompt", "a.codes"),
        ("--seconds", 1, "--continue", 1),
        ("--infill", "a.codes", "--from", 1),
        ("--seconds", 1, "--steps", 0),
        ("--seconds", 1, "--temperature", -1),
        ("--seconds", 0),
        ("--prompt", "missing.codes", "--continue", 1),
    ],
)
def test_other_generate_options_are_refused(run, tmp_path: Path, options) -> None:
    result = run("generate", tmp_path / "b.wav", *options)
    assert result.code == 1
    assert len(result.errors.splitlines()) == 1
    assert not (tmp_path / "b.wav").exists()

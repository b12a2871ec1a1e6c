"""``--codebook``: encode, decode and info with a nested codebook."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from nested_books import install_books


@pytest.fixture(autouse=True)
def books(small, monkeypatch: pytest.MonkeyPatch):
    return install_books(monkeypatch, small.codec.codes_id)


def test_codes_carry_their_codebook(run, make_audio, books, tmp_path: Path) -> None:
    make_audio(tmp_path / "a.wav")
    codes, decoded = tmp_path / "a.codes", tmp_path / "b.wav"
    assert run("encode", tmp_path / "a.wav", codes, "--codebook", 64).code == 0
    assert run("decode", codes, decoded).code == 0
    assert decoded.stat().st_size == (tmp_path / "a.wav").stat().st_size
    facts = json.loads(run("info", codes, "--json").output)
    assert (facts["codebook_size"], facts["codes_id"]) == (64, books[0].codes_id)
    assert (facts["model"], facts["bits_per_code"]) == ("small", 6)
    assert "small, nested codes" in run("info", codes).text


def test_bare_indices(run, make_audio, tmp_path: Path) -> None:
    make_audio(tmp_path / "a.wav")
    tokens = tmp_path / "a.npy"
    assert run("encode", tmp_path / "a.wav", tokens, "--codebook", 16).code == 0
    assert np.load(tokens).max() < 16
    first, second = tmp_path / "b.wav", tmp_path / "c.wav"
    assert run("decode", tokens, first, "--codebook", 16).code == 0
    assert run("decode", tokens, second).code == 0
    # Without its codebook they mean something else.
    assert first.read_bytes() != second.read_bytes()


def test_folders(run, make_audio, tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_audio(tmp_path / "in" / f"{name}.wav")
    assert run("encode", tmp_path / "in", tmp_path / "codes", "--codebook", 64).code == 0
    assert run("decode", tmp_path / "codes", tmp_path / "out").code == 0
    assert len(list((tmp_path / "out").glob("*.wav"))) == 2


def test_refusals(run, make_audio, tmp_path: Path) -> None:
    make_audio(tmp_path / "a.wav")
    files = tmp_path / "a.wav", tmp_path / "a.codes"
    run("encode", *files, "--codebook", 100).assert_refused("there are 64, 16")
    run("encode", *files, "--codebook", 64, "--kbps", 0.5).assert_refused("fixed bit rate")
    assert not files[1].exists()

"""``decode --start --end``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture
def coded(run, small, make_audio, tmp_path: Path) -> Path:
    make_audio(tmp_path / "a.wav", seconds=2.0, channels=2)
    for name in ("a.codes", "a.npy"):
        assert run("encode", tmp_path / "a.wav", tmp_path / name).code == 0
    return tmp_path


@pytest.mark.parametrize("name", ["a.codes", "a.npy"])
def test_a_part_is_a_slice_of_the_whole(run, coded: Path, name: str) -> None:
    assert run("decode", coded / name, coded / "whole.wav").code == 0
    ended = run("decode", coded / name, coded / "part.wav", "--start", 0.5, "--end", 1.25, "--json")
    assert json.loads(ended.output)["seconds"] == 0.75
    whole, rate = soundfile.read(coded / "whole.wav", dtype="int16")
    part, _ = soundfile.read(coded / "part.wav", dtype="int16")
    assert part.shape == (round(0.75 * rate), 2)
    np.testing.assert_allclose(part, whole[round(0.5 * rate) :][: len(part)], atol=1)


def test_pipes(run, coded: Path) -> None:
    data = (coded / "a.codes").read_bytes()
    ended = run("decode", "-", "-", "--start", 1.5, stdin=data)
    assert ended.code == 0
    assert ended.output[:4] == b"RIFF"
    assert "from 1.5 s on" in ended.errors


def test_refusals(run, coded: Path) -> None:
    out = coded / "part.wav"
    run("decode", coded / "a.codes", out, "--start", 3).assert_refused("cannot begin at 3 s")
    run("decode", coded / "a.codes", out, "--start", 1, "--end", 1).assert_refused("nothing from")
    run("decode", coded, coded / "out", "--start", 1).assert_refused("a single file")
    run("decode", coded / "a.wav", out, "--end", 1).assert_refused("not a .codes file")
    assert not out.exists()

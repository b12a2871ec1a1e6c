"""``plot``: one recording beside its decoded file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from simvq_audio.evaluation.report.comparison_plot import pair_figure, read_pair
from simvq_audio.evaluation.report.spectra import spectrogram

pytest.importorskip("matplotlib")

MAGIC = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


@pytest.mark.parametrize("suffix", MAGIC)
def test_formats(tmp_path: Path, run, make_audio, suffix: str) -> None:
    make_audio(tmp_path / "a.wav")
    make_audio(tmp_path / "b.wav")
    target = tmp_path / f"c{suffix}"
    ended = run("plot", tmp_path / "a.wav", tmp_path / "b.wav", "--output", target)
    assert (ended.code, ended.errors) == (0, "") and str(target) in ended.text
    assert target.read_bytes().startswith(MAGIC[suffix])
    refused = run("plot", tmp_path / "a.wav", tmp_path / "b.wav", "-o", target)
    refused.assert_refused("exists; --force overwrites it")
    assert run("plot", tmp_path / "a.wav", tmp_path / "b.wav", "-o", target, "-f").code == 0


def test_the_picture_stands_beside_out(tmp_path: Path, run, make_audio) -> None:
    make_audio(tmp_path / "a.wav")
    make_audio(tmp_path / "decoded" / "b.wav")
    assert run("plot", tmp_path / "a.wav", tmp_path / "decoded" / "b.wav").code == 0
    assert {each.name for each in (tmp_path / "decoded").iterdir()} == {"b.wav", "b.png"}


def test_rates_lengths_and_channels_are_told(tmp_path: Path, run, make_audio) -> None:
    make_audio(tmp_path / "a.wav", 0.5, 16_000)
    make_audio(tmp_path / "b.wav", 0.4, 24_000, 2)
    ended = run("plot", tmp_path / "a.wav", tmp_path / "b.wav", "-o", tmp_path / "c.png")
    assert ended.code == 0
    assert "resampled from 24000 to 16000 Hz" in ended.text
    assert "0.500 and 0.400 s long" in ended.text
    assert "mean of its 2 channels" in ended.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.wav", "b.wav", "-o", "c.png"], "none.wav: cannot be read (No such file"),
        (["a.wav", "none.wav", "-o", "c.png"], "none.wav: cannot be read (No such file"),
        (["a.wav", "b.wav", "-o", "c.jpg"], "c.jpg: pictures are written as .png, .svg, .pdf"),
        (["a.wav", "b.wav", "-o", "c"], "pictures are written as"),
        (["a.wav", "b.wav", "-o", "none/c.png"], "none: no such folder"),
        (["a.wav", "text.png", "-f"], "IN and OUT are the same path"),
        (["a.wav", "text.txt", "-o", "c.png"], "text.txt: is not audio"),
        (["a.wav", "empty.wav", "-o", "c.png"], "empty.wav: holds no samples"),
    ],
)
def test_mistakes(
    tmp_path: Path, run, make_audio, monkeypatch, arguments: list[str], words: str
) -> None:
    make_audio(tmp_path / "a.wav")
    make_audio(tmp_path / "b.wav")
    (tmp_path / "text.txt").write_text("no sound")
    (tmp_path / "text.png").write_text("no sound")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    before = {each.name for each in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    run("plot", *arguments).assert_refused(words)
    assert {each.name for each in tmp_path.iterdir()} == before


def test_without_matplotlib(tmp_path: Path, run, make_audio, monkeypatch) -> None:
    make_audio(tmp_path / "a.wav")
    make_audio(tmp_path / "b.wav")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    ended = run("plot", tmp_path / "a.wav", tmp_path / "b.wav")
    ended.assert_refused("pip install 'simvq-audio[eval]'")


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100])
def test_spectrogram_of_a_sine(rate: int) -> None:
    time = np.arange(rate) / rate
    levels = spectrogram(0.5 * np.sin(2 * np.pi * 1000 * time), rate)
    bins, columns = levels.shape
    # A second in steps of 8 ms; 1000 Hz as a share of half the rate; half of full scale.
    assert columns == 125
    middle = levels[:, 20:-20]
    assert np.allclose(middle.argmax(0) / (bins - 1) * rate / 2, 1000, atol=20)
    assert np.allclose(middle.max(0), 20 * np.log10(0.5), atol=1.5)
    assert middle[int(bins * 0.9)].max() < -60


def test_the_difference_is_that_of_the_levels(tmp_path: Path) -> None:
    """A copy of a tenth of the amplitude lies 20 dB lower, wherever there is sound."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    soundfile.write(tmp_path / "a$x$.wav", noise, 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", 0.1 * noise[:12_000], 16_000, subtype="FLOAT")
    figure = pair_figure(read_pair(tmp_path / "a$x$.wav", tmp_path / "b.wav"))
    titles = [axes.get_title() for axes in figure.axes]
    assert "original: a$x$.wav" in titles
    difference = next(axes for axes in figure.axes if "difference" in axes.get_title())
    drawn = np.ma.filled(difference.images[0].get_array().astype(float), np.nan)
    columns = drawn.shape[1]
    # Not where the shorter one has ended, and away from its edge.
    assert np.isnan(drawn[:, int(columns * 0.76) :]).all()
    inside = drawn[:, 5 : int(columns * 0.7)]
    # But for the few points that are too quiet to be drawn.
    assert np.isclose(inside, -20, atol=0.01).mean() > 0.995
    assert inside.max() < -15

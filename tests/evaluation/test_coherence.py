"""Coherence of a decoder's phases: closed forms, and the recipe that prints them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from signals import noise, speech

from simvq_audio.errors import ConfigError
from simvq_audio.evaluation.coherence import band_coherence
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.frames import FramedStft

HELLO = Path(__file__).parents[2] / "examples" / "hello.wav"


@pytest.fixture
def with_spectrum(model, monkeypatch):
    """The small model, with a head that asks for a function of the original's spectra."""

    def made(recording: np.ndarray, change) -> Autoencoder:
        head = model.decoder.head
        istft = head.istft
        spectra = FramedStft(istft.n_fft, istft.hop_length)(torch.from_numpy(recording)[None])
        monkeypatch.setattr(head, "forward", lambda x, mask=None: istft(change(spectra), mask))
        return model

    return made


def test_the_originals_spectra_lose_nothing(with_spectrum):
    recording = speech(24_000)
    for band in band_coherence(with_spectrum(recording, lambda x: x), [recording]):
        assert band.asked == pytest.approx(0, abs=1e-4)
        assert band.kept == pytest.approx(0, abs=0.1)
        assert band.phase_advance == pytest.approx(1, abs=1e-4)


def test_random_phases_cancel_in_the_overlap_add(with_spectrum):
    """Nothing else is lost: magnitudes are the original's, times two."""
    recording = noise(48_000)
    generator = torch.Generator().manual_seed(0)

    def scrambled(spectra):
        phases = 2 * torch.pi * torch.rand(spectra.shape, generator=generator)
        return torch.polar(2 * spectra.abs(), phases)

    for band in band_coherence(with_spectrum(recording, scrambled), [recording]):
        assert band.asked == pytest.approx(20 * np.log10(2), abs=1e-3)
        assert band.phase_advance == pytest.approx(0, abs=0.1)
        assert 1 < band.lost < 10


def test_what_cannot_be_measured_is_refused(model):
    with pytest.raises(ConfigError, match="silent"):
        band_coherence(model, [np.zeros(4_000, np.float32)])
    with pytest.raises(ConfigError, match="rise by a bin"):
        band_coherence(model, [], [100.0, 101.0])


def test_the_recipe_prints_a_row_a_band(model_file, monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(HELLO.parents[1] / "recipes"))
    coherence = pytest.importorskip("coherence")
    assert coherence.main([str(HELLO.parent), "--model", str(model_file), "--device", "cpu"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 + 6
    assert rows[2].startswith("80 to 140")
    assert coherence.main([str(tmp_path)]) == 1
    assert "holds no recording" in capsys.readouterr().err
    sys.modules.pop("coherence", None)

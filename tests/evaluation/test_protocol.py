"""Preparation of signals by the two protocols."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import soundfile
import torch
from signals import noise, speech

from simvq_audio.audio import resample
from simvq_audio.errors import ConfigError
from simvq_audio.evaluation.protocol import DEFAULT, SIMVQ, ScoringProtocol, find_protocol
from simvq_audio.evaluation.trial import Trial


def test_the_default_clips_to_full_scale_and_resamples_by_this_package():
    sound = speech(24_000)
    assert np.array_equal(DEFAULT.prepare(sound), sound)
    assert np.array_equal(DEFAULT.prepare(np.float32([-2, 0.5, 3])), np.float32([-1, 0.5, 1]))
    expected = resample(sound[None], 24_000, 16_000)[0]
    assert np.array_equal(DEFAULT.resample(sound, 24_000, 16_000), expected)
    # As does a trial that names no protocol.
    assert np.array_equal(Trial(sound, sound, 24_000).at(16_000)[0], expected)


def test_simvq_gives_what_a_16_bit_file_holds(tmp_path):
    sound = 12 * noise(5000)
    prepared = SIMVQ.prepare(sound)
    assert prepared.dtype == np.float32
    clipped = np.clip(sound, -0.99, 0.99)
    assert np.abs(sound).max() > 1 and np.abs(prepared).max() <= 0.99001
    soundfile.write(tmp_path / "between.wav", clipped, 24_000, subtype="PCM_16")
    read, _ = soundfile.read(tmp_path / "between.wav", dtype="float32")
    # Programs differ in whether full scale is 32767 or 32768.
    assert np.abs(prepared - read).max() <= 1.01 / 32768
    soundfile.write(tmp_path / "again.wav", prepared, 24_000, subtype="PCM_16")
    again, _ = soundfile.read(tmp_path / "again.wav", dtype="float32")
    assert np.abs(prepared - again).max() <= 1.01 / 32768
    assert np.array_equal(prepared * 32768, np.rint(prepared * 32768))
    whole = ScoringProtocol("x", resampler="soxr", limit=1.0, pcm16=True)
    assert whole.prepare(np.float32([1, -1])).tolist() == [32767 / 32768, -1]


def test_simvq_resamples_as_torchaudio():
    torchaudio = pytest.importorskip("torchaudio")
    sound = speech(24_000)
    sound.flags.writeable = False
    expected = torchaudio.functional.resample(torch.from_numpy(sound.copy()), 24_000, 16_000)
    found = SIMVQ.resample(sound, 24_000, 16_000)
    assert np.array_equal(found, expected.numpy())
    assert np.abs(found - DEFAULT.resample(sound, 24_000, 16_000)).max() > 1e-4


def test_protocols_travel_to_workers_and_have_names():
    assert pickle.loads(pickle.dumps(SIMVQ)) == SIMVQ == find_protocol("simvq")
    assert find_protocol("default") is DEFAULT
    with pytest.raises(ConfigError, match="no protocol simvk; there are default, simvq"):
        find_protocol("simvk")
    with pytest.raises(ConfigError, match="must be one of soxr, torchaudio"):
        ScoringProtocol("x", resampler="sox", limit=1, pcm16=False)
    with pytest.raises(ConfigError, match="limit must be above 0"):
        ScoringProtocol("x", resampler="soxr", limit=1.2, pcm16=False)

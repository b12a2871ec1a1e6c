"""Repair of lost codes, and generation, by ``Codec`` with a small random prior."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nested_books import install_books
from random_masked import install_masked_prior

from simvq_audio.codec.generation import continue_codes, generate, infill
from simvq_audio.codec.repair import simulated_loss
from simvq_audio.errors import CodesError, ConfigError
from simvq_audio.prior.masked.filling import fill
from simvq_audio.prior.masked.sampling import Sampling

FAST = Sampling(steps=2)


@pytest.fixture(autouse=True)
def prior(monkeypatch, tmp_path, codec):
    return install_masked_prior(monkeypatch, tmp_path, codec.codes_id)


def speech(codec, frames: int, channels: int = 1, seed: int = 0):
    rng = np.random.default_rng(seed)
    return codec.codes_from_indices(rng.integers(0, 512, (channels, frames)))


def test_lost_codes_are_replaced_whatever_stands_there(codec):
    codes = speech(codec, 120, channels=2)
    lost = np.random.default_rng(1).random((2, 120)) < 0.3
    repaired = codec.repair(codes, lost)
    np.testing.assert_array_equal(repaired.indices[~lost], codes.indices[~lost])
    assert (repaired.indices != codes.indices)[lost].any()
    garbled = codes.indices.copy()
    garbled[lost] = 511
    other = codec.codes_from_indices(garbled)
    assert codec.repair(other, lost) == repaired
    assert torch.equal(codec.decode(other, lost=lost), codec.decode(codes, lost=lost))


def test_one_mask_is_for_all_channels(codec):
    codes, lost = speech(codec, 60, channels=2), np.arange(60) % 5 == 0
    assert codec.repair(codes, lost) == codec.repair(codes, np.stack([lost, lost]))


def test_lost_frames_are_decoded_from_expected_vectors(codec, prior):
    codes, lost = speech(codec, 90), np.zeros((1, 90), bool)
    lost[0, [30, 31, 60]] = True
    codebook = codec.codebook()
    latents = codebook[codes.indices]
    latents[lost] = fill(prior, torch.from_numpy(codebook), codes.indices, lost).latents
    with torch.inference_mode():
        expected = codec._model.decode_latent(torch.from_numpy(latents).transpose(1, 2))
    found = codec.decode(codes, lost=lost)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_nothing_lost_changes_nothing(codec, tmp_path):
    codes, none = speech(codec, 70), np.zeros(70, bool)
    assert codec.repair(codes, none) == codes
    np.testing.assert_allclose(codec.decode(codes, lost=none), codec.decode(codes), atol=1e-5)


def test_everything_lost_and_nothing_there(codec):
    codes = speech(codec, 70)
    assert codec.decode(codes, lost=np.ones(70, bool)).shape == codec.decode(codes).shape
    empty = speech(codec, 0)
    assert codec.repair(empty, np.zeros(0, bool)) == empty
    assert codec.decode(empty, lost=np.zeros(0, bool)).shape == (1, 0)


def test_rate_and_length_are_kept(codec):
    waveform = 0.1 * np.random.default_rng(0).standard_normal((1, 5001)).astype("f4")
    codes = codec.encode(waveform, 16_000)
    lost = simulated_loss(codes.num_frames, 0.3, 2)
    assert codec.decode(codes, lost=lost).shape == (1, 5001)
    native = codec.decode(codes, lost=lost, native_rate=True)
    assert native.shape == codec.decode(codes, native_rate=True).shape


def test_pieces_do_not_matter(codec):
    codes = speech(codec, 400)
    lost = simulated_loss(400, 0.2, 3)
    whole = codec.decode(codes, lost=lost)
    pieces = codec.with_batch_seconds(1.0).decode(codes, lost=lost)
    np.testing.assert_allclose(pieces, whole, atol=1e-4)


def test_nested_codes_are_repaired_by_their_entries(codec, monkeypatch):
    book = install_books(monkeypatch, codec.codes_id)[0]
    small = codec.with_codebook(book.size)
    codes = small.codes_from_indices(np.random.default_rng(0).integers(0, 64, (1, 80)))
    lost = simulated_loss(80, 0.3)
    repaired = codec.repair(codes, lost)
    assert repaired.codes_id == book.codes_id
    assert repaired == small.repair(codes, lost)
    np.testing.assert_array_equal(repaired.indices[0][~lost], codes.indices[0][~lost])
    found = codec.decode(codes, lost=lost)
    np.testing.assert_allclose(found, small.decode(codes, lost=lost), atol=1e-5)


@pytest.mark.parametrize(
    "lost", [np.zeros(9, bool), np.zeros((2, 10), bool), np.zeros(10, int), [[True]], None]
)
def test_other_masks_are_refused(codec, lost):
    with pytest.raises(CodesError, match="lost must be bool"):
        codec.repair(speech(codec, 10), lost)


def test_a_part_with_lost_frames_is_refused(codec):
    with pytest.raises(ConfigError, match="whole"):
        codec.decode(speech(codec, 100), lost=np.zeros(100, bool), start=0.5)


def test_without_a_prior_it_says_so(codec, monkeypatch):
    monkeypatch.setattr("simvq_audio.prior.masked._headers", list)
    with pytest.raises(ConfigError, match="no masked prior"):
        codec.repair(speech(codec, 10), np.ones(10, bool))
    with pytest.raises(ConfigError, match="no masked prior"):
        generate(codec, 1.0)


def test_simulated_loss_has_its_share_and_bursts():
    lost = simulated_loss(30_000, 0.2, 6, seed=2)
    assert abs(lost.mean() - 0.2) < 0.02
    assert all(len(set(lost[i : i + 6])) == 1 for i in range(0, 30_000, 6))
    np.testing.assert_array_equal(lost, simulated_loss(30_000, 0.2, 6, seed=2))
    assert not simulated_loss(10, 0.0).any()
    assert simulated_loss(10, 1.0, 3).all()
    for share, burst in ((1.1, 1), (0.1, 0)):
        with pytest.raises(ConfigError):
            simulated_loss(10, share, burst)


def test_generated_speech_has_its_length_and_seed(codec):
    codes = generate(codec, 0.5, seed=1, how=FAST)
    assert codes.num_frames == 38
    assert generate(codec, 0.5, seed=1, how=FAST) == codes
    assert generate(codec, 0.5, seed=2, how=FAST) != codes
    for seconds in (0, -1, 1e9, float("nan")):
        with pytest.raises(ConfigError):
            generate(codec, seconds)


def test_a_continuation_begins_with_its_prompt(codec):
    prompt = speech(codec, 50, channels=2)
    codes = continue_codes(codec, prompt, 1.0, how=FAST)
    assert codes.indices.shape == (2, 125)
    np.testing.assert_array_equal(codes.indices[:, :50], prompt.indices)


def test_an_infill_keeps_both_sides(codec):
    codes = speech(codec, 150)
    filled = infill(codec, codes, 0.4, 0.8, how=FAST)
    np.testing.assert_array_equal(filled.indices[:, :30], codes.indices[:, :30])
    np.testing.assert_array_equal(filled.indices[:, 60:], codes.indices[:, 60:])
    assert (filled.indices != codes.indices)[:, 30:60].any()
    with pytest.raises(ConfigError):
        infill(codec, codes, 1.5, 1.0)

"""``encode(..., kbps=...)``: the rate asked for, from codes that any decoder takes."""

from __future__ import annotations

import numpy as np
import pytest
from random_prior import DILATIONS, only_prior, random_tensors

import simvq_audio.codec.cheaper
from simvq_audio.codec import Codec
from simvq_audio.codec.cheaper import CheaperStream
from simvq_audio.errors import ConfigError
from simvq_audio.prior import save_prior

RATE = 24_000
NOISE = 0.1 * np.random.default_rng(0).standard_normal((2, 30_000)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def prior(codec: Codec, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("prior") / "random.safetensors"
    save_prior(path, random_tensors(), codec.codes_id, DILATIONS)
    with only_prior(path) as found:
        yield found


def coded_kbps(codes) -> float:
    data = codes.to_bytes()
    assert data[5] == 1
    return 8 * (len(data) - 32) / codes.duration / 1000


def test_the_rate_is_reached(codec: Codec) -> None:
    best = codec.encode(NOISE, RATE)
    codes = codec.encode(NOISE, RATE, kbps=1.0)
    assert 0.9 < coded_kbps(codes) <= 1.0
    assert codes.num_frames == best.num_frames
    assert codec.decode(codes).shape == NOISE.shape


def test_less_rate_is_further_from_the_latents(codec: Codec) -> None:
    best, near, far = (codec.encode(NOISE, RATE, kbps=kbps) for kbps in (None, 1.1, 0.95))
    changed = [(codes.indices != best.indices).mean() for codes in (near, far)]
    assert 0 < changed[0] < changed[1]


def test_enough_rate_gives_the_best_codes(codec: Codec) -> None:
    assert codec.encode(NOISE, RATE, kbps=50.0) == codec.encode(NOISE, RATE)


def test_pieces_are_whole(codec: Codec) -> None:
    pieces = (NOISE.T[start : start + 700] for start in range(0, NOISE.shape[1], 700))
    streamed = codec.encode_stream(pieces, RATE, 2, kbps=1.0)
    assert streamed == codec.encode(NOISE, RATE, kbps=1.0)


def test_a_long_recording_is_brought_to_the_rate_piece_by_piece(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simvq_audio.codec.cheaper, "_GROUP_BLOCKS", 1)
    rng = np.random.default_rng(1)
    # The middle is easy: what it leaves goes to the end.
    loud = [0.3 * rng.standard_normal(15 * RATE), np.zeros(15 * RATE)]
    noise = np.concatenate([*loud, loud[0]]).astype(np.float32)
    codes = codec.encode(noise, RATE, kbps=0.45)
    assert 0.43 < coded_kbps(codes) <= 0.45
    assert codec.decode(codes).shape == (1, len(noise))


def test_a_stream_holds_no_more_than_two_groups(codec: Codec, monkeypatch) -> None:
    monkeypatch.setattr(simvq_audio.codec.cheaper, "_GROUP_BLOCKS", 1)
    stream = CheaperStream(codec._cheaper(0.7), 1, 75.0)
    held = []
    for _ in range(20):
        stream.push([np.zeros((1, 8, 300), np.float32)], np.zeros((1, 300), np.int32))
        held.append(sum(piece.shape[2] for piece in stream._latents))
    assert max(held) < 1500
    assert stream.finish(80.0).shape == (1, 6000)


def test_a_batch_reaches_the_rate_in_each(codec: Codec) -> None:
    waveforms = [NOISE[0, :14_000], NOISE, NOISE[1, :20_000], NOISE[:, :0]]
    batch = codec.encode_batch(waveforms, RATE, kbps=0.5)
    for waveform, codes in zip(waveforms[:3], batch):
        channels = 1 if waveform.ndim == 1 else 2
        assert codes.channels == channels
        assert 0.43 < coded_kbps(codes) <= 0.5
    assert batch[3].num_frames == 0


def test_refusals(codec: Codec, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be coded at 0\.01 kbit/s; the least is"):
        codec.encode(NOISE, RATE, kbps=0.01)
    path = tmp_path / "other.safetensors"
    save_prior(path, random_tensors(), "ba9876543210", DILATIONS)
    with only_prior(path), pytest.raises(ConfigError, match="has no prior"):
        codec.encode(NOISE, RATE, kbps=1.0)


def test_nothing_recorded(codec: Codec) -> None:
    empty = np.empty((1, 0), np.float32)
    assert codec.encode(empty, RATE, kbps=1.0) == codec.encode(empty, RATE)

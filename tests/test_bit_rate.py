"""``encode(..., kbps=...)``: the rate asked for, from codes that any decoder takes."""

from __future__ import annotations

import numpy as np
import pytest
from random_prior import DILATIONS, only_prior, random_tensors

from simvq_audio.codec import Codec
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

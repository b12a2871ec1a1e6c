"""Recordings in pieces: for any cutting the codes and samples of the whole, within the latency."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simvq_audio.audio import resampling_latency
from simvq_audio.codec import Codec
from simvq_audio.errors import AudioError, CodesError

# Rates that soxr converts in blocks of different sizes, and some that no device has.
RATES = st.sampled_from([8000, 16_000, 22_050, 24_000, 44_100, 48_000]) | st.integers(6000, 50_000)
# Lengths of pieces in ms: much shorter than a frame, and longer than what is held back.
PIECES = st.lists(st.sampled_from([0.0, 0.1, 1.0, 5.0, 13.4, 40.0, 200.0, 700.0]), max_size=12)


def noise(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((channels, samples)).astype("f4")


def cut(array: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
    """Pieces of these lengths, and the rest."""
    places = np.cumsum(lengths)
    return np.split(array, places[places < array.shape[1]], axis=1)


@given(
    rate=RATES,
    channels=st.integers(1, 3),
    milliseconds=st.integers(0, 1500),
    pieces=PIECES,
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_codes_of_any_pieces_are_those_of_the_whole(
    codec, rate, channels, milliseconds, pieces, seed
):
    waveform = noise(channels, rate * milliseconds // 1000, seed)
    whole = codec.encode(waveform, rate)
    encoder = codec.encoder(rate, channels)
    found = [
        encoder.push(piece) for piece in cut(waveform, [int(rate * ms / 1000) for ms in pieces])
    ]
    found.append(encoder.finish())
    assert {part.dtype for part in found} == {np.dtype(np.int32)}
    assert np.array_equal(np.concatenate(found, axis=1), whole.indices)
    assert (encoder.num_samples, encoder.num_frames) == (whole.num_samples, whole.num_frames)


@given(
    rate=RATES,
    channels=st.integers(1, 3),
    frames=st.integers(0, 120),
    pieces=st.lists(st.integers(0, 40), max_size=12),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_samples_of_any_pieces_are_those_of_the_whole(codec, rate, channels, frames, pieces, seed):
    # The length of a recording whose last frame is partly filled.
    waveform = noise(channels, max(0, frames * rate // 75 - 7), seed)
    codes = codec.encode(waveform, rate)
    decoder = codec.decoder(rate, channels)
    found = [decoder.push(piece) for piece in cut(codes.indices, pieces)]
    found.append(decoder.finish(codes.num_samples))
    assert {part.dtype for part in found} == {np.dtype(np.float32)}
    together = torch.from_numpy(np.concatenate(found, axis=1))
    torch.testing.assert_close(together, codec.decode(codes), atol=0, rtol=0)
    assert (decoder.num_samples, decoder.num_frames) == (codes.num_samples, codes.num_frames)


def test_a_recurrent_encoder_streams_too(published_codec):
    waveform = noise(2, 30_000)
    encoder = published_codec.encoder(24_000, 2)
    found = [encoder.push(piece) for piece in cut(waveform, [1, 319, 5000, 0, 320 * 8])]
    found.append(encoder.finish())
    assert np.array_equal(
        np.concatenate(found, axis=1), published_codec.encode(waveform, 24_000).indices
    )


@pytest.fixture(scope="module")
def published_codec(published_file) -> Codec:
    return Codec.load(published_file, device="cpu")


def test_a_buffer_may_be_used_again(codec):
    waveform = noise(1, 24_000)
    encoder, buffer, found = codec.encoder(24_000), np.empty(100, np.float32), []
    for start in range(0, 24_000, 100):
        buffer[:] = waveform[0, start : start + 100]
        found.append(encoder.push(buffer))
    buffer[:] = np.nan
    found.append(encoder.finish())
    assert np.array_equal(np.concatenate(found, axis=1), codec.encode(waveform, 24_000).indices)


@pytest.mark.parametrize("rate", [8000, 24_000, 44_100])
def test_an_impulse_comes_out_after_the_latency(codec, rate):
    """Through encoder and decoder in steps of 2 ms, an impulse keeps to what both state."""
    step = rate // 500
    at = rate  # the impulse comes in after a second
    waveform = np.zeros((1, 3 * rate), np.float32)
    waveform[0, at] = 0.9
    encoder, decoder = codec.encoder(rate), codec.decoder(rate)
    frame_out: list[float] = []  # when each frame came out
    sample_out = 0.0  # when the sample at the impulse's place came out
    for start in range(0, waveform.shape[1], step):
        now = (start + step) / rate
        codes = encoder.push(waveform[:, start : start + step])
        frame_out += [now] * codes.shape[1]
        before = decoder.num_samples
        decoder.push(codes)
        if before <= at < decoder.num_samples:
            sample_out = now
    # The codes that tell of the impulse: the first that differ from those of silence.
    silence = codec.encode(np.zeros_like(waveform), rate).indices
    changed = np.flatnonzero(codec.encode(waveform, rate).indices[0] != silence[0])
    frame = at * 75 // rate
    assert changed[0] <= frame <= changed[-1]
    # Each frame waits from its first sample on; the latest of them as long as is stated.
    waits = [1000 * (out - index / 75) for index, out in enumerate(frame_out)]
    assert encoder.latency_ms - 15 < max(waits) <= encoder.latency_ms + 2
    whole = 1000 * (sample_out - at / rate)
    assert whole <= encoder.latency_ms + decoder.latency_ms + 2
    # Blocks of the resamplers may end just at the impulse, so this is not sharp.
    resampling = 1000 * (resampling_latency(rate, 24_000) + resampling_latency(24_000, rate))
    assert whole >= encoder.latency_ms + decoder.latency_ms - resampling - 1000 / 75 - 2
    # The embedded kind: 6 blocks of 7 frames would be 18; this model has 2, and its STFT 2.
    assert codec.encoder(24_000).latency_ms == pytest.approx(1000 * (1 + 8) / 75)


def test_latency_without_look_ahead_is_a_frame(published_codec):
    # The reflection at the beginning makes the first frame wait for six others.
    assert published_codec.encoder(24_000).latency_ms == pytest.approx(1000 * 7 / 75)


def test_pieces_that_do_not_fit_are_refused(codec):
    encoder = codec.encoder(16_000, 2)
    for wrong, words in [
        (noise(1, 10), "1 channels, not 2"),
        (np.zeros((2, 10), np.int16), "floating point"),
        (np.full((2, 3), np.nan, np.float32), "nan at sample 0"),
    ]:
        with pytest.raises(AudioError, match=words):
            encoder.push(wrong)
    # What was refused is not part of the recording.
    encoder.push(noise(2, 100))
    encoder.finish()
    assert encoder.num_samples == 100
    for late in (lambda: encoder.push(noise(2, 1)), encoder.finish):
        with pytest.raises(AudioError, match="was finished"):
            late()
    decoder = codec.decoder(channels=2)
    for wrong, words in [
        (np.zeros(4, int), "of the shape"),
        (np.zeros((2, 4)), "integers"),
        (np.full((2, 4), 512), "512 entries"),
        (np.full((2, 4), -1), "from -1"),
    ]:
        with pytest.raises(CodesError, match=words):
            decoder.push(wrong)
    decoder.push(np.zeros((2, 4), np.uint8))
    with pytest.raises(CodesError, match="make 3 frames, 4 were decoded"):
        decoder.finish(900)
    assert decoder.finish(1200).shape[1] + decoder.num_samples >= 1200
    for late in (lambda: decoder.push(np.zeros((2, 1), int)), decoder.finish):
        with pytest.raises(CodesError, match="was finished"):
            late()


@pytest.mark.parametrize("channels", [0, 256, 1.5, "2"])
def test_impossible_channels_are_refused(codec, channels):
    for make in (
        lambda: codec.encoder(24_000, channels),
        lambda: codec.decoder(24_000, channels),
    ):
        with pytest.raises(AudioError):
            make()

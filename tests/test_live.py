"""Packets of live recordings: the codes and samples of the whole, and what damage leaves."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simvq_audio.bitstream.framed import Frames, PacketReader, PacketWriter, StreamHead
from simvq_audio.codec.live import MAX_GAP_FRAMES, PacketDecoder, PacketEncoder
from simvq_audio.errors import CodesError


def noise(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((channels, samples)).astype("f4")


def coded(codec, waveform: np.ndarray, rate: int, **options: object) -> list[bytes]:
    encoder = PacketEncoder(codec, rate, len(waveform), **options)  # type: ignore[arg-type]
    return [encoder.push(waveform), encoder.finish()]


def split(data: bytes) -> list[bytes]:
    """Whole packets, one by one."""
    parts, reader, start = [], PacketReader(), 0
    for end in range(1, len(data) + 1):
        if reader.push(data[end - 1 : end]):
            parts.append(data[start:end])
            start = end
    return parts


def decoded(codec, data: bytes, **options: bool) -> tuple[PacketDecoder, np.ndarray]:
    decoder = PacketDecoder(codec, **options)
    return decoder, np.concatenate([decoder.push(data), decoder.finish()], axis=1)


@given(
    rate=st.sampled_from([8000, 16_000, 24_000, 44_100]),
    channels=st.integers(1, 3),
    milliseconds=st.integers(0, 900),
    pieces=st.lists(st.integers(0, 12_000), max_size=8),
    cuts=st.lists(st.integers(0, 4000), max_size=8),
    packet_ms=st.sampled_from([1, 40, 80, 500]),
    native=st.booleans(),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_pieces_give_what_the_whole_gives(
    codec, rate, channels, milliseconds, pieces, cuts, packet_ms, native
):
    waveform = noise(channels, rate * milliseconds // 1000)
    whole = codec.encode(waveform, rate)
    encoder = PacketEncoder(codec, rate, channels, packet_ms=packet_ms)
    places = np.cumsum(pieces)
    parts = np.split(waveform, places[places < waveform.shape[1]], axis=1)
    data = b"".join([*(encoder.push(part) for part in parts), encoder.finish()])
    assert encoder.num_bytes == len(data)
    # The packets do not depend on the pieces.
    assert data == b"".join(coded(codec, waveform, rate, packet_ms=packet_ms))
    decoder = PacketDecoder(codec, native_rate=native)
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    found = [decoder.push(data[a:b]) for a, b in itertools.pairwise(ends)]
    found.append(decoder.finish())
    assert decoder.problem is None
    expected = codec.decode(whole, native_rate=native).numpy()
    # How many channels there are is not known before the head has arrived.
    found = [np.empty((channels, 0)), *(part for part in found if part.size)]
    np.testing.assert_array_equal(np.concatenate(found, axis=1), expected)
    assert decoder.num_frames == whole.num_frames


@pytest.mark.parametrize("cut", [1, 10, 150, 500])
def test_a_stream_that_stops_is_decoded_as_far_as_it_goes(codec, cut):
    waveform = noise(1, 48_000)
    data = b"".join(coded(codec, waveform, 24_000))
    kept = data[:-cut]
    frames = sum(
        packet.body.count for packet in PacketReader().push(kept) if isinstance(packet.body, Frames)
    )
    decoder, samples = decoded(codec, kept)
    codes = codec.encode(waveform, 24_000)
    expected = codec.decode(codec.codes_from_indices(codes.indices[:, :frames])).numpy()
    np.testing.assert_array_equal(samples, expected)
    assert "stops before its end" in decoder.problem


def test_lost_doubled_and_damaged_packets_leave_the_others_in_place(codec):
    waveform = noise(2, 72_000)
    packets = split(b"".join(coded(codec, waveform, 24_000)))
    assert len(packets) == 40  # head, 225 frames in packets of 6, end
    whole = codec.encode(waveform, 24_000).indices.copy()
    changed = [*packets[:5], packets[4], *packets[6:20], packets[20][:-1], *packets[21:]]
    decoder, samples = decoded(codec, b"".join(changed))
    for lost in (4, 19):
        whole[:, 6 * lost : 6 * lost + 6] = whole[:, [6 * lost - 1]]
    expected = codec.decode(codec.codes_from_indices(whole)).numpy()
    np.testing.assert_array_equal(samples, expected)
    assert decoder.problem == (
        f"12 frames are missing and were made up; {len(packets[20]) - 1} bytes are damaged"
    )


def test_latency_says_when_a_packet_is_complete(codec):
    rate, step = 24_000, 48
    encoder = PacketEncoder(codec, rate, packet_ms=200)
    reader, waits = PacketReader(), []
    for start in range(0, 2 * rate, step):
        now = (start + step) / rate
        for packet in reader.push(encoder.push(noise(1, step, start))):
            if isinstance(packet.body, Frames):
                waits.append(1000 * (now - packet.body.first / 75))
    assert encoder.latency_ms - 15 < max(waits) <= encoder.latency_ms + 2


def test_what_is_no_stream_of_this_model_is_refused(codec):
    other = PacketWriter(StreamHead(1, "0123456789ab", 24_000, (512,)))
    fitting = PacketWriter(StreamHead(1, codec.codes_id, 999, (512,)))
    no_head = split(b"".join(coded(codec, noise(1, 24_000), 24_000)))[1:]
    for data, words in [
        (b"text", "is not a stream"),
        (codec.encode(noise(1, 999), 8000).to_bytes(), "is not a stream"),
        (other.head(), "these codes are 0123456789ab"),
        (fitting.head(), "sample rate of 999 Hz"),
        (b"".join(no_head), "does not begin with the head"),
    ]:
        with pytest.raises(CodesError, match=words):
            PacketDecoder(codec).push(data)
    for data, words in [(b"", "is empty"), (fitting.head()[:-1], "ends before the head")]:
        decoder = PacketDecoder(codec)
        decoder.push(data)
        with pytest.raises(CodesError, match=words):
            decoder.finish()


def test_a_forged_gap_makes_no_hours_of_audio(codec):
    writer = PacketWriter(StreamHead(1, codec.codes_id, 24_000, (512,)))
    head, first = writer.head(), writer.frames(np.zeros((1, 4), int))
    writer.num_frames = 2**31
    for last in (writer.frames(np.zeros((1, 4), int)), writer.end(2**39)):
        decoder, samples = decoded(codec, head + first + last)
        assert samples.shape == (1, 4 * 320)
        assert "too many to go on" in decoder.problem
    # The end may also disagree with what came before it.
    writer.num_frames = 4
    decoder, samples = decoded(codec, head + first + writer.end(2**39))
    assert samples.shape == (1, 4 * 320)
    assert "4 were decoded" in decoder.problem


def test_mutated_streams_end_in_samples_or_one_line(codec):
    rng = random.Random(7)
    good = b"".join(coded(codec, noise(1, 12_000), 16_000))
    packets = split(good)
    refused = sound = 0
    for _ in range(300):
        mixed = [bytearray(packet) for packet in packets]
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(mixed))
            kind = rng.choice(["swap", "drop", "double", "bytes", "cut"])
            if kind == "swap":
                rng.shuffle(mixed)
            elif kind == "drop":
                del mixed[place]
            elif kind == "double":
                mixed.insert(rng.randrange(len(mixed)), mixed[place])
            elif kind == "bytes":
                mixed[place][rng.randrange(len(mixed[place]))] = rng.randrange(256)
            else:
                del mixed[place][rng.randrange(len(mixed[place])) :]
            mixed = [packet for packet in mixed if packet] or [bytearray(packets[0])]
        try:
            decoder, samples = decoded(codec, b"".join(mixed))
        except CodesError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        sound += 1
        assert samples.shape[1] <= 12_000 + 16_000 * MAX_GAP_FRAMES / 75
        assert np.isfinite(samples).all()
        assert decoder.problem is None or "\n" not in decoder.problem
    assert refused > 30 and sound > 100

"""Datagrams: what is lost is repaired, what is late is waited for, and nothing crashes."""

from __future__ import annotations

import random
import socket
import struct
import zlib
from binascii import crc_hqx

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_masked import install_masked_prior

from simvq_audio.bitstream.framed import PacketWriter, StreamHead, parse_packet, split_packets
from simvq_audio.codec.datagrams import DatagramDecoder, DatagramEncoder
from simvq_audio.codec.live import MAX_GAP_FRAMES
from simvq_audio.errors import CodesError, ConfigError


@pytest.fixture(autouse=True)
def prior(monkeypatch, tmp_path, codec):
    return install_masked_prior(monkeypatch, tmp_path, codec.codes_id)


def noise(seconds: float, rate: int = 24_000, channels: int = 1) -> np.ndarray:
    samples = round(seconds * rate)
    return 0.1 * np.random.default_rng(0).standard_normal((channels, samples)).astype("f4")


def sent(codec, waveform, rate=24_000, **options) -> list[bytes]:
    encoder = DatagramEncoder(codec, rate, len(waveform), **options)
    return [*encoder.push(waveform), *encoder.finish()]


def received(codec, datagrams, **options) -> tuple[DatagramDecoder, np.ndarray]:
    decoder = DatagramDecoder(codec, **options)
    parts = [decoder.push(datagram) for datagram in datagrams]
    parts.append(decoder.finish())
    return decoder, np.concatenate([part for part in parts if part.size], axis=1)


def is_frames(datagram: bytes) -> bool:
    return datagram[3] == 1


@pytest.mark.parametrize(("rate", "channels"), [(24_000, 1), (16_000, 2)])
def test_without_loss_it_is_the_whole(codec, rate, channels):
    waveform = noise(1.7, rate, channels)
    datagrams = sent(codec, waveform, rate, head_every=3)
    decoder, samples = received(codec, datagrams)
    expected = codec.decode(codec.encode(waveform, rate))
    np.testing.assert_allclose(samples, expected, atol=1e-4)
    assert decoder.complete
    assert (decoder.lost_frames, decoder.skipped_frames) == (0, 0)


def test_pieces_do_not_change_the_datagrams(codec):
    waveform = noise(1.0)
    encoder = DatagramEncoder(codec, 24_000, head_every=4)
    pieces = [waveform[:, i : i + 700] for i in range(0, waveform.shape[1], 700)]
    found = [packet for piece in pieces for packet in encoder.push(piece)] + encoder.finish()
    assert found == sent(codec, waveform, head_every=4)
    assert sum(not is_frames(p) and p[3] == 0 for p in found) > 3


@given(seed=st.integers(0, 10_000), wait=st.sampled_from([80, 120, 400]))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_lost_repeated_and_reordered_packets(codec, seed, wait):
    rng = random.Random(seed)
    waveform = noise(2.0)
    datagrams = sent(codec, waveform)
    codes = codec.encode(waveform, 24_000)
    head, rest = datagrams[0], datagrams[1:]
    kept = [p for p in rest if not is_frames(p) or rng.random() > 0.2]
    lost = np.ones(codes.num_frames, bool)
    for packet in filter(is_frames, kept):
        body = parse_packet(packet).body
        lost[body.first : body.first + body.count] = False
    # Each packet is moved by at most one place, within the time that is waited.
    for i in range(rng.randrange(2), len(kept) - 3, 2):
        if rng.random() < 0.4:
            kept[i], kept[i + 1] = kept[i + 1], kept[i]
    arriving = [head, *(p for p in kept for _ in range(rng.choice([1, 1, 2])))]
    decoder, samples = received(codec, arriving, wait_ms=wait)
    assert decoder.lost_frames == lost.sum()
    assert decoder.complete
    assert samples.shape == (1, waveform.shape[1])
    # Far from losses it is what was sent.
    whole = codec.decode(codes).numpy()
    near = np.convolve(lost, np.ones(81), "same") > 0
    at = np.repeat(~near, codec.hop_length)[: samples.shape[1]]
    np.testing.assert_allclose(samples[:, at], whole[:, at], atol=1e-4)


def test_a_gap_is_repaired_from_what_follows_within_the_wait(codec):
    """With one gap, and all of the past and of the wait known, as ``decode`` with ``lost``."""
    waveform = noise(1.0)
    datagrams = sent(codec, waveform, packet_ms=40)
    frames = [p for p in datagrams if is_frames(p)]
    kept = [p for p in datagrams if p != frames[12]]
    decoder, samples = received(codec, kept, wait_ms=1000)
    lost = np.zeros(75, bool)
    lost[36:39] = True
    expected = codec.decode(codec.encode(waveform, 24_000), lost=lost)
    np.testing.assert_allclose(samples, expected, atol=1e-4)
    assert decoder.lost_frames == 3


def test_samples_come_as_soon_as_they_are_final(codec):
    datagrams = sent(codec, noise(2.0), packet_ms=40)
    decoder = DatagramDecoder(codec, wait_ms=120)
    count = 0
    ahead = codec.decoder().latency_ms / 1000 * 24_000
    for number, datagram in enumerate(p for p in datagrams[:-3] if p != datagrams[10]):
        count += decoder.push(datagram).shape[1]
        pushed = max(0, number - (number > 9)) * 960
        assert count >= pushed - ahead - 4 * 960  # the wait is 9 frames, and a packet was lost
    assert decoder.latency_ms == pytest.approx(codec.decoder().latency_ms + 120)


def test_a_late_head_and_a_lost_beginning(codec):
    datagrams = sent(codec, noise(3.0), head_every=5)
    heads = [i for i, p in enumerate(datagrams) if p[3] == 0]
    decoder = DatagramDecoder(codec)
    assert decoder.push(datagrams[1]).shape == (1, 0)
    with pytest.raises(CodesError, match="head"):
        decoder.finish()
    decoder, samples = received(codec, datagrams[heads[2] :])
    assert decoder.lost_frames == 27  # a head, and nine packets of three frames between heads
    assert samples.shape == (1, 72_000)


def test_the_end_may_be_lost(codec):
    datagrams = [p for p in sent(codec, noise(1.01)) if p[3] != 2]
    decoder, samples = received(codec, datagrams[:-1])
    assert decoder.ended is None
    assert not decoder.complete
    assert samples.shape[1] == parse_packet(datagrams[-1]).body.first * codec.hop_length


def test_lost_frames_before_the_end_are_repaired(codec):
    datagrams = sent(codec, noise(1.0))
    last = [i for i, p in enumerate(datagrams) if is_frames(p)][-2:]
    decoder, samples = received(codec, [p for i, p in enumerate(datagrams) if i not in last])
    assert samples.shape == (1, 24_000)
    assert decoder.lost_frames == sum(parse_packet(datagrams[i]).body.count for i in last)


def writer(codec) -> PacketWriter:
    return PacketWriter(StreamHead(1, codec.codes_id, 24_000, (512,)))


def test_one_packet_from_far_away_changes_nothing_and_three_do(codec):
    rng = np.random.default_rng(0)
    forward = writer(codec)
    head = forward.head()
    near = [forward.frames(rng.integers(0, 512, (1, 3))) for _ in range(20)]
    forward.num_frames += 10 * MAX_GAP_FRAMES
    far = [forward.frames(rng.integers(0, 512, (1, 3))) for _ in range(10)]
    decoder, samples = received(codec, [head, *near[:10], far[0], *near[10:]])
    assert (samples.shape[1], decoder.useless) == (60 * 320, 1)
    decoder, samples = received(codec, [head, *near, *far])
    assert decoder.skipped_frames > 10 * MAX_GAP_FRAMES
    assert samples.shape[1] == (60 + 8 * 3) * 320
    assert decoder.lost_frames == 0


def test_without_a_prior_the_last_code_is_repeated(codec, monkeypatch):
    monkeypatch.setattr("simvq_audio.prior.masked._headers", list)
    waveform = noise(1.0)
    datagrams = sent(codec, waveform, packet_ms=40)
    frames = [p for p in datagrams if is_frames(p)]
    _, samples = received(codec, [p for p in datagrams if p != frames[12]])
    indices = codec.encode(waveform, 24_000).indices.copy()
    indices[:, 36:39] = indices[:, 35:36]
    expected = codec.decode(codec.codes_from_indices(indices))
    np.testing.assert_allclose(samples, expected, atol=1e-4)


def mutated(rng: random.Random, datagram: bytes) -> bytes:
    """A datagram with changed, missing or added bytes."""
    data = bytearray(datagram)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)
    if rng.random() < 0.3:
        del data[at : at + rng.randint(1, 9)]
    if rng.random() < 0.3:
        data[at:at] = rng.randbytes(rng.randint(1, 9))
    return bytes(data)


def forged(rng: random.Random, datagram: bytes) -> bytes:
    """A mutated packet whose checksums fit again."""
    data = bytearray(datagram)
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(3, len(data) - 4)] = rng.randrange(256)
    data[10:12] = struct.pack(">H", len(data) - 18) if len(data) >= 18 else data[10:12]
    front = struct.calcsize(">2sBBHIH")
    data[front - 2 : front] = struct.pack(">H", len(data) - front - 6)
    data[front : front + 2] = struct.pack(">H", crc_hqx(bytes(data[:front]), 0))
    data[-4:] = struct.pack(">I", zlib.crc32(bytes(data[:-4])))
    return bytes(data)


def test_hostile_datagrams(codec):
    """Mutated packets are ignored; those with sound checksums may change what is heard."""
    rng = random.Random(0)
    datagrams = sent(codec, noise(1.0), head_every=5)
    decoder = DatagramDecoder(codec)
    decoder.push(datagrams[0])
    for _ in range(3000):
        data = mutated(rng, rng.choice(datagrams))
        if data not in datagrams:
            assert decoder.push(data).shape == (1, 0)
    assert decoder.useless > 2900
    assert decoder.lost_frames == 0
    for _ in range(300):
        decoder.push(forged(rng, rng.choice(datagrams)))
    for data in (b"", b"SV", bytes(70_000)):
        decoder.push(data)
    assert torch.isfinite(torch.from_numpy(decoder.finish())).all()
    # A stream from elsewhere has nothing to say.
    decoder = DatagramDecoder(codec)
    for _ in range(300):
        decoder.push(forged(rng, datagrams[0]))


def test_over_loopback_with_loss(codec):
    """Through real sockets, with a fifth of the packets dropped."""
    rng = random.Random(1)
    waveform = noise(2.0)
    datagrams = sent(codec, waveform)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        decoder = DatagramDecoder(codec)
        parts, dropped = [], 0
        for number, datagram in enumerate(datagrams):
            if number and is_frames(datagram) and rng.random() < 0.2:
                dropped += parse_packet(datagram).body.count
                continue
            sender.sendto(datagram, receiver.getsockname())
            parts.append(decoder.push(receiver.recv(65_536)))
        parts.append(decoder.finish())
    samples = np.concatenate([part for part in parts if part.size], axis=1)
    assert samples.shape == waveform.shape
    assert dropped > 0
    assert decoder.lost_frames == dropped


def test_other_arguments_are_refused(codec):
    for wait in (-1, 1e9, float("nan")):
        with pytest.raises(ConfigError):
            DatagramDecoder(codec, wait_ms=wait)
    with pytest.raises(ConfigError):
        DatagramEncoder(codec, 24_000, head_every=0)
    with pytest.raises(CodesError):
        split_packets(b"SVnothing")

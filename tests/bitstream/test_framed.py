"""Packets: exact round trips in any cutting, each on its own, and nothing from damaged bytes."""

from __future__ import annotations

import binascii
import itertools
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import MUTATIONS

from simvq_audio.bitstream.framed import (
    MAX_BODY_BYTES,
    MAX_PACKET_FRAMES,
    PACKET_HEADER_BYTES,
    PACKET_OVERHEAD_BYTES,
    End,
    Frames,
    Packet,
    PacketReader,
    PacketWriter,
    StreamHead,
    parse_packet,
)
from simvq_audio.errors import CodesError

HEAD = StreamHead(2, "0123456789ab", 16_000, (1000,))
SEVERAL = StreamHead(1, "0123456789ab", 44_100, (1024, 500, 2))


def codes_of(head: StreamHead, frames: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, size, (head.channels, frames)) for size in head.codebook_sizes]
    return rows[0] if len(rows) == 1 else np.stack(rows, axis=1)


def packets_of(head: StreamHead, pieces: list[np.ndarray], **options: object) -> list[bytes]:
    writer = PacketWriter(head, **options)  # type: ignore[arg-type]
    made = [writer.head(), *(writer.frames(piece) for piece in pieces)]
    return [*made, writer.end(99)]


def resealed(packet: bytes) -> bytes:
    """The packet with both checks made to fit."""
    front = packet[: PACKET_HEADER_BYTES - 2]
    body = packet[PACKET_HEADER_BYTES:-4]
    whole = front + struct.pack(">H", binascii.crc_hqx(front, 0)) + body
    return whole + struct.pack(">I", zlib.crc32(whole))


@pytest.mark.parametrize("head", [HEAD, SEVERAL])
@given(
    lengths=st.lists(st.integers(0, 60), max_size=8),
    cuts=st.lists(st.integers(0, 2000), max_size=20),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_cutting_gives_the_packets(head, lengths, cuts, seed):
    indices = codes_of(head, sum(lengths), seed)
    data = b"".join(packets_of(head, np.split(indices, np.cumsum(lengths)[:-1], axis=-1)))
    reader = PacketReader()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    found: list[Packet] = []
    for start, end in itertools.pairwise(places):
        found += reader.push(data[start:end])
    assert (reader.skipped, reader.pending) == (0, 0)
    assert [packet.sequence for packet in found] == list(range(len(found)))
    first, *middle, last = (packet.body for packet in found)
    assert first == head
    assert last == End(indices.shape[-1], 99)
    place = 0
    for body in middle:
        assert isinstance(body, Frames) and body.first == place
        unpacked = body.indices(head)
        assert np.array_equal(unpacked, indices[..., place : place + body.count])
        place += body.count
    assert place == indices.shape[-1]


def test_packets_survive_loss_doubling_and_reordering_on_their_own():
    indices = codes_of(HEAD, 300)
    sent = packets_of(HEAD, np.split(indices, 50, axis=-1), stream=7)
    rng = random.Random(1)
    arrived = [packet for packet in sent if rng.random() > 0.2]
    lost = len(sent) - len(arrived)
    arrived += rng.choices(arrived, k=10)
    rng.shuffle(arrived)
    rebuilt = np.full_like(indices, -1)
    for data in arrived:
        packet = parse_packet(data)
        assert packet is not None and packet.stream == 7
        if isinstance(packet.body, Frames):
            part = packet.body.indices(HEAD)
            rebuilt[:, packet.body.first : packet.body.first + packet.body.count] = part
    missing = (rebuilt == -1).any(axis=0)
    assert 0 < missing.sum() <= 6 * lost
    assert np.array_equal(rebuilt[:, ~missing], indices[:, ~missing])


def test_entropy_coded_packets_are_smaller_and_equal():
    head = StreamHead(1, "c153ae81d324", 24_000, (8192,))
    # A sequence that the prior knows: silence, as the format document has it.
    indices = np.tile([[7379, 7379, 3068, 3068, 3068, 3068, 7379, 7379]], (1, 12))
    fixed, coded = (
        packets_of(head, [indices], coding=coding)[1] for coding in ("fixed", "entropy")
    )
    assert len(coded) < len(fixed)
    for data in (fixed, coded):
        packet = parse_packet(data)
        assert packet is not None and isinstance(packet.body, Frames)
        assert np.array_equal(packet.body.indices(head), indices)
    with pytest.raises(CodesError, match="coding must be"):
        PacketWriter(head, "zip")


@pytest.mark.parametrize(
    "head",
    [StreamHead(1, "0123456789ab", 1, (2,)), StreamHead(255, "0123456789ab", 1, (262144,) * 32)],
)
def test_long_pieces_become_several_packets(head):
    indices = codes_of(head, MAX_PACKET_FRAMES + 1 if head.channels == 1 else 9)
    reader = PacketReader()
    found = reader.push(b"".join(packets_of(head, [indices])))
    bodies = [packet.body for packet in found if isinstance(packet.body, Frames)]
    assert len(bodies) > 1 and reader.skipped == 0
    together = np.concatenate([body.indices(head) for body in bodies], axis=-1)
    assert np.array_equal(together, indices)


def test_damage_costs_the_packets_that_it_hits():
    indices = codes_of(HEAD, 100)
    made = packets_of(HEAD, np.split(indices, 10, axis=-1))
    whole = b"".join(made)
    for bit in range(0, 8 * len(whole), 7):
        data = bytearray(whole)
        data[bit // 8] ^= 128 >> bit % 8
        reader = PacketReader()
        found = reader.push(bytes(data)) + reader.push(b"")
        hit = next(i for i in range(len(made)) if bit // 8 < len(b"".join(made[: i + 1])))
        # At the end, a length that became larger leaves the reader waiting.
        assert [packet.sequence for packet in found] == [i for i in range(len(made)) if i != hit]
        assert reader.skipped + reader.pending == len(made[hit])


@pytest.mark.parametrize("length", range(0, 60))
def test_a_cut_stream_gives_what_is_whole(length):
    made = packets_of(HEAD, [codes_of(HEAD, 4)] * 2)
    data = b"".join(made)[:length]
    reader = PacketReader()
    found = reader.push(data)
    whole = [i for i in range(len(made)) if len(b"".join(made[: i + 1])) <= length]
    assert [packet.sequence for packet in found] == whole
    assert reader.skipped == 0
    assert reader.pending == length - sum(len(made[i]) for i in whole)


def test_mutated_streams_give_sound_packets_or_none():
    rng = random.Random(18)
    made = packets_of(HEAD, np.split(codes_of(HEAD, 40), 5, axis=-1))
    kinds = set()
    for _ in range(4000):
        packet = bytearray(rng.choice(made))
        rng.choice(MUTATIONS)(rng, packet)
        # Half of them as someone would forge them, who knows the checks.
        forged = len(packet) >= PACKET_OVERHEAD_BYTES and rng.random() < 0.5
        data = resealed(bytes(packet)) if forged else bytes(packet)
        try:
            found = PacketReader().push(data)
        except CodesError as error:
            assert "version" in str(error)
            continue
        for each in found:
            kinds.add(type(each.body).__name__)
            if isinstance(each.body, Frames):
                try:
                    unpacked = each.body.indices(HEAD)
                except CodesError:
                    kinds.add("refused")
                else:
                    assert unpacked.shape == (2, each.body.count) and unpacked.max() < 1000
    assert kinds == {"StreamHead", "Frames", "End", "NoneType", "refused"}


def test_a_reader_holds_no_more_than_a_packet():
    front = struct.pack(">2sBBHIH", b"SV", 1, 1, 0, 0, MAX_BODY_BYTES)
    forged = front + struct.pack(">H", binascii.crc_hqx(front, 0)) + bytes(10_000)
    reader = PacketReader()
    for _ in range(100):
        assert reader.push(forged) == []
        assert reader.pending < MAX_BODY_BYTES + PACKET_OVERHEAD_BYTES
    assert reader.skipped + reader.pending == 100 * len(forged)


def test_later_versions_are_refused():
    packet = bytearray(packets_of(HEAD, [])[0])
    packet[2] = 2
    with pytest.raises(CodesError, match="stream version 2 is not known; update"):
        PacketReader().push(resealed(bytes(packet)))


@pytest.mark.parametrize(
    "fields",
    [
        (0, "0123456789ab", 16_000, (1000,)),
        (1, "0123456789AB", 16_000, (1000,)),
        (1, "0123456789ab", 0, (1000,)),
        (1, "0123456789ab", 16_000, ()),
        (1, "0123456789ab", 16_000, (1,)),
        (1, "0123456789ab", 16_000, (262145,)),
    ],
)
def test_impossible_heads_are_refused(fields):
    with pytest.raises(CodesError):
        StreamHead(*fields)

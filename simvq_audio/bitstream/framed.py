"""The framed form of codes: packets for live recordings.

Each packet is checked and decoded independently, so that lost, repeated or reordered packets do
not affect the others. The layout is described in ``docs/file-format.md``.
"""

from __future__ import annotations

import binascii
import io
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simvq_audio.bitstream.codings import CODINGS, MAX_CODEBOOKS, SEVERAL, check_coding, pack
from simvq_audio.bitstream.header import MAX_CHANNELS
from simvq_audio.bitstream.packing import bits_per_code, check_codebook_size
from simvq_audio.errors import CodesError

SYNC = b"SV"
STREAM_VERSION = 1

# Sync, version, kind, stream, sequence number, bytes of the body.
_FRONT = struct.Struct(">2sBBHIH")
_CHECK = struct.Struct(">H")
_CRC = struct.Struct(">I")
# Channels, codes_id, sample rate, number of codebooks.
_HEAD = struct.Struct(">B6s3sB")
_SIZE_BYTES = 3
# First frame, frames, payload coding.
_FRAMES = struct.Struct(">IHB")
# Frames, samples.
_END = struct.Struct(">I5s")

PACKET_HEADER_BYTES = _FRONT.size + _CHECK.size
PACKET_OVERHEAD_BYTES = PACKET_HEADER_BYTES + _CRC.size
MAX_BODY_BYTES = 2**16 - 1
MAX_PACKET_FRAMES = 4096

_KIND_HEAD, _KIND_FRAMES, _KIND_END = 0, 1, 2
_MAX_FRAMES = 2**32 - 1
_MAX_SAMPLES = 2**40 - 1
# At most, the bytes before the indices of coding 2.
_PAYLOAD_HEAD_BYTES = 1 + MAX_CODEBOOKS * _SIZE_BYTES


@dataclass(frozen=True)
class StreamHead:
    """The properties of a stream, from its head packet.

    Attributes:
        channels: 1 to 255.
        codes_id: 12 lowercase hex digits that say what an index means.
        sample_rate: of the recording, Hz.
        codebook_sizes: entries of each codebook that a frame has an index into.

    Raises:
        CodesError: a value is out of range.
    """

    channels: int
    codes_id: str
    sample_rate: int
    codebook_sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{12}", self.codes_id):
            raise CodesError(f"codes_id must be 12 lowercase hex digits, not {self.codes_id!r}")
        for name, value, high in (
            ("channel count", self.channels, MAX_CHANNELS),
            ("sample rate", self.sample_rate, 2**24 - 1),
            ("number of codebooks", len(self.codebook_sizes), MAX_CODEBOOKS),
        ):
            if not 1 <= value <= high:
                raise CodesError(f"the {name} must be 1 to {high}, not {value}")
        for size in self.codebook_sizes:
            check_codebook_size(size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an array of indices without its last axis, frames."""
        inner = () if len(self.codebook_sizes) == 1 else (len(self.codebook_sizes),)
        return (self.channels, *inner)


@dataclass(frozen=True)
class Frames:
    """The codes of some frames, still packed.

    Attributes:
        first: number of the first frame, counted from 0.
        count: number of frames, 1 to 4096.
        coding: payload coding, as in a file.
        payload: as in a file of these frames alone.
    """

    first: int
    count: int
    coding: int
    payload: bytes

    def indices(self, head: StreamHead) -> np.ndarray:
        """Unpack into int32 (channels, frames), or (channels, codebooks, frames).

        Raises:
            CodesError: the payload does not fit the head and the number of frames.
        """
        sizes = head.codebook_sizes
        if (self.coding == SEVERAL) != (len(sizes) > 1) or self.coding not in CODINGS:
            raise CodesError(f"payload coding {self.coding} does not fit the stream")
        coding = CODINGS[self.coding]
        # Before anything is allocated, as for a file.
        expected = coding.payload_size(
            io.BytesIO(self.payload), len(self.payload), head.channels, self.count, sizes[0]
        )
        if expected != len(self.payload):
            raise CodesError(f"{expected} bytes of payload expected, {len(self.payload)} found")
        indices, found = coding.unpack(self.payload, head.channels, self.count, sizes[0])
        if len(sizes) > 1 and found != sizes:
            raise CodesError("the codebooks of a packet are not those of the stream")
        for number, size in enumerate(sizes):
            of_one = indices[:, number] if len(sizes) > 1 else indices
            if of_one.max() >= size:
                raise CodesError(f"index {of_one.max()} lies outside a codebook of {size} entries")
        return indices


@dataclass(frozen=True)
class End:
    """The last packet of a stream.

    Attributes:
        num_frames: of the whole recording.
        num_samples: per channel, at the recording's sample rate.
    """

    num_frames: int
    num_samples: int


@dataclass(frozen=True)
class Packet:
    """One packet.

    Attributes:
        stream: number of the stream, for receivers of several.
        sequence: counts the packets of a stream, from 0.
        body: None if this version does not know its kind.
    """

    stream: int
    sequence: int
    body: StreamHead | Frames | End | None


class PacketWriter:
    """Makes the packets of one stream; each method returns whole packets.

    Args:
        head: of the stream.
        coding: "fixed", or "entropy" for packets that it makes smaller.
        stream: 0 to 65535, for receivers of several streams.

    Attributes:
        num_frames: frames written so far.
    """

    def __init__(self, head: StreamHead, coding: str = "fixed", stream: int = 0) -> None:
        check_coding(coding)
        self._head = head
        self._coding = coding
        self._stream = stream
        self._sequence = 0
        self.num_frames = 0
        bits = sum(map(bits_per_code, head.codebook_sizes))
        rows = head.channels * len(head.codebook_sizes)  # each ends with up to 7 bits of padding
        room = 8 * (MAX_BODY_BYTES - _FRAMES.size - _PAYLOAD_HEAD_BYTES - rows)
        self._most = min(MAX_PACKET_FRAMES, room // (head.channels * bits))

    def head(self) -> bytes:
        """The head. It is sent first, and may be repeated."""
        head = self._head
        sizes = b"".join((size - 1).to_bytes(_SIZE_BYTES, "big") for size in head.codebook_sizes)
        rate = head.sample_rate.to_bytes(3, "big")
        body = _HEAD.pack(
            head.channels, bytes.fromhex(head.codes_id), rate, len(head.codebook_sizes)
        )
        return self._packet(_KIND_HEAD, body + sizes)

    def frames(self, indices: np.ndarray) -> bytes:
        """The next frames, in as many packets as they need.

        Args:
            indices: (channels, frames), or (channels, codebooks, frames).
        """
        parts = []
        for start in range(0, indices.shape[-1], self._most):
            part = indices[..., start : start + self._most]
            sizes, codes_id = self._head.codebook_sizes, self._head.codes_id
            coding, payload = pack(part, sizes, codes_id, self._coding)
            count = part.shape[-1]
            if self.num_frames + count > _MAX_FRAMES:
                raise CodesError(f"a stream ends at {_MAX_FRAMES} frames; begin a new one")
            body = _FRAMES.pack(self.num_frames, count, coding) + payload
            parts.append(self._packet(_KIND_FRAMES, body))
            self.num_frames += count
        return b"".join(parts)

    def end(self, num_samples: int) -> bytes:
        """The end of a recording of ``num_samples`` samples per channel."""
        if num_samples > _MAX_SAMPLES:
            raise CodesError(f"a stream ends at {_MAX_SAMPLES} samples")
        body = _END.pack(self.num_frames, num_samples.to_bytes(5, "big"))
        return self._packet(_KIND_END, body)

    def _packet(self, kind: int, body: bytes) -> bytes:
        front = _FRONT.pack(SYNC, STREAM_VERSION, kind, self._stream, self._sequence, len(body))
        self._sequence = (self._sequence + 1) % 2**32
        packet = front + _CHECK.pack(binascii.crc_hqx(front, 0)) + body
        return packet + _CRC.pack(zlib.crc32(packet))


class PacketReader:
    """Finds packets in bytes that arrive in pieces; keeps at most one packet in memory.

    Attributes:
        skipped: bytes so far that were not part of a sound packet.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self.skipped = 0

    @property
    def pending(self) -> int:
        """Bytes of a packet that is not complete."""
        return len(self._held)

    def push(self, data: bytes) -> list[Packet]:
        """Append bytes; return the packets that are complete.

        Raises:
            CodesError: a packet is of a later version.
        """
        held = self._held
        held += data
        packets: list[Packet] = []
        at = 0
        while True:
            start = held.find(SYNC, at)
            if start < 0:
                # The last byte may be the first half of the next sync.
                start = max(at, len(held) - held.endswith(SYNC[:1]))
            self.skipped += start - at
            at = start
            size = _packet_size(held, at)
            if size is None:
                self.skipped += len(SYNC)
                at += len(SYNC)
                continue
            if at + size > len(held):
                break
            packet = _parse(bytes(held[at : at + size]))
            if packet is None:
                # Skip the sync only, since the false packet may contain a real one.
                self.skipped += len(SYNC)
                at += len(SYNC)
            else:
                packets.append(packet)
                at += size
        del held[:at]
        return packets


def parse_packet(data: bytes) -> Packet | None:
    """The packet in a datagram, or None if it is damaged.

    Raises:
        CodesError: it is of a later version.
    """
    if _packet_size(data, 0) != len(data):
        return None
    return _parse(data)


def split_packets(data: bytes) -> list[bytes]:
    """The packets that a ``PacketWriter`` returned joined, one by one, as datagrams carry them.

    Raises:
        CodesError: other bytes.
    """
    packets = []
    at = 0
    while at < len(data):
        size = _packet_size(data, at)
        if size is None or at + size > len(data):
            raise CodesError("these bytes are not whole packets")
        packets.append(data[at : at + size])
        at += size
    return packets


def _packet_size(data: bytes | bytearray, at: int) -> int | None:
    """Bytes of the packet that begins here; more than there are if unknown; None if none begins."""
    if len(data) - at < PACKET_HEADER_BYTES:
        return PACKET_HEADER_BYTES
    front = bytes(data[at : at + _FRONT.size])
    sync, version, _, _, _, length = _FRONT.unpack(front)
    if sync != SYNC or _CHECK.unpack_from(data, at + _FRONT.size)[0] != binascii.crc_hqx(front, 0):
        return None
    if version != STREAM_VERSION:
        raise CodesError(f"stream version {version} is not known; update simvq-audio")
    return PACKET_OVERHEAD_BYTES + length


def _parse(data: bytes) -> Packet | None:
    """A packet from bytes of the right length, or None if it is damaged."""
    if _CRC.unpack_from(data, len(data) - _CRC.size)[0] != zlib.crc32(data[: -_CRC.size]):
        return None
    _, _, kind, stream, sequence, _ = _FRONT.unpack_from(data)
    body = data[PACKET_HEADER_BYTES : -_CRC.size]
    try:
        return Packet(stream, sequence, _READERS[kind](body) if kind in _READERS else None)
    except (CodesError, struct.error):
        return None


def _read_head(body: bytes) -> StreamHead:
    channels, codes_id, rate, codebooks = _HEAD.unpack_from(body)
    if len(body) != _HEAD.size + codebooks * _SIZE_BYTES:
        raise CodesError("a head of another length")
    sizes = tuple(
        int.from_bytes(body[at : at + _SIZE_BYTES], "big") + 1
        for at in range(_HEAD.size, len(body), _SIZE_BYTES)
    )
    return StreamHead(channels, codes_id.hex(), int.from_bytes(rate, "big"), sizes)


def _read_frames(body: bytes) -> Frames:
    first, count, coding = _FRAMES.unpack_from(body)
    if not 1 <= count <= MAX_PACKET_FRAMES or first + count > _MAX_FRAMES:
        raise CodesError("an impossible number of frames")
    return Frames(first, count, coding, body[_FRAMES.size :])


def _read_end(body: bytes) -> End:
    frames, samples = _END.unpack(body)
    return End(frames, int.from_bytes(samples, "big"))


_READERS: dict[int, Callable[[bytes], StreamHead | Frames | End]] = {
    _KIND_HEAD: _read_head,
    _KIND_FRAMES: _read_frames,
    _KIND_END: _read_end,
}

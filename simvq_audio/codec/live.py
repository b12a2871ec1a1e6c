"""Live recordings to packets and back, by the push API of ``Codec``."""

from __future__ import annotations

from typing import Any

import numpy as np

from simvq_audio.audio import resampled_length
from simvq_audio.bitstream import Codes
from simvq_audio.bitstream.framed import (
    End,
    Frames,
    Packet,
    PacketReader,
    PacketWriter,
    StreamHead,
)
from simvq_audio.codec.codec import Codec
from simvq_audio.codec.streams import StreamDecoder
from simvq_audio.errors import CodesError

# Frames that may be missing between two packets; a forged number cannot make hours of audio.
MAX_GAP_FRAMES = 750


class PacketEncoder:
    """Turns a recording that arrives in pieces into the packets of a stream.

    Args:
        codec: whose model codes it.
        sample_rate, channels: of the input.
        packet_ms: duration of the frames in a packet, rounded to whole frames. All packets but the
            last have as many, whatever the pieces.
        coding: "fixed", or "entropy", which makes packets of a second or more smaller.

    Attributes:
        num_bytes: bytes returned so far.

    Raises:
        AudioError: a rate or a number of channels that cannot be coded.
        CodesError: another coding.
    """

    def __init__(
        self,
        codec: Codec,
        sample_rate: int,
        channels: int = 1,
        *,
        packet_ms: float = 80.0,
        coding: str = "fixed",
    ) -> None:
        self._encoder = codec.encoder(sample_rate, channels)
        sizes = codec.config.quantizer.codebook_sizes
        head = StreamHead(self._encoder.channels, codec.codes_id, self._encoder.sample_rate, sizes)
        self._writer = PacketWriter(head, coding)
        self._frame_rate = codec.frame_rate
        self._packet_frames = max(1, round(packet_ms * codec.frame_rate / 1000))
        self._held = np.empty((*head.shape, 0), np.int32)
        self._begun = False
        self.num_bytes = 0

    @property
    def latency_ms(self) -> float:
        """How long a sample waits for its packet at most, in ms of audio."""
        return self._encoder.latency_ms + 1000 * (self._packet_frames - 1) / self._frame_rate

    @property
    def sample_rate(self) -> int:
        """Of the input, in Hz."""
        return self._encoder.sample_rate

    @property
    def num_samples(self) -> int:
        """Samples per channel pushed so far."""
        return self._encoder.num_samples

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        return self._writer.num_frames

    def push(self, samples: Any) -> bytes:
        """Append samples, as for ``StreamEncoder.push``; return the packets that are complete.

        The first call returns at least the head.

        Raises:
            AudioError: as for ``StreamEncoder.push``.
        """
        return self._packets(self._encoder.push(samples))

    def finish(self) -> bytes:
        """End the recording; return the remaining packets.

        Raises:
            AudioError: the stream was finished.
        """
        rest = self._packets(self._encoder.finish(), final=True)
        end = self._writer.end(self._encoder.num_samples)
        self.num_bytes += len(end)
        return rest + end

    def _packets(self, codes: np.ndarray, final: bool = False) -> bytes:
        parts = [] if self._begun else [self._writer.head()]
        self._begun = True
        held = np.concatenate([self._held, codes], axis=-1)
        while held.shape[-1] >= self._packet_frames or (final and held.shape[-1]):
            parts.append(self._writer.frames(held[..., : self._packet_frames]))
            held = held[..., self._packet_frames :]
        self._held = held.copy()
        data = b"".join(parts)
        self.num_bytes += len(data)
        return data


class PacketDecoder:
    """Turns the bytes of a stream, in pieces of any length, into samples.

    After the head, damage does not raise: sound packets are decoded, missing frames repeat the code
    before them, and ``problem`` says what was wrong.

    Attributes:
        head: None until the stream's first packet has arrived.
        ended: whether the packet that ends a stream has arrived.
        lost_frames: frames that were missing so far, a channel.
        num_bytes: bytes pushed so far.
    """

    def __init__(self, codec: Codec, *, native_rate: bool = False) -> None:
        self._codec = codec
        self._native_rate = native_rate
        self._reader = PacketReader()
        self._decoder: StreamDecoder | None = None
        self._last: np.ndarray | None = None
        self._failure: str | None = None
        self._damaged = 0
        self._damage = ""
        self._place = 0  # number of the next frame
        self.head: StreamHead | None = None
        self.ended: End | None = None
        self.lost_frames = 0
        self.num_bytes = 0

    @property
    def sample_rate(self) -> int:
        """Of the output, in Hz; known once ``head`` is."""
        return self._open.sample_rate

    @property
    def num_frames(self) -> int:
        """Frames decoded so far, with those made up."""
        return 0 if self._decoder is None else self._decoder.num_frames

    @property
    def num_samples(self) -> int:
        """Samples per channel returned so far."""
        return 0 if self._decoder is None else self._decoder.num_samples

    @property
    def problem(self) -> str | None:
        """After ``finish``: what was missing or damaged, in one line, or None."""
        found = []
        if self._failure is not None:
            found.append(self._failure)
        elif self.ended is None:
            found.append("the stream stops before its end")
        if self.lost_frames:
            found.append(f"{self.lost_frames} frames are missing and were made up")
        if self._reader.skipped:
            found.append(f"{self._reader.skipped} bytes are damaged")
        if self._reader.pending:
            found.append(f"{self._reader.pending} bytes of an incomplete packet are left")
        if self._damaged:
            found.append(f"{self._damaged} packets cannot be unpacked ({self._damage})")
        return "; ".join(found) or None

    def push(self, data: bytes) -> np.ndarray:
        """Append bytes; return (channels, samples) float32 that are now final.

        (1, 0) before the head has arrived.

        Raises:
            CodesError: not a stream, or one of another model or of a later version.
        """
        self.num_bytes += len(data)
        if self.ended or self._failure:
            return self._nothing
        try:
            packets = self._reader.push(data)
        except CodesError as error:
            if self.head is None:
                raise
            self._failure = str(error)
            return self._nothing
        parts = [part for packet in packets for part in self._take(packet)]
        if self.head is None and self._reader.skipped:
            raise CodesError("is not a stream of codes; give what 'encode --stream' wrote")
        if not parts:
            return self._nothing
        # In one pass of the model, so that packets that arrive together cost no more than one.
        return self._open.push(np.concatenate(parts, axis=-1))

    def finish(self) -> np.ndarray:
        """End the stream, complete or not; return the remaining samples.

        Raises:
            CodesError: the head has not arrived.
        """
        if self._decoder is None:
            raise CodesError(
                "ends before the head of a stream" if self.num_bytes else "is empty (0 bytes)"
            )
        if self.ended is None or self.head is None:
            return self._decoder.finish()
        samples = resampled_length(
            self.ended.num_samples, self.head.sample_rate, self._decoder.sample_rate
        )
        try:
            return self._decoder.finish(samples)
        except CodesError as error:
            self._failure = str(error)
            return self._decoder.finish()

    @property
    def _open(self) -> StreamDecoder:
        if self._decoder is None:
            raise CodesError("the head of the stream has not arrived")
        return self._decoder

    @property
    def _nothing(self) -> np.ndarray:
        return np.empty((1 if self.head is None else self.head.channels, 0), np.float32)

    def _take(self, packet: Packet) -> list[np.ndarray]:
        """Codes that a packet adds."""
        body = packet.body
        if self.ended or self._failure or body is None:
            return []
        if isinstance(body, StreamHead):
            if self.head is None:
                self._begin(body)
            elif body != self.head:
                self._failure = "another stream begins before this one ends"
            return []
        if self.head is None:
            raise CodesError("does not begin with the head of a stream")
        if isinstance(body, End):
            gap = self._gap(body.num_frames)
            self.ended = None if self._failure else body
            return gap
        return self._frames(body, self.head)

    def _begin(self, head: StreamHead) -> None:
        # Checked as an empty recording of the same kind.
        sizes = head.codebook_sizes
        size = sizes if len(sizes) > 1 else sizes[0]
        nothing = np.empty((*head.shape, 0), np.int32)
        self._codec.check(Codes(nothing, size, head.codes_id, head.sample_rate, 0))
        rate = self._codec.sample_rate if self._native_rate else head.sample_rate
        codec = self._codec.for_codes(head.codes_id)
        self._decoder = codec.decoder(rate, head.channels)
        self.head = head

    def _frames(self, body: Frames, head: StreamHead) -> list[np.ndarray]:
        if body.first + body.count <= self._place:
            return []  # repeated, or arrived after it was made up
        try:
            indices = body.indices(head)
        except CodesError as error:
            self._damaged += 1
            self._damage = self._damage or str(error)
            return []
        gap = self._gap(body.first)
        if self._failure:
            return []
        added = indices[..., self._place - body.first :]
        self._place += added.shape[-1]
        self._last = added[..., -1:].copy()
        return [*gap, added]

    def _gap(self, place: int) -> list[np.ndarray]:
        """Codes for the frames that are missing before ``place``."""
        missing = place - self._place
        if missing <= 0:
            return []
        if missing > MAX_GAP_FRAMES:
            self._failure = f"{missing} frames are missing in a row, too many to go on"
            return []
        self.lost_frames += missing
        self._place = place
        head = self.head
        assert head is not None
        last = np.zeros((*head.shape, 1), np.int32) if self._last is None else self._last
        return [np.repeat(last, missing, axis=-1)]

"""Live recordings in datagrams, as over UDP: lost packets are repaired, late ones awaited."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

from simvq_audio.audio import resampled_length
from simvq_audio.bitstream import Codes
from simvq_audio.bitstream.framed import End, Frames, StreamHead, parse_packet, split_packets
from simvq_audio.codec.codec import Codec
from simvq_audio.codec.live import MAX_GAP_FRAMES, PacketEncoder
from simvq_audio.codec.repair import LatentDecoder, Repairer
from simvq_audio.errors import CodesError, ConfigError

# Frames before a gap that it is repaired from.
PAST_FRAMES = 96
# Packets in a row that must agree before a stream goes on far from where it was: a forged or
# damaged number alone changes nothing.
_AGREE = 3
_END_COPIES = 3


class DatagramEncoder:
    """Turns a recording that arrives in pieces into datagrams of one packet each.

    Args:
        codec: whose model codes it.
        sample_rate, channels: of the input.
        packet_ms: audio in a datagram, rounded to whole frames; what is lost with it.
        head_every: datagrams from one head to the next, for receivers that missed the first.
        coding: as for ``PacketEncoder``.

    Raises:
        AudioError, CodesError: as for ``PacketEncoder``.
        ConfigError: ``head_every`` is below 1.
    """

    def __init__(
        self,
        codec: Codec,
        sample_rate: int,
        channels: int = 1,
        *,
        packet_ms: float = 40.0,
        head_every: int = 25,
        coding: str = "fixed",
    ) -> None:
        if head_every < 1:
            raise ConfigError(f"head_every must be at least 1, not {head_every}")
        self._encoder = PacketEncoder(
            codec, sample_rate, channels, packet_ms=packet_ms, coding=coding
        )
        self._every = head_every
        self._head: bytes | None = None
        self._since = 0

    @property
    def latency_ms(self) -> float:
        """How long a sample waits for its datagram at most, in ms of audio."""
        return self._encoder.latency_ms

    def push(self, samples: Any) -> list[bytes]:
        """Append samples, as for ``StreamEncoder.push``; return the datagrams to send.

        Raises:
            AudioError: as for ``StreamEncoder.push``.
        """
        return self._with_heads(split_packets(self._encoder.push(samples)))

    def finish(self) -> list[bytes]:
        """End the recording; return the remaining datagrams.

        The last of them is given several times, since a lost one would not be noticed.

        Raises:
            AudioError: the stream was finished.
        """
        packets = split_packets(self._encoder.finish())
        return self._with_heads(packets[:-1]) + packets[-1:] * _END_COPIES

    def _with_heads(self, packets: list[bytes]) -> list[bytes]:
        result = []
        for packet in packets:
            if self._head is None:
                self._head = packet
            elif self._since == self._every:
                result.append(self._head)
                self._since = 0
            result.append(packet)
            self._since += 1
        return result


class DatagramDecoder:
    """Turns datagrams, of which any may be lost, repeated, late or damaged, into samples.

    No datagram raises an exception, whatever it holds. Lost frames are repaired from the codes on
    both sides, as ``Codec.decode`` does with ``lost``; where the codec has no masked prior, they
    repeat the code before them. CRCs find damage, not forgery: who can send packets can change what
    is heard.

    Args:
        codec: whose model decodes it, with one code per frame.
        wait_ms: how long after a gap to go on receiving before it is repaired, in ms of audio. Late
            packets are used within that time, and repair sees what follows the gap.
        native_rate: give samples at the model's rate instead of the recording's.

    Attributes:
        head: None until it has arrived; frames before it are not decoded.
        ended: None until the packet that ends a stream has arrived.
        lost_frames: frames repaired so far, a channel.
        skipped_frames: frames passed over after more than ``MAX_GAP_FRAMES`` were missing.
        useless: datagrams so far that were damaged, repeated, too late, or of no known kind.

    Raises:
        ConfigError: the codec has several codes per frame, or ``wait_ms`` is not 0 to 5000.
    """

    def __init__(self, codec: Codec, *, wait_ms: float = 120.0, native_rate: bool = False) -> None:
        if not isinstance(codec.codebook_size, int):
            raise ConfigError("codes of several codebooks cannot be repaired")
        if not 0 <= wait_ms <= 5000:
            raise ConfigError(f"wait_ms must be 0 to 5000, not {wait_ms}")
        self._codec = codec
        self._native_rate = native_rate
        self._wait = ceil(wait_ms * codec.frame_rate / 1000)
        self._repairer: Repairer | None = None
        self._vectors = np.empty((0, 0), np.float32)
        self._decoder: LatentDecoder | None = None
        self._held: dict[int, np.ndarray] = {}  # codes (channels,) of frames from _place on
        self._place: int | None = None  # the next frame to decode
        self._newest = 0  # the frame behind the last that has arrived
        self._past: list[np.ndarray | None] = []  # frames before _place; None: lost
        self._far: list[int] = []
        self.head: StreamHead | None = None
        self.ended: End | None = None
        self.lost_frames = 0
        self.skipped_frames = 0
        self.useless = 0

    @property
    def sample_rate(self) -> int:
        """Of the output, in Hz.

        Raises:
            CodesError: the head has not arrived.
        """
        return self._open.sample_rate

    @property
    def latency_ms(self) -> float:
        """How long a code waits for its samples at most, in ms of audio.

        Raises:
            CodesError: the head has not arrived.
        """
        return self._open.latency_ms + 1000 * self._wait / self._codec.frame_rate

    @property
    def complete(self) -> bool:
        """Whether the end is known and every frame before it has been decoded."""
        return self.ended is not None and self._place == self.ended.num_frames

    def push(self, datagram: bytes) -> np.ndarray:
        """Take a datagram; return (channels, samples) float32 that are now final.

        (1, 0) before the head has arrived.
        """
        if self._take(datagram):
            return self._advance(final=False)
        self.useless += 1
        return self._nothing

    def finish(self) -> np.ndarray:
        """Give up waiting: repair what is missing and return the remaining samples.

        Raises:
            CodesError: the head has not arrived, or the stream was finished.
        """
        decoder = self._open
        rest = self._advance(final=True)
        samples = None
        if self.ended is not None and self.head is not None and not self.skipped_frames:
            samples = resampled_length(
                self.ended.num_samples, self.head.sample_rate, decoder.sample_rate
            )
        try:
            last = decoder.finish(samples)
        except CodesError:
            if samples is None:
                raise
            last = decoder.finish()  # the end named another length
        return np.concatenate([rest, last], axis=1)

    @property
    def _open(self) -> LatentDecoder:
        if self._decoder is None:
            raise CodesError("the head of the stream has not arrived")
        return self._decoder

    @property
    def _nothing(self) -> np.ndarray:
        return np.empty((1 if self.head is None else self.head.channels, 0), np.float32)

    def _take(self, datagram: bytes) -> bool:
        """Whether the datagram says anything new."""
        try:
            packet = parse_packet(datagram)
            body = None if packet is None else packet.body
            if isinstance(body, StreamHead):
                return self._begin(body)
            if isinstance(body, Frames):
                return self._frames(body)
            return isinstance(body, End) and self._end(body)
        except CodesError:
            return False

    def _begin(self, head: StreamHead) -> bool:
        if self.head is not None:
            return False
        # Checked as an empty recording of the same kind.
        nothing = np.empty((*head.shape, 0), np.int32)
        size = head.codebook_sizes[0]
        self._codec.check(Codes(nothing, size, head.codes_id, head.sample_rate, 0))
        try:
            self._repairer = Repairer(self._codec, head.codes_id)
        except ConfigError:
            self._repairer = None
        codec = self._codec.for_codes(head.codes_id)
        self._vectors = codec.codebook()
        rate = self._codec.sample_rate if self._native_rate else head.sample_rate
        self._decoder = LatentDecoder(codec, rate, head.channels, wait=False)
        self.head = head
        return True

    def _frames(self, body: Frames) -> bool:
        end = body.first + body.count
        if self.head is None or end <= (self._place or 0):
            return False
        if self.ended is not None and end > self.ended.num_frames:
            return False
        indices = body.indices(self.head)
        if self._place is None:
            # Frames lost at the very beginning are repaired too; who joins late starts here.
            self._place = 0 if body.first <= MAX_GAP_FRAMES else body.first
            self._newest = self._place
        elif body.first <= self._newest + MAX_GAP_FRAMES:
            self._far = []
        elif not self._jump(body.first):
            return False
        before = len(self._held)
        for frame in range(max(body.first, self._place), end):
            self._held.setdefault(frame, indices[:, frame - body.first])
        self._newest = max(self._newest, end)
        return len(self._held) > before

    def _jump(self, first: int) -> bool:
        """Whether enough packets agree that the stream goes on far away; if so, go there."""
        if self._far and not 0 < first - self._far[-1] <= MAX_GAP_FRAMES:
            self._far = []
        self._far.append(first)
        if len(self._far) < _AGREE:
            return False
        assert self._place is not None
        self.skipped_frames += first - self._place
        self._held, self._past, self._far = {}, [], []
        self._place = self._newest = first
        return True

    def _end(self, body: End) -> bool:
        if self.head is None or self.ended is not None:
            return False
        if not self._newest <= body.num_frames <= self._newest + MAX_GAP_FRAMES:
            return False
        self.ended = body
        self._place = self._place or 0
        return True

    def _advance(self, *, final: bool) -> np.ndarray:
        """Decode as far as frames have arrived, or gaps have been waited for."""
        if self._place is None:
            return self._nothing
        parts = []
        while True:
            known = []
            while (codes := self._held.pop(self._place, None)) is not None:
                known.append(codes)
                self._past.append(codes)
                self._place += 1
            if known:
                vectors = self._vectors[np.stack(known, axis=1)]
                parts.append(vectors.transpose(0, 2, 1))
            del self._past[:-PAST_FRAMES]
            after = self._after_gap(final)
            if after is None:
                break
            parts.append(self._repaired(after))
            self.lost_frames += after - self._place
            self._past += [None] * (after - self._place)
            self._place = after
        if not parts:
            return self._nothing
        return self._open.push(np.concatenate(parts, axis=-1))

    def _after_gap(self, final: bool) -> int | None:
        """The frame behind the gap at ``_place``, if there is one that is to be repaired now."""
        assert self._place is not None
        if not self._held:
            end = self._place if self.ended is None else self.ended.num_frames
            return end if final and end > self._place else None
        after = min(self._held)
        return after if final or self._newest >= after + self._wait else None

    def _repaired(self, after: int) -> np.ndarray:
        """Latents (channels, dim, frames) for the frames from ``_place`` to ``after``."""
        assert self._place is not None and self.head is not None
        gap = after - self._place
        if self._repairer is None:
            last = next((codes for codes in reversed(self._past) if codes is not None), None)
            if last is None:
                last = np.zeros(self.head.channels, np.int32)
            return np.repeat(self._vectors[last][:, :, np.newaxis], gap, axis=2)
        future = [self._held.get(after + i) for i in range(max(self._wait, 1))]
        while future and future[-1] is None:
            future.pop()
        columns = [*self._past, *([None] * gap), *future]
        nothing = np.zeros(self.head.channels, np.int32)
        codes = np.stack([nothing if c is None else c for c in columns], axis=1)
        lost = np.tile([c is None for c in columns], (self.head.channels, 1))
        wanted = slice(len(self._past), len(self._past) + gap)
        return self._repairer.latents(codes, lost)[..., wanted]

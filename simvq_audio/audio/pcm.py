"""Live PCM: raw samples, and WAV of unstated length.

libsndfile must seek, which pipes cannot, so live audio is read and written here.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np

from simvq_audio.errors import AudioError

_READ_BYTES = 1 << 16
_PCM_TAG, _FLOAT_TAG, _EXTENSIBLE_TAG = 1, 3, 0xFFFE
# FFmpeg's names, by (tag, bits) of a WAV header.
_NAMES = {
    (_PCM_TAG, 8): "u8",
    (_PCM_TAG, 16): "s16le",
    (_PCM_TAG, 24): "s24le",
    (_PCM_TAG, 32): "s32le",
    (_FLOAT_TAG, 32): "f32le",
    (_FLOAT_TAG, 64): "f64le",
}
PCM_FORMATS = tuple(_NAMES.values())
_TAGS = {name: key for key, name in _NAMES.items()}
_UNKNOWN = 2**32 - 1
# Programs that cannot seek back write 0, or about 2 or 4 GiB, as the length.
_LEAST_UNKNOWN = 2**31 - 2**16
_MAX_FORMAT_BYTES = 1024


def sample_bytes(name: str) -> int:
    """Bytes of one sample.

    Raises:
        AudioError: there is no such format.
    """
    try:
        return _TAGS[name][1] // 8
    except KeyError:
        raise AudioError(f"{name}: raw PCM is one of {', '.join(PCM_FORMATS)}") from None


def from_pcm(data: bytes, name: str, channels: int) -> np.ndarray:
    """Interleaved samples as float32 (samples, channels)."""
    if name == "u8":
        samples = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    elif name == "s24le":
        # Into the upper three bytes of 32 bits, which keeps the sign.
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        samples = wide.view("<i4").reshape(-1).astype(np.float32) / 2**31
    elif name.startswith("f"):
        samples = np.frombuffer(data, f"<f{sample_bytes(name)}").astype(np.float32)
    else:
        width = sample_bytes(name)
        samples = np.frombuffer(data, f"<i{width}").astype(np.float32) / 2 ** (8 * width - 1)
    return samples.reshape(-1, channels)


def to_pcm(samples: np.ndarray, name: str) -> tuple[bytes, int]:
    """Interleave float (samples, channels); also how many samples were clipped to full scale."""
    clipped = int(np.count_nonzero(np.abs(samples) > 1))
    if name.startswith("f"):
        return samples.astype(f"<f{sample_bytes(name)}").tobytes(), 0
    bits = 8 * sample_bytes(name)
    top = 2 ** (bits - 1)
    levels = np.clip(np.rint(samples.astype(np.float64) * top), -top, top - 1).astype("<i4")
    if name == "u8":
        return (levels + 128).astype(np.uint8).tobytes(), clipped
    if name == "s24le":
        return np.ascontiguousarray(levels).view(np.uint8).reshape(-1, 4)[:, :3].tobytes(), clipped
    return levels.astype(f"<i{bits // 8}").tobytes(), clipped


class PcmReader:
    """Audio from a stream that cannot seek, as soon as it arrives.

    Args:
        stream: raw samples, or WAV.
        name: for messages.
        raw: one of ``PCM_FORMATS``; None: a WAV header says what it is.
        sample_rate, channels: of raw samples.

    Attributes:
        sample_rate, channels: of the audio.

    Raises:
        AudioError: the stream is empty, or not WAV that can be read without seeking.
    """

    def __init__(
        self,
        stream: BinaryIO,
        name: str,
        raw: str | None = None,
        sample_rate: int = 0,
        channels: int = 0,
    ) -> None:
        self._stream = stream
        self._name = name
        self._left: int | None = None  # bytes of samples that follow, if stated
        self._rest = b""
        if raw is None:
            self._format, self.sample_rate, self.channels = self._read_header()
        else:
            self._format, self.sample_rate, self.channels = raw, sample_rate, channels
        self._step = sample_bytes(self._format) * self.channels

    def read(self) -> np.ndarray | None:
        """Samples that have arrived, at least one, float32 (samples, channels); None at the end."""
        while self._left != 0:
            most = _READ_BYTES if self._left is None else min(_READ_BYTES, self._left)
            data = self._stream.read1(most)  # type: ignore[attr-defined]
            if not data:
                break
            if self._left is not None:
                self._left -= len(data)
            data = self._rest + data
            whole = len(data) // self._step * self._step
            self._rest = data[whole:]
            if whole:
                return from_pcm(data[:whole], self._format, self.channels)
        return None

    def _exactly(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise AudioError(f"{self._name}: ends within the WAV header")
        return data

    def _read_header(self) -> tuple[str, int, int]:
        magic = self._stream.read(12)
        if not magic:
            raise AudioError(f"{self._name}: is empty (0 bytes)")
        if magic[:4] not in (b"RIFF", b"RF64") or magic[8:] != b"WAVE":
            raise AudioError(
                f"{self._name}: is not WAV, which --stream needs; convert it, as with "
                "ffmpeg -i - -f wav -, or describe raw samples with --raw, --rate and --channels"
            )
        found: tuple[str, int, int] | None = None
        long_size: int | None = None
        while True:
            kind, size = struct.unpack("<4sI", self._exactly(8))
            if kind == b"data":
                break
            padded = size + size % 2
            if kind in (b"fmt ", b"ds64"):
                if padded > _MAX_FORMAT_BYTES:
                    raise AudioError(f"{self._name}: has a damaged WAV header")
                content = self._exactly(padded)
                if kind == b"fmt ":
                    found = self._read_format(content)
                elif len(content) >= 16:
                    long_size = int.from_bytes(content[8:16], "little")
                continue
            while padded > 0:
                padded -= len(self._exactly(min(padded, _READ_BYTES)))
        if found is None:
            raise AudioError(f"{self._name}: has a damaged WAV header")
        if size == _UNKNOWN and long_size:
            self._left = long_size
        elif 0 < size < _LEAST_UNKNOWN:
            self._left = size
        return found

    def _read_format(self, content: bytes) -> tuple[str, int, int]:
        if len(content) < 16:
            raise AudioError(f"{self._name}: has a damaged WAV header")
        tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", content)
        if tag == _EXTENSIBLE_TAG and len(content) >= 26:
            (tag,) = struct.unpack_from("<H", content, 24)
        if (tag, bits) not in _NAMES or not channels:
            raise AudioError(
                f"{self._name}: holds WAV of a kind (tag {tag}, {bits} bits) that --stream does "
                "not take; convert it to 16-bit PCM"
            )
        return _NAMES[tag, bits], rate, channels


def wav_header(sample_rate: int, channels: int) -> bytes:
    """The header of 16-bit WAV whose length is not known, as FFmpeg writes it into pipes."""
    width = 2 * channels
    form = struct.pack("<HHIIHH", _PCM_TAG, channels, sample_rate, sample_rate * width, width, 16)
    return b"".join(
        (
            struct.pack("<4sI4s", b"RIFF", _UNKNOWN, b"WAVE"),
            struct.pack("<4sI", b"fmt ", len(form)),
            form,
            struct.pack("<4sI", b"data", _UNKNOWN),
        )
    )

"""Pipes of PCM: the samples that libsndfile reads from the same bytes, and back."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from simvq_audio.audio.pcm import PCM_FORMATS, PcmReader, from_pcm, to_pcm, wav_header
from simvq_audio.errors import AudioError

SUBTYPES = {
    "u8": "PCM_U8",
    "s16le": "PCM_16",
    "s24le": "PCM_24",
    "s32le": "PCM_32",
    "f32le": "FLOAT",
    "f64le": "DOUBLE",
}


class Dribble(io.RawIOBase):
    """A pipe whose bytes arrive a few at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step = io.BytesIO(data), step

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._data.readinto(memoryview(buffer)[: self._step])


def read_all(data: bytes, step: int = 7, **raw: object) -> tuple[PcmReader, np.ndarray]:
    reader = PcmReader(io.BufferedReader(Dribble(data, step)), "the pipe", **raw)
    pieces = [np.empty((0, reader.channels), np.float32)]
    while (piece := reader.read()) is not None:
        assert len(piece)
        pieces.append(piece)
    return reader, np.concatenate(pieces)


def wav(subtype: str, channels: int = 2, form: str = "WAV") -> tuple[bytes, np.ndarray]:
    samples = np.random.default_rng(0).uniform(-1, 1, (501, channels))
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, subtype=subtype, format=form)
    return file.getvalue(), soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0]


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("name", PCM_FORMATS)
def test_wav_is_read_as_libsndfile_reads_it(name, form):
    data, expected = wav(SUBTYPES[name], form=form)
    reader, samples = read_all(data)
    assert (reader.sample_rate, reader.channels) == (16_000, 2)
    assert np.array_equal(samples, expected)


@pytest.mark.parametrize("name", PCM_FORMATS)
def test_raw_samples_are_those_of_the_wav(name):
    data, expected = wav(SUBTYPES[name])
    start = data.index(b"data") + 8
    raw = data[start : start + expected.size * int(name.strip("sulef")) // 8]
    _, samples = read_all(raw, raw=name, sample_rate=8000, channels=2)
    assert np.array_equal(samples, expected)
    back, clipped = to_pcm(samples, name)
    assert clipped == 0
    # float32 holds no more than 24 bits of a sample.
    assert back == raw or name in ("s32le", "f64le")
    assert np.array_equal(from_pcm(back, name, 2), expected)


@pytest.mark.parametrize("size", [0, 2**31 - 37, 2**32 - 1])
def test_a_length_that_is_not_stated_ends_with_the_pipe(size):
    data, expected = wav("PCM_16")
    at = data.index(b"data") + 4
    _, samples = read_all(data[:at] + struct.pack("<I", size) + data[at + 4 :])
    assert np.array_equal(samples, expected)


def test_what_follows_the_samples_is_not_audio():
    data, expected = wav("PCM_16")
    _, samples = read_all(data + b"LIST" + struct.pack("<I", 4) + b"abcd")
    assert np.array_equal(samples, expected)
    # A chunk in front, of odd length.
    _, samples = read_all(data[:12] + b"note" + struct.pack("<I", 3) + b"abc\0" + data[12:])
    assert np.array_equal(samples, expected)


def test_a_sample_that_is_cut_is_left_out():
    data, expected = wav("PCM_16")
    _, samples = read_all(data[:-3])
    assert np.array_equal(samples, expected[:-1])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"text " * 99, "is not WAV"),
        (wav("PCM_16")[0][:30], "ends within the WAV header"),
        (wav("ULAW")[0], "tag 7, 8 bits"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "damaged WAV header"),
        (b"RIFF\0\0\0\0WAVEfmt \xff\xff\xff\x7f", "damaged WAV header"),
        (b"RIFF\0\0\0\0WAVEfmt \4\0\0\0abcd", "damaged WAV header"),
    ],
)
def test_what_cannot_be_read_is_named(data, words):
    with pytest.raises(AudioError, match=f"the pipe: .*{words}"):
        read_all(data)


def test_the_header_of_unstated_length():
    samples, clipped = to_pcm(np.array([[0.5, -2.0], [1.5, 0.25]]), "s16le")
    assert clipped == 2
    read, rate = soundfile.read(io.BytesIO(wav_header(44_100, 2) + samples), dtype="int16")
    assert rate == 44_100
    assert read.tolist() == [[16384, -32768], [32767, 8192]]
    with pytest.raises(AudioError, match="s16be: raw PCM is one of u8, s16le"):
        read_all(b"", raw="s16be", sample_rate=1, channels=1)

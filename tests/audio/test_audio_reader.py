"""Reading of recordings: formats, damage, and what no codec can code."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from simvq_audio.audio import AudioReader, read_audio
from simvq_audio.errors import AudioError

RATE = 16_000


def noise(num_samples: int, channels: int = 1) -> np.ndarray:
    """Return noise, float32, shape (samples, channels), about -20 dB."""
    generator = np.random.default_rng(0)
    return generator.normal(0, 0.1, (num_samples, channels)).astype(np.float32)


def all_blocks(reader: AudioReader, block_samples: int) -> np.ndarray:
    return np.concatenate(list(reader.blocks(block_samples)))


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff"])
def test_lossless_formats_give_the_samples_back(tmp_path: Path, suffix: str, channels: int) -> None:
    samples = np.rint(noise(5000, channels) * 32768) / 32768
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    with AudioReader(path) as reader:
        assert (reader.sample_rate, reader.channels) == (RATE, channels)
        assert reader.num_samples == 5000
        assert reader.duration == 5000 / RATE
        blocks = list(reader.blocks(999))
    assert [len(block) for block in blocks] == [999] * 5 + [5]
    assert all(block.dtype == np.float32 for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), samples)
    waveform, rate = read_audio(path)
    assert rate == RATE and waveform.dtype == np.float32 and waveform.flags.c_contiguous
    np.testing.assert_array_equal(waveform, samples.T)


@pytest.mark.parametrize(
    ("file_format", "subtype"),
    [("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", None), ("WAV", "FLOAT")],
)
def test_the_block_size_does_not_change_the_samples(
    tmp_path: Path, file_format: str, subtype: str | None
) -> None:
    path = tmp_path / "a"
    soundfile.write(path, noise(100_000), RATE, format=file_format, subtype=subtype)
    with AudioReader(path) as reader:
        whole = all_blocks(reader, 1_000_000)
    for block_samples in (500, 4096):
        with AudioReader(path) as reader:
            np.testing.assert_array_equal(all_blocks(reader, block_samples), whole)
    assert whole.shape == (100_000, 1)
    assert np.abs(whole).max() > 0.1


def test_blocks_are_arrays_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(300), RATE, subtype="FLOAT")
    with AudioReader(path) as reader:
        first, second, third = reader.blocks(100)
    np.testing.assert_array_equal(np.concatenate([first, second, third]), noise(300))


def test_binary_files_are_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    soundfile.write(stream, noise(1000, 2), RATE, format="WAV", subtype="FLOAT")
    with AudioReader(io.BytesIO(stream.getvalue())) as reader:
        np.testing.assert_array_equal(reader.read(), noise(1000, 2).T)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe_is_read(tmp_path: Path) -> None:
    path, pipe = tmp_path / "a.wav", tmp_path / "pipe"
    soundfile.write(path, noise(50_000), RATE, subtype="FLOAT")
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()), daemon=True)
    writer.start()
    with AudioReader(pipe) as reader:
        np.testing.assert_array_equal(reader.read(), noise(50_000).T)
    writer.join(10)
    assert not writer.is_alive()


@pytest.mark.parametrize("suffix", [".wav", ".aiff"])
def test_a_recording_without_samples_yields_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, noise(0, 2), RATE)
    with AudioReader(path) as reader:
        assert reader.num_samples == 0
        assert list(reader.blocks()) == []
    assert read_audio(path)[0].shape == (2, 0)


def test_values_beyond_full_scale_are_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.array([0.0, 1.5, -20.0]), RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(path)[0], np.array([[0.0, 1.5, -20.0]], np.float32))


def test_a_length_that_the_header_does_not_state(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(20_000), RATE)
    data = bytearray(path.read_bytes())
    # The sample count of STREAMINFO: 36 bits, of which zero means unknown.
    assert data[22:26] == (20_000).to_bytes(4, "big")
    data[22:26] = bytes(4)
    path.write_bytes(data)
    with AudioReader(path) as reader:
        assert reader.num_samples is None and reader.duration is None
        assert reader.read().shape == (1, 20_000)


def test_a_wav_file_from_a_pipe_states_no_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(20_000), RATE, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    assert data[36:40] == b"data"
    data[4:8] = data[40:44] = b"\xff" * 4
    path.write_bytes(data)
    assert read_audio(path)[0].shape == (1, 20_000)


def assert_refused(source: object, words: str) -> None:
    """Reading ends with one line that begins with the name of the file."""
    with pytest.raises(AudioError, match=words) as info:
        read_audio(source)  # type: ignore[arg-type]
    assert "\n" not in str(info.value)
    assert str(info.value).startswith(f"{source}: " if isinstance(source, Path) else "the audio")


def test_a_missing_file(tmp_path: Path) -> None:
    assert_refused(tmp_path / "missing.wav", "No such file")


def test_a_folder(tmp_path: Path) -> None:
    assert_refused(tmp_path, "is a folder")


def test_zero_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.touch()
    assert_refused(path, "empty")
    assert_refused(io.BytesIO(), "empty")


@pytest.mark.parametrize("name", ["a.wav", "a.txt", "a.raw", "a.mp3"])
def test_what_is_no_audio_lists_the_formats(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"This is a text. " * 100)
    assert_refused(path, "wav, flac, ogg, opus, mp3, aiff")


def test_a_truncated_flac_file(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(100_000), RATE)
    path.write_bytes(path.read_bytes()[:50_000])
    assert_refused(path, "damaged or truncated")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_located(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.wav"
    samples = noise(2 * RATE, 2)
    samples[RATE + RATE // 2, 1] = value
    samples[RATE + RATE // 2 + 1] = value
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    assert_refused(path, rf"{value} at 1\.500000 s \(sample 24000, channel 2\)")
    with AudioReader(path) as reader, pytest.raises(AudioError, match="sample 24000, channel 2"):
        list(reader.blocks(1000))

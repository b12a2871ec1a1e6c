"""Writing of recordings: precision, full scale, limits of the formats, and failures."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from simvq_audio.audio import AudioReader, AudioWriter, read_audio
from simvq_audio.errors import AudioError

RATE = 24_000


def noise(num_samples: int, channels: int = 1) -> np.ndarray:
    """Return noise, float32, shape (samples, channels), about -20 dB."""
    generator = np.random.default_rng(1)
    return generator.normal(0, 0.1, (num_samples, channels)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("suffix", [".wav", ".WAV", ".flac"])
def test_what_is_written_is_read(tmp_path: Path, suffix: str, channels: int) -> None:
    path = tmp_path / f"a{suffix}"
    samples = noise(5000, channels)
    with AudioWriter(path, RATE, channels) as writer:
        writer.write(samples[:123])
        writer.write(samples[123:123])
        writer.write(samples[123:])
    assert (writer.num_samples, writer.clipped) == (5000, 0)
    waveform, rate = read_audio(path)
    assert rate == RATE
    assert np.abs(waveform - samples.T).max() <= 0.5 / 32768
    info = soundfile.info(path)
    assert (info.format, info.subtype) == (suffix[1:].upper(), "PCM_16")


def test_sixteen_bit_samples_survive_unchanged(tmp_path: Path) -> None:
    every_value = np.arange(-32768, 32768).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", every_value, RATE)
    reader, writer = AudioReader(tmp_path / "a.wav"), AudioWriter(tmp_path / "b.wav", RATE, 1)
    with reader, writer:
        for block in reader.blocks(1000):
            writer.write(block)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "b.wav", dtype="int16")[0], every_value)
    assert writer.clipped == 0


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_values_beyond_full_scale_become_full_scale(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    samples = np.array([[1.0], [1.001], [-1.0], [-1.001], [5e9], [-5e9], [0.5]], np.float32)
    with AudioWriter(path, RATE, 1) as writer:
        writer.write(samples)
    assert writer.clipped == 4
    assert soundfile.read(path, dtype="int16")[0].tolist() == (
        [32767, 32767, -32768, -32768, 32767, -32768, 16384]
    )


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("num_samples", [0, 1])
def test_the_shortest_recordings(tmp_path: Path, suffix: str, num_samples: int) -> None:
    path = tmp_path / f"a{suffix}"
    with AudioWriter(path, 44_100, 2) as writer:
        writer.write(np.full((num_samples, 2), 0.5, np.float32))
    waveform, rate = read_audio(path)
    assert rate == 44_100
    np.testing.assert_array_equal(waveform, np.full((2, num_samples), 0.5, np.float32))


def test_a_stream_gets_wav(tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        """Refuses what a pipe refuses."""

        def seek(self, *position: int) -> int:
            raise OSError("Illegal seek")

    pipe = Pipe()
    with AudioWriter(pipe, RATE, 2) as writer:
        writer.write(noise(1000, 2))
    with AudioWriter(tmp_path / "a.wav", RATE, 2) as writer:
        writer.write(noise(1000, 2))
    assert pipe.getvalue() == (tmp_path / "a.wav").read_bytes()


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("written", [0, 1000])
def test_an_exception_leaves_nothing(tmp_path: Path, suffix: str, written: int) -> None:
    stream = io.BytesIO()
    for target in (tmp_path / f"a{suffix}", stream):
        with pytest.raises(KeyError, match="on purpose"), AudioWriter(target, RATE, 1) as writer:
            writer.write(noise(written))
            raise KeyError("on purpose")
    assert list(tmp_path.iterdir()) == []
    assert stream.getvalue() == b""


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_num_samples_is_what_was_written_so_far(tmp_path: Path, suffix: str) -> None:
    with AudioWriter(tmp_path / f"a{suffix}", RATE, 2, expected_samples=1000) as writer:
        assert writer.num_samples == 0
        writer.write(noise(300, 2))
        assert writer.num_samples == 300
        # Nothing has the final name while it is half written.
        assert not (tmp_path / f"a{suffix}").exists()
    assert soundfile.info(tmp_path / f"a{suffix}").frames == writer.num_samples == 300


def test_an_exception_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"older")
    with pytest.raises(AudioError, match="NaN"), AudioWriter(path, RATE, 1) as writer:
        writer.write(noise(10))
        writer.write(np.full((1, 1), np.nan, np.float32))
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a", "wav"])
def test_other_suffixes_name_the_two(tmp_path: Path, name: str) -> None:
    with pytest.raises(AudioError, match=r"\.wav or \.flac"):
        AudioWriter(tmp_path / name, RATE, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "rate", "channels", "words"),
    [
        ("a.flac", RATE, 9, "FLAC holds up to 8 channels, not 9; write .wav"),
        ("a.flac", 655_360, 1, "FLAC cannot hold a rate of 655360 Hz; write .wav"),
        ("a.flac", 88_211, 1, "FLAC cannot hold a rate of 88211 Hz; write .wav"),
        ("a.wav", RATE, 1025, "cannot hold 1025 channels"),
        ("a.wav", RATE, 0, "cannot hold 0 channels"),
        ("a.wav", 0, 1, "at 0 Hz"),
    ],
)
def test_limits_of_the_formats(
    tmp_path: Path, name: str, rate: int, channels: int, words: str
) -> None:
    with pytest.raises(AudioError, match=words):
        AudioWriter(tmp_path / name, rate, channels)


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [
        ("a.flac", 655_350, 8),
        ("a.flac", 88_200, 1),
        ("a.flac", 65_535, 1),
        ("a.wav", 88_211, 9),
        ("a.wav", 768_000, 255),
    ],
)
def test_what_is_within_the_limits(tmp_path: Path, name: str, rate: int, channels: int) -> None:
    with AudioWriter(tmp_path / name, rate, channels) as writer:
        writer.write(noise(100, channels))
    waveform, read_rate = read_audio(tmp_path / name)
    assert (waveform.shape, read_rate) == ((channels, 100), rate)


@pytest.mark.parametrize("shape", [(10,), (10, 1), (2, 10), (1, 10, 2)])
def test_blocks_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "a.wav"
    with pytest.raises(AudioError, match="shape"), AudioWriter(path, RATE, 2) as writer:
        writer.write(np.zeros(shape, np.float32))


@pytest.mark.parametrize(("num_samples", "magic"), [(2**31, b"RF64"), (2**30, b"RIFF")])
def test_more_than_4_gib_becomes_rf64(tmp_path: Path, num_samples: int, magic: bytes) -> None:
    path = tmp_path / "a.wav"
    # Only announced: writing it would take the disk space.
    with AudioWriter(path, RATE, 1, num_samples) as writer:
        writer.write(noise(100))
    assert path.read_bytes()[:4] == magic
    assert read_audio(path)[0].shape == (1, 100)


def test_wav_of_unannounced_length_ends_at_4_gib(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with pytest.raises(AudioError, match="4 GiB"), AudioWriter(path, RATE, 1) as writer:
        writer.num_samples = 2**31 - 1000  # As if they had been written.
        writer.write(noise(1000))
    assert not path.exists()


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), AudioWriter(tmp_path / "no" / "a.wav", RATE, 1):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes on this system")
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_full_disk_is_an_os_error(tmp_path: Path, suffix: str) -> None:
    # The largest file that the process may write stands for a full disk.
    script = f"""
import resource
import numpy as np
from simvq_audio.audio import AudioWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
noise = np.random.default_rng(0).normal(0, 0.1, (100_000, 1))
try:
    with AudioWriter({str(tmp_path / f"a{suffix}")!r}, 24_000, 1) as writer:
        writer.write(noise)
except OSError as error:
    print("refused:", error.strerror)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.startswith("refused: cannot be written; is the disk full?")
    assert list(tmp_path.iterdir()) == []

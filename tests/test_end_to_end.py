"""The program as a user runs it: real processes, the embedded model, the shipped recording."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from simvq_audio import Codec, Codes
from simvq_audio.cli import main
from simvq_audio.embedded import embedded_models

HELLO = Path(__file__).parent.parent / "examples" / "hello.wav"


def run(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "simvq_audio", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
    )


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load(device="cpu")


@pytest.fixture(scope="module")
def hello(codec) -> Codes:
    return codec.encode_file(HELLO)


def test_encode_and_decode_the_shipped_recording(tmp_path, codec, hello):
    """Encoded from a file to a file, decoded from a pipe to a pipe."""
    codes, decoded = tmp_path / "hello.codes", tmp_path / "hello.wav"
    done = run("encode", HELLO, codes, "--device", "cpu", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    report = json.loads(done.stdout)
    assert report["bytes"] == codes.stat().st_size
    assert report["nominal_kbps"] <= 1.0
    assert Codes.load(codes) == hello

    done = run("decode", "-", "-", "--device", "cpu", stdin=codes.read_bytes())
    assert (done.returncode, done.stdout[:4]) == (0, b"RIFF")
    decoded.write_bytes(done.stdout)
    original, rate = soundfile.read(HELLO, dtype="float32")
    result, result_rate = soundfile.read(decoded, dtype="float32")
    assert (result.shape, result_rate) == (original.shape, rate)
    np.testing.assert_allclose(
        result, codec.decode(hello)[0].clamp(-1, 1).numpy(), atol=1.1 / 32768
    )


def test_the_file_has_the_stated_bit_rate(codec):
    """Ten seconds at 975 bit/s: 1219 bytes of payload, 32 of header and checksum."""
    assert codec.bitrate == 975
    waveform = 0.1 * np.random.default_rng(0).standard_normal(240_000).astype(np.float32)
    assert len(codec.encode(waveform, 24_000).to_bytes("fixed")) == 1219 + 32


def test_decoded_speech_resembles_the_original(codec, hello):
    """Energy over time and frequency follows the recording's; noise or silence would not."""
    original, _ = soundfile.read(HELLO, dtype="float32")
    decoded = codec.decode(hello)[0].numpy()

    def log_bands(waveform: np.ndarray) -> np.ndarray:
        frames = np.lib.stride_tricks.sliding_window_view(waveform, 1024)[::512]
        power = np.abs(np.fft.rfft(frames * np.hanning(1024))) ** 2
        edges = np.geomspace(4, 340, 16).astype(int)
        return np.log(np.add.reduceat(power, edges, axis=1)[:, :-1] + 1e-3)

    def correlation(other: np.ndarray) -> float:
        return float(np.corrcoef(log_bands(original).ravel(), log_bands(other).ravel())[0, 1])

    assert correlation(decoded) > 0.85
    rng = np.random.default_rng(0)
    assert correlation(rng.permutation(decoded)) < 0.6


def test_chunked_is_whole_with_the_embedded_model(codec, hello):
    pieces = Codec.load(device="cpu", batch_seconds=1.5)
    assert pieces.encode_file(HELLO) == hello
    np.testing.assert_array_equal(pieces.decode(hello), codec.decode(hello))


def test_batch_is_one_by_one_with_the_embedded_model(codec):
    waveform, rate = soundfile.read(HELLO, dtype="float32")
    parts = [waveform[:50_000], waveform[60_000:71_000], waveform]
    assert codec.encode_batch(parts, rate) == [codec.encode(part, rate) for part in parts]


def test_silence_stays_silent(codec):
    silence = codec.decode(codec.encode(np.zeros(48_000, np.float32), 24_000))
    assert silence.abs().max() < 10 ** (-50 / 20)


def test_what_is_embedded_is_small_licensed_and_described(capsys):
    with pytest.raises(SystemExit):
        main(["models", "--json"])
    printed = capsys.readouterr().out
    for model in embedded_models():
        assert model.file_bytes <= 40_000_000
        assert model.licence
        assert model.description
        assert model.path.with_name("MODEL_CARD.md").is_file()
        assert model.model_id in printed


def test_model_of_other_codes_is_refused(tmp_path, hello, capsys):
    foreign = Codes(
        hello.indices, hello.codebook_size, "0" * 12, hello.sample_rate, hello.num_samples
    )
    foreign.save(tmp_path / "foreign.codes")
    with pytest.raises(SystemExit) as end:
        main(["decode", str(tmp_path / "foreign.codes"), str(tmp_path / "out.wav")])
    errors = capsys.readouterr().err
    assert end.value.code == 1
    assert errors.count("\n") == 1 and "000000000000" in errors
    assert not (tmp_path / "out.wav").exists()

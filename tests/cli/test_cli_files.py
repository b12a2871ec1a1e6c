"""``encode`` and ``decode`` of single files, pipes and bare indices."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from simvq_audio.audio import read_audio
from simvq_audio.bitstream import Codes
from simvq_audio.codec import Codec, StreamDecoder, StreamEncoder
from simvq_audio.errors import CodesError
from simvq_audio.model.storage import load_model, save_model

MakeAudio = Callable[..., np.ndarray]


def content(folder: Path) -> set[str]:
    """The names in a folder, hidden ones included, so that leftovers show."""
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (8_000, 2), (192_000, 1), (44_100, 8)])
def test_a_round_trip_keeps_rate_length_and_sound(
    tmp_path: Path, small, run, make_audio: MakeAudio, suffix: str, rate: int, channels: int
) -> None:
    samples = make_audio(tmp_path / "a.wav", 0.4321, rate, channels)
    ended = run("encode", tmp_path / "a.wav", tmp_path / "a.codes")
    assert (ended.code, ended.errors) == (0, "")
    assert str(tmp_path / "a.codes") in ended.text and "kbit/s" in ended.text
    assert ended.text.count("\n") <= 2
    ended = run("decode", tmp_path / "a.codes", tmp_path / f"b{suffix}")
    assert (ended.code, ended.errors) == (0, "")
    assert f"b{suffix}" in ended.text
    decoded, decoded_rate = soundfile.read(tmp_path / f"b{suffix}", always_2d=True)
    assert decoded_rate == rate and decoded.shape == samples.shape
    # What the codec makes of the same samples.
    waveform, _ = read_audio(tmp_path / "a.wav")
    expected = small.codec.decode(small.codec.encode(waveform, rate)).clamp(-1, 1)
    np.testing.assert_allclose(decoded.T, expected, atol=1e-3)
    assert content(tmp_path) == {"a.wav", "a.codes", f"b{suffix}"}


def test_native_rate(tmp_path: Path, small, run, make_audio: MakeAudio) -> None:
    make_audio(tmp_path / "a.wav", 0.5, 44_100)
    run("encode", tmp_path / "a.wav", tmp_path / "a.codes")
    ended = run("decode", tmp_path / "a.codes", tmp_path / "b.wav", "--native-rate")
    assert ended.code == 0
    info = soundfile.info(tmp_path / "b.wav")
    assert (info.samplerate, info.frames) == (24_000, 12_000)


def test_options_reach_the_codec(
    tmp_path: Path, small, run, make_audio: MakeAudio, model_file: Path
) -> None:
    make_audio(tmp_path / "a.wav")
    model = model_file
    options = ["-m", model, "--device", "cpu", "--batch-seconds", "7"]
    assert run("encode", tmp_path / "a.wav", tmp_path / "a.codes", *options).code == 0
    assert run("decode", tmp_path / "a.codes", tmp_path / "b.wav").code == 0
    assert small.loads == [
        {"model": str(model), "device": "cpu", "batch_seconds": 7.0},
        {"model": None, "device": "auto", "batch_seconds": 30.0},
    ]


def test_json_for_files(tmp_path: Path, small, run, make_audio: MakeAudio) -> None:
    make_audio(tmp_path / "a.wav", 2.0, 16_000, 2)
    ended = run("encode", tmp_path / "a.wav", tmp_path / "a.codes", "--json")
    result = json.loads(ended.text)
    elapsed, speed = result.pop("elapsed_seconds"), result.pop("times_real_time")
    assert elapsed > 0 and speed == pytest.approx(2 / elapsed)
    size = (tmp_path / "a.codes").stat().st_size
    assert result == {
        "input": str(tmp_path / "a.wav"),
        "output": str(tmp_path / "a.codes"),
        "seconds": 2.0,
        "bytes": size,
        "nominal_kbps": pytest.approx(0.675),  # of one channel
        "file_kbps": pytest.approx(8 * size / 2 / 2 / 1000),
        "channels": 2,
        "sample_rate": 16_000,
        "frames": 150,
    }
    ended = run("decode", tmp_path / "a.codes", tmp_path / "b.wav", "--json")
    decoded = json.loads(ended.text)
    assert decoded["bytes"] == (tmp_path / "b.wav").stat().st_size
    assert decoded["clipped_samples"] == 0
    for key in ("seconds", "nominal_kbps", "file_kbps", "channels", "sample_rate", "frames"):
        assert decoded[key] == result[key]


def test_quiet_prints_nothing(tmp_path: Path, small, run, make_audio: MakeAudio) -> None:
    make_audio(tmp_path / "a.wav")
    for arguments in (("encode", "a.wav", "a.codes"), ("decode", "a.codes", "b.wav")):
        command, *names = arguments
        ended = run(command, *(tmp_path / name for name in names), "--quiet")
        assert (ended.code, ended.output, ended.errors) == (0, b"", "")
    run("encode", tmp_path / "no.wav", tmp_path / "no.codes", "-q").assert_refused("No such file")


def test_pipes(tmp_path: Path, small, run, make_audio: MakeAudio) -> None:
    make_audio(tmp_path / "a.wav", 0.3, 44_100, 2)
    assert run("encode", tmp_path / "a.wav", tmp_path / "a.codes").code == 0
    encoded = run("encode", "-", "-", stdin=(tmp_path / "a.wav").read_bytes())
    assert encoded.code == 0
    assert encoded.output == (tmp_path / "a.codes").read_bytes()
    # Messages must not get into the data.
    assert "kbit/s" in encoded.errors
    decoded = run("decode", "-", "-", stdin=encoded.output)
    assert decoded.code == 0 and "real time" in decoded.errors
    info = soundfile.info(io.BytesIO(decoded.output))
    assert (info.format, info.samplerate, info.channels) == ("WAV", 44_100, 2)
    assert info.frames == soundfile.info(tmp_path / "a.wav").frames
    assert run("decode", tmp_path / "a.codes", tmp_path / "b.wav").code == 0
    assert (tmp_path / "b.wav").read_bytes() == decoded.output


def test_what_a_pipe_is_refused(tmp_path: Path, small, run) -> None:
    run("encode", "-", "-", stdin=b"").assert_refused("standard input: is empty")
    run("encode", "-", "-", stdin=b"text " * 99).assert_refused("standard input: is not audio")
    run("decode", "-", "-", stdin=b"").assert_refused("standard input: ")
    run("decode", "-", "-", stdin=b"text " * 99).assert_refused("standard input: ")
    run("encode", "-", "-", "--json", stdin=b"").assert_refused("--json")
    run("decode", "-", "-", "--format", "flac").assert_refused("wav")
    assert small.loads == []


@pytest.mark.parametrize("channels", [1, 2])
def test_bare_indices(tmp_path: Path, small, run, make_audio: MakeAudio, channels: int) -> None:
    make_audio(tmp_path / "a.wav", 0.5, small.codec.sample_rate, channels)
    assert run("encode", tmp_path / "a.wav", tmp_path / "a.npy").code == 0
    assert run("encode", tmp_path / "a.wav", tmp_path / "a.codes").code == 0
    indices = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert indices.dtype == np.int32
    assert indices.shape == ((38,) if channels == 1 else (channels, 38))
    expected = Codes.load(tmp_path / "a.codes").indices
    np.testing.assert_array_equal(np.atleast_2d(indices), expected)
    assert run("decode", tmp_path / "a.npy", tmp_path / "b.wav").code == 0
    decoded, rate = soundfile.read(tmp_path / "b.wav", always_2d=True)
    assert rate == small.codec.sample_rate and decoded.shape == (38 * 320, channels)
    assert content(tmp_path) == {"a.wav", "a.npy", "a.codes", "b.wav"}


def as_npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


_SOUND = as_npy(np.zeros(100, np.int32))


def with_shape(shape: str) -> bytes:
    """A file whose header claims a shape that it does not have."""
    right = b"(100,), }".ljust(40)
    assert right in _SOUND
    return _SOUND.replace(right, f"{shape}, }}".encode().ljust(40))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"text " * 100,
        _SOUND[:-1],
        with_shape("(900000000000,)"),
        with_shape("(4611686018427387904, 64)"),
        with_shape("(-100,)"),
        _SOUND.replace(b"'descr'", b"'de\ncr'"),
        as_npy(np.array([{}], dtype=object)),
        as_npy(np.zeros(100, np.float32)),
        as_npy(np.zeros((1, 2, 3), np.int32)),
        as_npy(np.zeros((), np.int32)),
        as_npy(np.array([0, 512])),
        as_npy(np.array([-1])),
        as_npy(np.array([2**32])),
    ],
)
def test_damaged_indices(tmp_path: Path, small, run, data: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    run("decode", tmp_path / "a.npy", tmp_path / "b.wav").assert_refused("")
    assert content(tmp_path) == {"a.npy"}


@pytest.mark.parametrize("at", range(0, 128, 3))
def test_any_damage_of_the_npy_header_is_one_line(tmp_path: Path, small, run, at: int) -> None:
    for value in (0, 0x28, 0xFF):
        data = bytearray(_SOUND)
        data[at] = value
        (tmp_path / "a.npy").write_bytes(data)
        ended = run("decode", tmp_path / "a.npy", tmp_path / "b.wav", "-q", "-f")
        # Damaged padding, for instance, still gives the indices.
        if ended.code:
            ended.assert_refused("")
        else:
            assert soundfile.info(tmp_path / "b.wav").frames > 0


def test_an_empty_recording(tmp_path: Path, small, run, make_audio: MakeAudio) -> None:
    make_audio(tmp_path / "a.wav", 0.0, 44_100, 2)
    for name in ("a.codes", "a.npy"):
        assert run("encode", tmp_path / "a.wav", tmp_path / name).code == 0
        for suffix in (".wav", ".flac"):
            target = tmp_path / f"{name}{suffix}"
            assert run("decode", tmp_path / name, target).code == 0
            waveform, rate = read_audio(target)
            assert waveform.shape == (2, 0)
            assert rate == (44_100 if name == "a.codes" else small.codec.sample_rate)


def test_one_sample(tmp_path: Path, small, run) -> None:
    soundfile.write(tmp_path / "a.wav", [0.5], 44_100)
    assert run("encode", tmp_path / "a.wav", tmp_path / "a.codes").code == 0
    assert run("decode", tmp_path / "a.codes", tmp_path / "b.wav").code == 0
    info = soundfile.info(tmp_path / "b.wav")
    assert (info.frames, info.samplerate) == (1, 44_100)


def test_silence(tmp_path: Path, small, run) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(3000), 16_000)
    assert run("encode", tmp_path / "a.wav", tmp_path / "a.codes").code == 0
    assert run("decode", tmp_path / "a.codes", tmp_path / "b.wav").code == 0
    decoded, rate = soundfile.read(tmp_path / "b.wav")
    assert (len(decoded), rate) == (3000, 16_000)


def test_nan_is_refused(tmp_path: Path, small, run) -> None:
    soundfile.write(tmp_path / "a.wav", [0.0, np.nan], 16_000, subtype="FLOAT")
    run("encode", tmp_path / "a.wav", tmp_path / "a.codes").assert_refused("a.wav: holds nan at")
    assert content(tmp_path) == {"a.wav"}


def test_clipping_is_reported(tmp_path: Path, small, run, model_file: Path) -> None:
    # A decoder that is 20 dB louder; it decodes the same codes.
    model, header = load_model(model_file)
    bias = model.decoder.head.out.bias
    bias[: len(bias) // 2] += np.log(10)
    save_model(tmp_path / "loud.safetensors", header.config, model.state_dict())
    loud = Codec.load(tmp_path / "loud.safetensors", device="cpu")
    codes = small.codec.codes_from_indices(np.arange(512))
    expected = int((loud.decode(codes).abs() > 1).sum())
    assert expected > 0
    codes.save(tmp_path / "a.codes")
    options = ["--model", tmp_path / "loud.safetensors"]
    ended = run("decode", tmp_path / "a.codes", tmp_path / "b.wav", *options)
    assert ended.code == 0 and f"{expected} samples were clipped" in ended.text
    ended = run("decode", tmp_path / "a.codes", tmp_path / "c.wav", "--json", *options)
    assert json.loads(ended.text)["clipped_samples"] == expected


def test_existing_files_need_force(tmp_path: Path, small, run, make_audio: MakeAudio) -> None:
    make_audio(tmp_path / "a.wav")
    pairs = [("encode", "a.wav", "a.codes"), ("decode", "a.codes", "b.wav")]
    for command, source, target in pairs:
        arguments = command, tmp_path / source, tmp_path / target
        assert run(*arguments).code == 0
        made = (tmp_path / target).read_bytes()
        (tmp_path / target).write_bytes(b"older")
        loads = len(small.loads)
        run(*arguments).assert_refused("exists; --force")
        assert (tmp_path / target).read_bytes() == b"older"
        # Refused before the slow part.
        assert len(small.loads) == loads
        assert run(*arguments, "--force").code == 0
        assert (tmp_path / target).read_bytes() == made


def test_what_is_refused_before_the_model_is_loaded(
    tmp_path: Path, small, run, make_audio: MakeAudio
) -> None:
    make_audio(tmp_path / "a.wav")
    codes = tmp_path / "a.codes"
    small.codec.encode(np.zeros(100), 16_000).save(codes)
    wav = tmp_path / "a.wav"
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "folder.codes").mkdir()
    for arguments, words in [
        (("encode", wav, tmp_path / "b.txt"), "written as .codes, or as .npy"),
        (("encode", wav, tmp_path / "folder.codes"), "is a folder"),
        (("encode", wav, tmp_path / "no" / "b.codes"), "no such folder"),
        (("encode", codes, codes), "same path"),
        (("encode", tmp_path / "no.wav", tmp_path / "b.codes"), "No such file"),
        (("encode", codes, tmp_path / "b.codes"), "is not audio"),
        (("decode", codes, tmp_path / "b.mp3"), ".wav or .flac"),
        (("decode", codes, tmp_path / "folder.wav"), "is a folder"),
        (("decode", codes, tmp_path / "no" / "b.wav"), "no such folder"),
        (("decode", wav, wav), "same path"),
        (("decode", tmp_path / "no.codes", tmp_path / "b.wav"), "no.codes"),
        (("decode", tmp_path / "no.npy", tmp_path / "b.wav"), "no.npy"),
        (("decode", wav, tmp_path / "b.wav"), "not a .codes file"),
        (("decode", codes, tmp_path / "b.wav", "--format", "flac"), "suffix"),
    ]:
        run(*arguments).assert_refused(words)
    assert small.loads == []
    assert content(tmp_path) == {"a.wav", "a.codes", "folder.wav", "folder.codes"}


def test_a_link_to_the_input_is_the_same_path(tmp_path: Path, small, run) -> None:
    codes = tmp_path / "a.codes"
    small.codec.encode(np.zeros(100), 16_000).save(codes)
    link = tmp_path / "b.wav"
    try:
        link.symlink_to(codes)
    except OSError:
        pytest.skip("no symbolic links on this system")
    run("decode", codes, link, "--force").assert_refused("same path")


def test_what_the_codec_refuses(tmp_path: Path, small, run, make_audio: MakeAudio) -> None:
    make_audio(tmp_path / "a.wav")
    encode = "encode", tmp_path / "a.wav", tmp_path / "a.codes"
    run(*encode, "--device", "cuda:7").assert_refused("cuda:7")
    run(*encode, "--model", tmp_path / "none").assert_refused("there is no model file")
    foreign = Codes(np.zeros(10, np.int32), 256, "f" * 12, 8000, 80)
    foreign.save(tmp_path / "foreign.codes")
    run("decode", tmp_path / "foreign.codes", tmp_path / "b.wav").assert_refused("f" * 12)
    assert content(tmp_path) == {"a.wav", "foreign.codes"}


def failing(error: Exception) -> Callable[..., None]:
    def fail(*arguments: object) -> None:
        raise error

    return fail


def test_failures_midway_leave_nothing(
    tmp_path: Path, small, run, make_audio: MakeAudio, monkeypatch
) -> None:
    make_audio(tmp_path / "a.wav", 3.0)
    assert run("encode", tmp_path / "a.wav", tmp_path / "a.codes").code == 0
    # Two of three seconds are written by then.
    options = ["--batch-seconds", "1"]
    monkeypatch.setattr(StreamDecoder, "finish", failing(CodesError("on purpose")))
    for name in ("b.wav", "b.flac"):
        run("decode", tmp_path / "a.codes", tmp_path / name, *options).assert_refused("on purpose")
    run("decode", tmp_path / "a.codes", "-").assert_refused("on purpose")
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(StreamEncoder, "finish", failing(full))
    for name in ("b.codes", "b.npy", "-"):
        target = name if name == "-" else tmp_path / name
        run("encode", tmp_path / "a.wav", target).assert_refused("No space left on device")
    assert content(tmp_path) == {"a.wav", "a.codes"}

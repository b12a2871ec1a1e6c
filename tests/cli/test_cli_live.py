"""Live pipes of real processes: sound comes out before the input ends, and after a kill."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from simvq_audio.audio.pcm import to_pcm, wav_header

# More than any machine takes; a pipe that stops being live would wait for ever.
PATIENCE = 300.0
RATE = 16_000


def speech_like(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return 0.1 * rng.standard_normal((round(seconds * RATE), 1)).astype("f4")


@contextmanager
def started(model: Path, command: str, stdin: int, *options: str) -> Iterator[subprocess.Popen]:
    program = [sys.executable, "-m", "simvq_audio", command, "-", "-", "--stream"]
    process = subprocess.Popen(
        [*program, "-m", str(model), "--device", "cpu", *options],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    stop = threading.Timer(PATIENCE, process.kill)
    stop.start()
    try:
        yield process
    finally:
        stop.cancel()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def dribble(stream: io.BufferedWriter, data: bytes, step: int = 1600) -> None:
    """Write as a microphone does: a little, then sleep."""
    for start in range(0, len(data), step):
        stream.write(data[start : start + step])
        stream.flush()
        time.sleep(0.005)


def offline(codec, samples: np.ndarray, frames: int | None = None) -> np.ndarray:
    """16-bit samples that encoding and decoding in one go give."""
    codes = codec.encode(samples.T, RATE)
    if frames is not None:
        decoder = codec.decoder(RATE)
        parts = [decoder.push(codes.indices[:, :frames]), decoder.finish()]
        decoded = np.concatenate(parts, axis=1)
    else:
        decoded = codec.decode(codes).numpy()
    return np.frombuffer(to_pcm(decoded.T, "s16le")[0], "<i2")


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    # Rounding of float32 depends on how many frames are computed at once.
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_sound_comes_out_while_the_microphone_is_open(codec, model_file):
    """Raw samples in, WAV out."""
    samples = speech_like(4)
    data = to_pcm(samples, "s16le")[0]
    header = wav_header(RATE, 1)
    described = ["--raw", "s16le", "--rate", str(RATE), "--channels", "1"]
    with started(model_file, "encode", subprocess.PIPE, *described) as encode:
        assert encode.stdin and encode.stdout
        with started(model_file, "decode", encode.stdout.fileno()) as decode:
            assert decode.stdout and decode.stderr
            dribble(encode.stdin, data[: 3 * RATE * 2])
            # The first two seconds come out while the input is still open.
            first = decode.stdout.read(len(header) + 2 * RATE * 2)
            assert len(first) == len(header) + 2 * RATE * 2
            assert encode.poll() is None and decode.poll() is None
            dribble(encode.stdin, data[3 * RATE * 2 :])
            encode.stdin.close()
            whole = first + decode.stdout.read()
            assert (encode.wait(), decode.wait()) == (0, 0)
            assert b"4.00 s, 1 channel" in decode.stderr.read()
    assert whole.startswith(header)
    found = np.frombuffer(whole[len(header) :], "<i2")
    assert_close(found, offline(codec, np.frombuffer(data, "<i2")[:, None] / np.float32(32768)))


def test_a_killed_producer_leaves_what_is_complete(codec, model_file):
    """WAV in, raw samples out."""
    samples = speech_like(3)
    data = to_pcm(samples, "s16le")[0]
    with started(model_file, "encode", subprocess.PIPE) as encode:
        assert encode.stdin and encode.stdout
        with started(model_file, "decode", encode.stdout.fileno(), "--raw", "s16le") as decode:
            assert decode.stdout and decode.stderr
            dribble(encode.stdin, wav_header(RATE, 1) + data)
            first = decode.stdout.read(RATE * 2)
            os.kill(encode.pid, signal.SIGKILL)
            encode.wait()
            # The pipe's other end in this process would keep it open.
            encode.stdout.close()
            found = np.frombuffer(first + decode.stdout.read(), "<i2")
            errors = decode.stderr.read().decode()
            assert decode.wait() == 1
    problem = [line for line in errors.splitlines() if "error" in line]
    assert len(problem) == 1
    assert problem[0].startswith("simvq-audio: error: standard input: the stream stops before its")
    assert f"{len(found) / RATE:.2f} s were decoded" in problem[0]
    frames = round(len(found) / RATE * 75)
    assert 75 < frames < 225
    given = np.frombuffer(data, "<i2")[:, None] / np.float32(32768)
    assert_close(found, offline(codec, given, frames))


def test_files_and_formats(tmp_path: Path, small, run, make_audio) -> None:
    make_audio(tmp_path / "a.wav", 0.5, 44_100, 2)
    ended = run("encode", tmp_path / "a.wav", tmp_path / "a.stream", "--stream", "--json")
    assert ended.code == 0 and '"frames": 38' in ended.text
    for name, options in [("b.flac", []), ("c.wav", ["--native-rate"])]:
        ended = run("decode", tmp_path / "a.stream", tmp_path / name, "--stream", *options)
        assert (ended.code, ended.errors) == (0, "")
    info = soundfile.info(tmp_path / "b.flac")
    assert (info.samplerate, info.frames, info.channels) == (44_100, 22_050, 2)
    info = soundfile.info(tmp_path / "c.wav")
    assert (info.samplerate, info.frames) == (24_000, 12_000)
    wav = run("decode", "-", "-", "--stream", stdin=(tmp_path / "a.stream").read_bytes())
    samples, rate = soundfile.read(io.BytesIO(wav.output), dtype="int16")
    assert rate == 44_100
    assert np.array_equal(samples, soundfile.read(tmp_path / "b.flac", dtype="int16")[0])


def test_what_is_cut_is_decoded_into_files_too(tmp_path: Path, small, run, make_audio) -> None:
    make_audio(tmp_path / "a.wav", 1.0)
    run("encode", tmp_path / "a.wav", tmp_path / "a.stream", "--stream")
    cut = (tmp_path / "a.stream").read_bytes()[:-50]
    ended = run("decode", "-", tmp_path / "b.wav", "--stream", "-q", stdin=cut)
    ended.assert_refused("the stream stops before its end; ")
    assert soundfile.info(tmp_path / "b.wav").frames == 16_000 * 72 // 75


def test_what_is_refused(tmp_path: Path, small, run, make_audio) -> None:
    make_audio(tmp_path / "a.wav")
    target = tmp_path / "b"
    for arguments, words in [
        (["encode", "-", "-", "--raw", "s16le"], "add --stream"),
        (["encode", "-", "-", "--stream", "--raw", "s16le"], "add --rate"),
        (["encode", "-", "-", "--stream", "--rate", "8000"], "describe --raw samples"),
        (["encode", "-", "-", "--stream", "--raw", "mp3", "--rate", "8000"], "raw PCM is one of"),
        (["encode", "-", "-", "--stream", "--kbps", "1"], "leave out --stream"),
        (["encode", tmp_path, target, "--stream"], "takes one recording"),
        (["encode", tmp_path / "no", target, "--stream"], "No such file"),
        (["encode", "-", target, "--stream"], "standard input: is empty"),
        (["decode", "-", tmp_path / "b.mp3", "--stream"], ".wav or .flac"),
        (["decode", "-", tmp_path / "b.wav", "--stream"], "standard input: is empty"),
        (["decode", tmp_path / "a.wav", "-", "--stream"], "a.wav: is not a stream"),
        (["decode", "-", "-", "--stream", "--json"], "--json"),
    ]:
        run(*arguments).assert_refused(words)
    assert {path.name for path in tmp_path.iterdir()} == {"a.wav"}


def test_a_stream_is_not_taken_for_a_file(tmp_path: Path, small, run, make_audio) -> None:
    make_audio(tmp_path / "a.wav")
    run("encode", tmp_path / "a.wav", tmp_path / "a.codes", "--stream")
    run("decode", tmp_path / "a.codes", tmp_path / "b.wav").assert_refused("add --stream")

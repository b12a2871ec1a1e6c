"""``encode`` and ``decode`` of folders."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from simvq_audio.codec import Codec, StreamDecoder
from simvq_audio.errors import AudioError, CodesError

MakeAudio = Callable[..., np.ndarray]


def tree(folder: Path) -> set[str]:
    """Every file below a folder, hidden ones included, so that leftovers show."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def recordings(tmp_path: Path, make_audio: MakeAudio) -> Path:
    """A folder of four short recordings, hidden files, and files of other kinds."""
    folder = tmp_path / "in"
    make_audio(folder / "a.wav", 0.5, 16_000)
    make_audio(folder / "B.FLAC", 0.25, 44_100, 2)
    make_audio(folder / "sub" / "c.ogg", 0.75, 16_000)
    make_audio(folder / "sub" / "deep" / "d [x].aiff", 0.5, 8_000)
    make_audio(folder / ".hidden" / "e.wav")
    (folder / "._a.wav").write_bytes(b"not audio")
    (folder / "notes.txt").write_text("not audio")
    return folder


MIRRORED = {"a.codes", "B.codes", "sub/c.codes", "sub/deep/d [x].codes"}


@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_trees_are_mirrored(
    tmp_path: Path, small, run, recordings: Path, audio_format: str
) -> None:
    ended = run("encode", recordings, tmp_path / "codes")
    assert (ended.code, ended.errors) == (0, "")
    assert "4 files" in ended.text and "kbit/s" in ended.text and "real time" in ended.text
    assert tree(tmp_path / "codes") == MIRRORED
    for name in MIRRORED:
        # As one by one.
        source = next(recordings.glob(f"{name.removesuffix('.codes').replace('[', '[[]')}.*"))
        run("encode", source, tmp_path / "single.codes", "--force")
        assert (tmp_path / "single.codes").read_bytes() == (tmp_path / "codes" / name).read_bytes()
    ended = run("decode", tmp_path / "codes", tmp_path / "out", "--format", audio_format)
    assert (ended.code, ended.errors) == (0, "") and "4 files" in ended.text
    suffix = f".{audio_format}"
    assert tree(tmp_path / "out") == {name.replace(".codes", suffix) for name in MIRRORED}
    info = soundfile.info(tmp_path / "out" / f"B{suffix}")
    assert (info.samplerate, info.channels, info.frames) == (44_100, 2, 11_025)
    assert info.format.lower() == audio_format


def test_wav_is_the_default_and_the_rate_can_be_the_models(
    tmp_path: Path, small, run, recordings: Path
) -> None:
    run("encode", recordings, tmp_path / "codes")
    np.save(tmp_path / "codes" / "bare.npy", np.zeros(100, np.int64))
    assert run("decode", tmp_path / "codes", tmp_path / "out", "--native-rate").code == 0
    made = tree(tmp_path / "out")
    assert made == {name.replace(".codes", ".wav") for name in MIRRORED} | {"bare.wav"}
    assert {soundfile.info(tmp_path / "out" / name).samplerate for name in made} == {24_000}


def test_short_recordings_share_batches_and_long_ones_are_streamed(
    tmp_path: Path, small, run, make_audio: MakeAudio, monkeypatch
) -> None:
    for name, seconds, channels in [
        ("a", 0.4, 1),
        ("b", 0.4, 1),
        ("c", 2.0, 1),
        ("d", 0.1, 1),
        ("e", 0.45, 2),
        ("f", 0.5, 2),
    ]:
        make_audio(tmp_path / "in" / f"{name}.wav", seconds, 8_000, channels)
    batches: list[int] = []
    streamed: list[str] = []
    encode_batch, encode_file = Codec.encode_batch, Codec.encode_file

    def batch(codec: Codec, waveforms, rates, **options):
        batches.append(len(waveforms))
        return encode_batch(codec, waveforms, rates, **options)

    def stream(codec: Codec, source, **options):
        streamed.append(Path(source).name) if isinstance(source, Path) else None
        return encode_file(codec, source, **options)

    monkeypatch.setattr(Codec, "encode_batch", batch)
    monkeypatch.setattr(Codec, "encode_file", stream)
    ended = run("encode", tmp_path / "in", tmp_path / "out", "--batch-seconds", "1")
    assert ended.code == 0 and len(tree(tmp_path / "out")) == 6
    # Two channels take twice the place: f, of one second in all, is long like c.
    assert (batches, streamed) == ([4], ["c.wav", "f.wav"])


def test_existing_files_are_skipped(tmp_path: Path, small, run, recordings: Path) -> None:
    out = tmp_path / "codes"
    assert run("encode", recordings, out).code == 0
    made = (out / "a.codes").read_bytes()
    (out / "a.codes").write_bytes(b"older")
    (out / "sub" / "c.codes").unlink()
    ended = run("encode", recordings, out)
    assert ended.code == 0
    assert "1 files" in ended.text and "3 files exist and were skipped" in ended.text
    assert (out / "a.codes").read_bytes() == b"older" and tree(out) == MIRRORED
    loads = len(small.loads)
    assert run("encode", recordings, out).code == 0
    assert len(small.loads) == loads
    assert run("encode", recordings, out, "--force").code == 0
    assert (out / "a.codes").read_bytes() == made


def test_failures_are_listed_and_the_rest_is_done(
    tmp_path: Path, small, run, recordings: Path
) -> None:
    (recordings / "broken.wav").write_bytes(b"not audio")
    (recordings / "empty.mp3").touch()
    soundfile.write(recordings / "nan.wav", [0.0, np.nan], 16_000, subtype="FLOAT")
    ended = run("encode", recordings, tmp_path / "codes")
    assert ended.code == 1 and "4 files" in ended.text
    assert tree(tmp_path / "codes") == MIRRORED
    lines = ended.errors.splitlines()
    reasons = ["broken.wav: is not", "empty.mp3: is e", "nan.wav: holds nan"]
    for line, words in zip(lines[:3], reasons, strict=True):
        assert line.startswith(f"simvq-audio: failed: {recordings}") and words in line
        assert line.count(str(recordings)) == 1
    assert lines[3:] == ["simvq-audio: error: 3 of 7 files failed"]


def test_one_bad_recording_does_not_take_its_batch_with_it(
    tmp_path: Path, small, run, recordings: Path, monkeypatch
) -> None:
    encode_batch = Codec.encode_batch

    def refuse_stereo(codec: Codec, waveforms, rates, **options):
        if any(len(waveform) == 2 for waveform in waveforms):
            raise AudioError("refused")
        return encode_batch(codec, waveforms, rates, **options)

    monkeypatch.setattr(Codec, "encode_batch", refuse_stereo)
    ended = run("encode", recordings, tmp_path / "codes", "--json")
    assert ended.code == 1
    assert tree(tmp_path / "codes") == MIRRORED - {"B.codes"}
    assert "B.FLAC: refused\n" in ended.errors
    failures = json.loads(ended.text)["failures"]
    assert failures == [{"input": str(recordings / "B.FLAC"), "error": "refused"}]


def test_failures_while_decoding(tmp_path: Path, small, run, monkeypatch) -> None:
    folder = tmp_path / "codes"
    folder.mkdir()
    codes = small.codec.encode(np.zeros(8000, np.float32), 16_000)
    codes.save(folder / "a.codes")
    small.codec.encode(np.zeros(32_000, np.float32), 8000).save(folder / "b.codes")
    dataclasses.replace(codes, codes_id="f" * 12).save(folder / "foreign.codes")
    (folder / "text.codes").write_text("text")
    (folder / "text.npy").write_text("text")
    np.save(folder / "c.npy", np.array([999]))
    finish = StreamDecoder.finish

    def fail(decoder: StreamDecoder, num_samples: int) -> np.ndarray:
        if num_samples == 32_000:
            raise CodesError("on purpose")
        return finish(decoder, num_samples)

    monkeypatch.setattr(StreamDecoder, "finish", fail)
    # Of b, which is longer than a pass, most is written by then.
    ended = run("decode", folder, tmp_path / "out", "--batch-seconds", "1")
    assert ended.code == 1
    assert tree(tmp_path / "out") == {"a.wav"}
    lines = ended.errors.splitlines()
    failed = [line.split(":")[2].rsplit(os.sep, 1)[-1] for line in lines[:-1]]
    assert failed == ["b.codes", "c.npy", "foreign.codes", "text.codes", "text.npy"]
    assert "would all become text.wav" in lines[3] and "would all become text.wav" in lines[4]
    assert lines[-1] == "simvq-audio: error: 5 of 6 files failed"


def test_inputs_that_would_become_one_file(
    tmp_path: Path, small, run, recordings: Path, make_audio: MakeAudio
) -> None:
    make_audio(recordings / "a.flac")
    ended = run("encode", recordings, tmp_path / "codes")
    assert ended.code == 1
    assert tree(tmp_path / "codes") == MIRRORED - {"a.codes"}
    assert ended.errors.count("a.flac and a.wav would all become a.codes; rename them") == 2
    assert f"failed: {recordings / 'a.wav'}: " in ended.errors
    assert ended.errors.endswith("error: 2 of 5 files failed\n")


def test_json_for_folders(tmp_path: Path, small, run, recordings: Path) -> None:
    (recordings / "broken.wav").write_bytes(b"not audio")
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / "a.codes").touch()
    ended = run("encode", recordings, tmp_path / "codes", "--json")
    assert ended.code == 1
    result = json.loads(ended.text)
    assert result["skipped"] == 1
    assert [entry["input"] for entry in result["failures"]] == [str(recordings / "broken.wav")]
    assert {Path(entry["input"]).name for entry in result["files"]} == {
        "B.FLAC",
        "c.ogg",
        "d [x].aiff",
    }
    totals = result["totals"]
    assert totals["files"] == 3
    assert totals["seconds"] == pytest.approx(0.25 + 0.75 + 0.5)
    assert totals["bytes"] == sum(Path(entry["output"]).stat().st_size for entry in result["files"])
    # Of one channel, as everywhere: 75 frames of 9 bits, and what rounding up to frames adds.
    assert totals["nominal_kbps"] == pytest.approx(0.675, rel=0.02)
    ended = run("decode", tmp_path / "codes", tmp_path / "out", "--json")
    assert json.loads(ended.text)["totals"]["files"] == 3


def test_what_is_refused(tmp_path: Path, small, run, recordings: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "none").mkdir()
    for command in ("encode", "decode"):
        run(command, recordings, recordings).assert_refused("same path")
        run(command, recordings, "-").assert_refused("OUT must be a folder")
        run(command, recordings, tmp_path / "file").assert_refused("is a file")
        run(command, tmp_path / "none", tmp_path / "out").assert_refused("holds no file")
    assert small.loads == []
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="folders stay readable on this system")
def test_a_blocked_path_fails_alone(tmp_path: Path, small, run, recordings: Path) -> None:
    (tmp_path / "codes").mkdir()
    # A file where the folder "sub" has to be.
    (tmp_path / "codes" / "sub").touch()
    ended = run("encode", recordings, tmp_path / "codes")
    assert ended.code == 1
    assert tree(tmp_path / "codes") == {"a.codes", "B.codes", "sub"}
    assert ended.errors.endswith("error: 2 of 4 files failed\n")
    assert "Traceback" not in ended.errors

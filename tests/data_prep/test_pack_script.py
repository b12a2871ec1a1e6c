from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
import soundfile
from prepare_commands import program, write_noise

from simvq_audio.audio import read_audio, resample
from simvq_audio.training.packed import PackedSpeech

pack = program("data", "pack")


def _line(path, rate, seconds, **more):
    row = {"path": path, "duration": seconds, "sample_rate": rate, "speaker": "s", **more}
    return json.dumps(row) + "\n"


def _open(folder, crop, seed=0):
    return PackedSpeech(
        folder, sample_rate=24_000, crop_samples=crop, speaker_power=0.0, gain_db=0.0, seed=seed
    )


def test_packs_files_and_archives(tmp_path, capsys):
    """The rows that ../shared/speech has: members of archives, beside the manifest."""
    write_noise(tmp_path / "set" / "a.flac", 1.0, 16_000)
    stereo = 0.1 * np.random.default_rng(1).standard_normal((24_000, 2))
    soundfile.write(tmp_path / "b.wav", stereo, 24_000)
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        tar.add(tmp_path / "set", "set")
    manifest = tmp_path / "train.jsonl"
    manifest.write_text(
        _line("set/a.flac", 16_000, 1.0, shard="train-0.tar", language="en", bandwidth_hz=8000)
        + _line("b.wav", 24_000, 1.0, bandwidth_hz=10_000)
        + _line("set/none.flac", 24_000, 1.0, shard="train-0.tar")
        + _line("none.wav", 24_000, 1.0)
    )
    out = tmp_path / "packs" / "speech"
    assert pack.main([str(manifest), str(out), "--jobs", "2"]) == 0
    captured = capsys.readouterr()
    assert "2 recordings, 0.00 hours, 1 speakers, 16000 Hz (1), 24000 Hz (1)" in captured.out
    assert "2 unreadable recordings skipped" in captured.err
    assert [p.name for p in out.parent.iterdir()] == ["speech"], "no temporary folder is left"

    index = json.loads((out / "index.json").read_text())
    assert [row["name"] for row in index["recordings"]] == ["set/a.flac", "b.wav"]
    audio = np.fromfile(out / "audio-00000.int16", "<i2")
    expected = resample(read_audio(tmp_path / "set" / "a.flac")[0], 16_000, 24_000)[0]
    np.testing.assert_allclose(audio[:24_000] / 32_768, expected, atol=0.5001 / 32_768)
    mono = read_audio(tmp_path / "b.wav")[0].mean(axis=0)
    np.testing.assert_allclose(audio[24_000:] / 32_768, mono, atol=0.5001 / 32_768)

    _, bandwidths = _open(out, 1000).batch(0, 40)
    assert set(bandwidths.tolist()) == {8000.0, 10_000.0}


def test_int16_audio_is_packed_exactly_and_loud_audio_clipped(tmp_path):
    exact = np.array([-32_768, -1, 0, 1, 32_767] * 500, np.int16)
    soundfile.write(tmp_path / "a.wav", exact, 24_000)
    soundfile.write(tmp_path / "b.wav", [1.5, -1.5] * 50, 24_000, subtype="FLOAT")
    (tmp_path / "m.jsonl").write_text(_line("a.wav", 24_000, 0.1) + _line("b.wav", 24_000, 0.1))
    assert pack.main([str(tmp_path / "m.jsonl"), str(tmp_path / "out")]) == 0
    audio = np.fromfile(tmp_path / "out" / "audio-00000.int16", "<i2")
    np.testing.assert_array_equal(audio[:2500], exact)
    np.testing.assert_array_equal(audio[2500:], [32_767, -32_768] * 50)


@pytest.mark.parametrize("damage", ["nothing readable", "no manifest", "folder in use"])
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, damage):
    write_noise(tmp_path / "a.wav", 0.2)
    (tmp_path / "m.jsonl").write_text(_line("a.wav", 24_000, 0.2))
    out = tmp_path / "out"
    expected = {
        "nothing readable": "none of 1 recordings can be read",
        "no manifest": "cannot read the manifest",
        "folder in use": "exists already",
    }[damage]
    if damage == "nothing readable":
        (tmp_path / "a.wav").unlink()
    elif damage == "no manifest":
        (tmp_path / "m.jsonl").unlink()
    else:
        out.mkdir()
        (out / "precious").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    assert pack.main([str(tmp_path / "m.jsonl"), str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("simvq-audio: error: ") and expected in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_full_disk_leaves_nothing(tmp_path, capsys, monkeypatch):
    write_noise(tmp_path / "a.wav", 0.2)
    (tmp_path / "m.jsonl").write_text(_line("a.wav", 24_000, 0.2))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("simvq_audio.training.packed.PackWriter.add", full)
    assert pack.main([str(tmp_path / "m.jsonl"), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "simvq-audio: error: No space left on device\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "m.jsonl"]

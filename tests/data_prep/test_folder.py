from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
import soundfile
from prepare_commands import program, write_noise

from simvq_audio.errors import ConfigError
from simvq_audio.training.manifest import ManifestRow, load_manifest
from simvq_audio.training.scan import split_speakers
from simvq_audio.training.spectrum_end import SpectrumEnd

folder = program("data", "folder")


@pytest.fixture
def speakers(tmp_path):
    """Six speakers of one second each, and a file that is no audio."""
    root = tmp_path / "speakers"
    for number in range(6):
        write_noise(root / f"spk{number}" / f"x{number}_a.wav", 0.5, seed=number)
        write_noise(root / f"spk{number}" / f"x{number}_b.flac", 0.5, 16_000, seed=number)
    (root / "spk0" / "notes.txt").write_text("no audio, and not looked at")
    return root


def test_folder_is_split_by_speaker(speakers, tmp_path, capsys):
    (speakers / "spk3" / "broken.flac").write_bytes(b"fLaC and nothing that makes sense after it")
    (speakers / "spk3" / "empty.wav").write_bytes(b"")
    out = tmp_path / "out"
    assert folder.main([str(speakers), str(out), "--dev-share", "0.4"]) == 0
    train, dev = load_manifest(out / "train.jsonl"), load_manifest(out / "dev.jsonl")
    assert len(train) == 8 and len(dev) == 4
    assert not {row.speaker for row in train} & {row.speaker for row in dev}
    assert {row.speaker for row in train + dev} == {f"spk{n}" for n in range(6)}
    assert {row.subset for row in dev} == {"dev"}
    captured = capsys.readouterr()
    assert "8 recordings, 0.00 hours, 4 speakers, 16000 Hz (4), 24000 Hz (4)" in captured.out
    assert "skipped: " in captured.err and "2 unreadable recordings skipped" in captured.err


def test_tar_gives_what_the_folder_gives(speakers, tmp_path):
    archive = tmp_path / "speakers.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(speakers, ".")
    assert folder.main([str(speakers), str(tmp_path / "a")]) == 0
    assert folder.main([str(archive), str(tmp_path / "b")]) == 0

    def content(name):
        rows = load_manifest(tmp_path / name / "train.jsonl")
        return {(r.path.rsplit("/", 1)[1], r.speaker, r.duration, r.bandwidth_hz) for r in rows}

    assert content("a") == content("b")
    row = json.loads((tmp_path / "b" / "train.jsonl").read_text().splitlines()[0])
    assert row["shard"] == str(archive), "beside the manifest's folder, so absolute"


def test_hidden_files_and_folders_are_left_out(speakers, tmp_path, capsys):
    (speakers / "spk1" / "._x1_a.wav").write_bytes(b"no audio")
    write_noise(speakers / ".trash" / "spk9" / "x9_a.wav", 0.5)
    archive = tmp_path / "speakers.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(speakers, ".")
    for source in (speakers, archive):
        out = tmp_path / f"out-{source.name}"
        assert folder.main([str(source), str(out), "--dev-share", "0"]) == 0
        assert len(load_manifest(out / "train.jsonl")) == 12
    assert "skipped" not in capsys.readouterr().err


def test_speaker_from_expression(speakers, tmp_path):
    pattern = r"/x(\d)_[ab]\."
    assert folder.main([str(speakers), str(tmp_path / "o"), "--speaker-from", pattern]) == 0
    rows = load_manifest(tmp_path / "o" / "train.jsonl")
    rows += load_manifest(tmp_path / "o" / "dev.jsonl")
    assert {row.speaker for row in rows} == set("012345")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--speaker-from", "("], "is not a regular expression"),
        (["--speaker-from", "spk"], "has no group"),
        (["--speaker-from", "(z+)"], "finds no speaker in 'spk0/x0_a.wav'"),
        (["--dev-share", "1.5"], "must be 0 to 1, not 1.5"),
        (["--seed", "-1"], "seed must be 0 or more"),
    ],
)
def test_mistakes_are_one_line(speakers, tmp_path, capsys, arguments, message):
    assert folder.main([str(speakers), str(tmp_path / "out"), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("simvq-audio: error: ") and message in error and error.count("\n") == 1


def test_nothing_readable_fails(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    assert folder.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    (tmp_path / "in" / "a.wav").write_bytes(b"RIFF")
    assert folder.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert folder.main([str(tmp_path / "none.tar"), str(tmp_path / "out")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert "holds no audio files" in errors[0]
    assert "none of 1 recordings can be read" in errors[1]
    assert "cannot be read (No such file or directory)" in errors[2]
    assert not (tmp_path / "out").exists()


def test_compressed_archive_is_refused(speakers, tmp_path, capsys):
    archive = tmp_path / "speakers.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(speakers, ".")
    assert folder.main([str(archive), str(tmp_path / "out")]) == 1
    assert "unpack a compressed one" in capsys.readouterr().err


def test_one_speaker_leaves_no_dev_part(tmp_path, capsys):
    write_noise(tmp_path / "in" / "a.wav", 0.5)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dev.jsonl").write_text("stale")
    assert folder.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    assert load_manifest(tmp_path / "out" / "train.jsonl")[0].speaker is None
    assert not (tmp_path / "out" / "dev.jsonl").exists()
    assert "no dev.jsonl: 1 speaker alone" in capsys.readouterr().out


def test_manifest_is_split_as_it_is(speakers, tmp_path):
    known = tmp_path / "known.jsonl"
    rows = [
        {
            "path": f"speakers/spk{n}/x{n}_a.wav",
            "speaker": f"s{n}",
            "source": "set",
            "language": "en",
            "sample_rate": 24_000,
            "duration": 0.5,
            "bandwidth_hz": 7000,
            "licence": "CC0",
        }
        for n in range(4)
    ]
    known.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert folder.main([str(known), str(tmp_path / "out"), "--dev-share", "0.25"]) == 0
    train = load_manifest(tmp_path / "out" / "train.jsonl")
    dev = load_manifest(tmp_path / "out" / "dev.jsonl")
    assert len(train) == 3 and len(dev) == 1
    assert dev[0].bandwidth_hz == 7000 and dev[0].licence == "CC0" and dev[0].source == "set"
    assert soundfile.info(train[0].path).frames == 12_000, "found from another folder"


def _rows(lengths):
    return [
        ManifestRow(f"/{name}-{i}.wav", seconds, 24_000, name)
        for name, seconds in lengths.items()
        for i in range(2)
    ]


def test_split_depends_on_seed_alone_and_keeps_the_share():
    rows = _rows({f"s{i}": 1.0 + i % 7 for i in range(200)})
    train, dev = split_speakers(rows, 0.1, 3)
    again = split_speakers(rows, 0.1, 3)
    other = split_speakers(rows, 0.1, 4)
    assert (train, dev) == again and dev != other[1]
    assert len(train) + len(dev) == len(rows)
    share = sum(row.duration for row in dev) / sum(row.duration for row in rows)
    assert share == pytest.approx(0.1, abs=0.005)
    assert share <= 0.1


def test_split_of_few_speakers_takes_the_shortest():
    train, dev = split_speakers(_rows({"long": 9.0, "short": 2.0, "middle": 5.0}), 0.01, 0)
    assert {row.speaker for row in dev} == {"short"}
    assert split_speakers(train, 0.0, 0)[1] == []
    with pytest.raises(ConfigError):
        split_speakers(train, 1.0, 0)


@pytest.mark.parametrize("end", [3400, 4000, 8000, 10_000])
@pytest.mark.parametrize("level", [0.1, 0.003])
def test_bandwidth_of_low_passed_noise(end, level):
    rate = 24_000
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(3 * rate))
    spectrum[np.fft.rfftfreq(3 * rate, 1 / rate) > end] = 0
    noise = level * np.fft.irfft(spectrum)
    noise = np.round(noise * 32_768) / 32_768
    estimate = SpectrumEnd(rate)
    # In blocks that do not fit the windows.
    for block in np.array_split(noise.astype(np.float32), 7):
        estimate.add(block[:, None])
    assert estimate.bandwidth_hz() == pytest.approx(end, abs=150)


@pytest.mark.parametrize("samples", [0, 100, 48_000])
def test_bandwidth_of_full_band_short_and_silent(samples):
    for signal in (np.random.default_rng(0).standard_normal(samples), np.zeros(samples)):
        estimate = SpectrumEnd(16_000)
        estimate.add(0.1 * signal.astype(np.float32)[:, None])
        assert estimate.bandwidth_hz() == 8000

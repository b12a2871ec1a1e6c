from __future__ import annotations

import json

import pytest

from simvq_audio.errors import ConfigError
from simvq_audio.training.manifest import ManifestRow, load_manifest, summary, write_manifest

ROW = {"path": "a.wav", "duration": 1.5, "sample_rate": 16_000, "speaker": "s"}


def _load(path, *lines):
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )
    return load_manifest(path)


def test_written_and_read_again(tmp_path):
    rows = [
        ManifestRow(str(tmp_path / "b" / "ü.wav"), 1 / 3, 24_000, "s", "train-clean-100"),
        ManifestRow("/elsewhere/c.flac", 2.0, 44_100, None, None, "set", 9000.0, None, "CC0"),
        ManifestRow("in/d.opus", 2.0, 8_000, "t", shard=str(tmp_path / "x.tar")),
    ]
    write_manifest(tmp_path / "m.jsonl", rows)
    assert load_manifest(tmp_path / "m.jsonl") == rows
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert lines[0]["path"] == "b/ü.wav" and lines[2]["shard"] == "x.tar"
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "m.jsonl").rename(moved / "m.jsonl")
    assert load_manifest(moved / "m.jsonl")[0].path == str(moved / "b" / "ü.wav")


def test_keys_of_others_and_blank_lines_are_passed_over(tmp_path):
    (row,) = _load(tmp_path / "m.jsonl", "", {**ROW, "language": "fr", "bandwidth_hz": None}, "  ")
    assert row == ManifestRow(str(tmp_path / "a.wav"), 1.5, 16_000, "s")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"path": "a.wav"', "is not valid JSON"),
        ("[1]", "is not a JSON object"),
        ({k: v for k, v in ROW.items() if k != "path"}, "has no 'path'"),
        ({k: v for k, v in ROW.items() if k != "speaker"}, "has no 'speaker'"),
        ({**ROW, "path": None}, "'path' must be a string, not null"),
        ({**ROW, "speaker": 7}, "'speaker' must be a string, not 7"),
        ({**ROW, "duration": 0}, "'duration' must be a number above 0, not 0"),
        ({**ROW, "duration": float("nan")}, "'duration' must be a number above 0, not NaN"),
        ({**ROW, "sample_rate": "16000"}, "'sample_rate' must be a number above 0"),
        ({**ROW, "sample_rate": 0.5}, "'sample_rate' must be a whole number"),
        ({**ROW, "bandwidth_hz": -1}, "'bandwidth_hz' must be a number above 0, not -1"),
    ],
)
def test_bad_line_is_named(tmp_path, line, message):
    with pytest.raises(ConfigError) as error:
        _load(tmp_path / "m.jsonl", ROW, "", line)
    assert f"m.jsonl line 3: {message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_empty_and_binary(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the manifest .*No such file"):
        load_manifest(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="lists no recordings"):
        _load(tmp_path / "m.jsonl", "")
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_manifest(tmp_path / "b.jsonl")


def test_bandwidth_is_the_lowest_of_file_label_and_model():
    row = ManifestRow("a", 1.0, 16_000, "s")
    assert row.bandwidth_at(24_000) == 8000
    assert row.bandwidth_at(12_000) == 6000
    assert ManifestRow("a", 1.0, 48_000, "s", bandwidth_hz=7000.0).bandwidth_at(24_000) == 7000


def test_summary_tells_sources_with_equal_speakers_apart():
    rows = [
        ManifestRow("a", 1800.0, 16_000, "1", source="x"),
        ManifestRow("b", 1800.0, 24_000, "1", source="y"),
        ManifestRow("c", 3600.0, 16_000, "1", source="x"),
    ]
    assert summary(rows) == "3 recordings, 2.00 hours, 2 speakers, 16000 Hz (2), 24000 Hz (1)"

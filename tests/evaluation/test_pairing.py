"""Which files are taken, and which decoded file goes with which recording."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from noise import write_noise

from simvq_audio.errors import AudioError, ConfigError
from simvq_audio.evaluation.pairing import pair
from simvq_audio.evaluation.recordings import find_recordings, half_of


def test_suffixes_may_differ_and_follow():
    found = pair(
        ["a/one.flac", "a/two.flac", "b/one.wav", "c.d.wav"],
        ["a/one.wav", "a/two.flac.mp3", "b/one.wav", "c.d.opus"],
    )
    assert found.decoded == {
        "a/one.flac": "a/one.wav",
        "a/two.flac": "a/two.flac.mp3",
        "b/one.wav": "b/one.wav",
        "c.d.wav": "c.d.opus",
    }
    assert found.failures == {}


def test_the_same_path_comes_before_other_suffixes():
    found = pair(["a.flac", "a.wav"], ["a.wav", "a.flac"])
    assert found.decoded == {"a.flac": "a.flac", "a.wav": "a.wav"}
    # What is left over beside an exact counterpart is named, not dropped.
    found = pair(["a.flac"], ["a.flac", "a.wav"])
    assert found.decoded == {"a.flac": "a.flac"}
    assert list(found.failures) == ["a.wav"]
    assert "belongs to no recording" in found.failures["a.wav"]


def test_names_with_the_suffix_added_tell_recordings_apart():
    found = pair(["a.flac", "a.wav"], ["a.wav.wav", "a.flac.wav"])
    assert found.decoded == {"a.flac": "a.flac.wav", "a.wav": "a.wav.wav"}
    assert found.failures == {}


def test_missing_and_extra_files_are_named():
    found = pair(["x/a.wav", "x/b.wav"], ["x/b.wav", "y/a.wav"])
    assert found.decoded == {"x/b.wav": "x/b.wav"}
    assert sorted(found.failures) == ["x/a.wav", "y/a.wav"]
    assert "no decoded file" in found.failures["x/a.wav"]


@pytest.mark.parametrize(
    ("references", "decoded"),
    [
        (["a.flac"], ["a.wav", "a.mp3"]),
        (["a.flac", "a.ogg"], ["a.wav"]),
        (["a.flac"], ["a.flac.wav", "a.flac.mp3"]),
    ],
)
def test_ambiguous_files_are_named_and_not_paired(references, decoded):
    found = pair([*references, "sure.wav"], [*decoded, "sure.wav"])
    assert found.decoded == {"sure.wav": "sure.wav"}
    assert sorted(found.failures) == sorted([*references, *decoded])
    for reason in found.failures.values():
        assert reason.startswith("ambiguous")
        assert all(name in reason for name in [*references, *decoded])


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_recordings_of_a_folder(tmp_path):
    touch(
        tmp_path / "b" / "one.WAV",
        tmp_path / "a" / "deep" / "two.flac",
        tmp_path / "three.mp3",
        tmp_path / "notes.txt",
        tmp_path / "._three.mp3",
        tmp_path / ".trash" / "four.wav",
    )
    found = find_recordings(tmp_path)
    assert found.names == ("a/deep/two.flac", "b/one.WAV", "three.mp3")
    assert found.failures == {}
    assert os.path.samefile(found.path("b/one.WAV"), tmp_path / "b" / "one.WAV")


def test_a_limit_spreads_evenly(tmp_path):
    touch(*(tmp_path / f"{i:02}.wav" for i in range(10)))
    found = find_recordings(tmp_path)
    assert [name[:2] for name in found.take(3).names] == ["00", "03", "06"]
    assert found.take(None) == found.take(10) == found.take(99) == found


def test_within_keeps_to_folders_not_to_names_that_begin_alike(tmp_path):
    names = ("a/deep/one.wav", "a/two.wav", "ab/three.wav", "c/four.wav", "five.wav")
    touch(*(tmp_path / name for name in names))
    found = find_recordings(tmp_path)
    assert found.within(["a", "c"]).names == ("a/deep/one.wav", "a/two.wav", "c/four.wav")
    assert found.within(["a/deep/"]).names == ("a/deep/one.wav",)
    assert found.within([]) == found
    with pytest.raises(AudioError, match="dee: no folder with recordings"):
        found.within(["c", "a/dee"])


def test_folders_that_cannot_be_evaluated(tmp_path):
    touch(tmp_path / "file.wav", tmp_path / "empty" / "notes.txt")
    for name, words in {
        "none": "no such folder",
        "file.wav": "is a file",
        "empty": "holds no recording",
    }.items():
        with pytest.raises(AudioError, match=words) as info:
            find_recordings(tmp_path / name)
        assert name in str(info.value)


def test_halves_are_by_speaker_and_follow_from_the_name(tmp_path):
    # SHA-256 of "ls84" ends in 7, that of "p232" in 0.
    assert (half_of("ls84"), half_of("p232")) == ("report", "choose")
    for name in ("a.wav", "b.wav", "c.wav"):
        write_noise(tmp_path / name, 0.1)
    found = find_recordings(tmp_path)
    assert found.half(None) is found
    with pytest.raises(ConfigError, match=r"manifest\.jsonl: No such file"):
        found.half("choose")
    manifest = tmp_path / "manifest.jsonl"
    rows = [{"path": "a.wav", "speaker": "ls84"}, {"path": "b.wav", "speaker": "p232"}]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert found.half("report").names == ("a.wav",)
    assert found.half("choose").names == ("b.wav",)
    manifest.write_text(json.dumps(rows[0]))
    with pytest.raises(AudioError, match="no recording of the half choose"):
        found.half("choose")
    manifest.write_text('{"path": "a.wav"}')
    with pytest.raises(ConfigError, match="line 1: has no path and speaker"):
        found.half("choose")

"""The kinds of corpora."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from simvq_audio.corpora import CorpusError, open_corpus


def _all(corpus):
    return [r for _, part in corpus.parts(lambda number: True) for r in part]


def test_folder(recordings):
    (recordings / "s0" / ".hidden.wav").write_bytes(b"")
    corpus = open_corpus(str(recordings), 7)
    ids = [each.id for each in _all(corpus)]
    found = sorted(str(p.relative_to(recordings)) for p in recordings.rglob("[!.]*.wav"))
    assert ids == found
    assert (corpus.count, corpus.num_parts) == (40, 6)
    wanted = {n: [r.id for r in part] for n, part in corpus.parts({1, 5}.__contains__)}
    assert wanted == {1: ids[7:14], 5: ids[35:]}


def test_wav_scp(recordings, tmp_path, monkeypatch):
    scp = tmp_path / "wav.scp"
    scp.write_text("utt-1 s0/0000.wav\nutt-2\ts1/0001.wav\n\nutt-3 /abs/with space.wav\n")
    (corpus,) = [open_corpus(str(scp), root=str(recordings))]
    assert [(r.id, r.source) for r in _all(corpus)] == [
        ("utt-1", str(recordings / "s0/0000.wav")),
        ("utt-2", str(recordings / "s1/0001.wav")),
        ("utt-3", "/abs/with space.wav"),
    ]


def test_manifest(tmp_path):
    entries = [
        {"audio_filepath": "a.wav", "text": "one", "n": 1, "score": 1, "words": ["x"]},
        {"audio_filepath": "b.wav", "text": None, "n": 2, "score": 0.5, "mixed": 1, "samples": 3},
        {"id": 7, "path": "/c.wav", "offset": 1.5, "duration": 2, "mixed": "x", "ok": True},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(json.dumps(entry) for entry in entries))
    corpus = open_corpus(str(manifest), 2)
    assert corpus.columns == {
        "audio_filepath": "string",
        "duration": "int64",
        "manifest_samples": "int64",
        "mixed": "string",
        "n": "int64",
        "offset": "double",
        "ok": "bool",
        "path": "string",
        "score": "double",
        "text": "string",
        "words": "string",
    }
    first, second, third = _all(corpus)
    assert (first.id, first.source) == ("a.wav", str(tmp_path / "a.wav"))
    assert first.columns["words"] == '["x"]' and first.columns["score"] == 1.0
    assert second.columns["text"] is None and second.columns["mixed"] == "1"
    assert (third.id, third.source, third.offset, third.duration) == ("7", "/c.wav", 1.5, 2.0)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.jsonl", '{"audio": "a.wav"}\n{"audio"', "m.jsonl, line 2"),
        ("m.jsonl", '{"text": "x"}', "line 1: no path of the audio"),
        ("m.jsonl", "[1]", "an object"),
        ("m.jsonl", '{"audio": "a.wav", "offset": -1}', "negative"),
        ("m.jsonl", '{"audio": "a.wav"}\n{"audio": "a.wav"}', "'a.wav' is there twice"),
        ("m.jsonl", "\n", "is empty"),
        ("wav.scp", "a a.wav\nb touch {out} |\n", "line 2: commands are not run"),
        ("wav.scp", "a\n", "line 1: there must be an id"),
        ("m.csv", "a", "IN must be"),
    ],
)
def test_refused(tmp_path, name, text, words):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(CorpusError, match=words):
        open_corpus(str(path))
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_nothing_there(tmp_path):
    pytest.importorskip("webdataset")
    for path in (tmp_path / "none", tmp_path / "none.tar", tmp_path):
        with pytest.raises(CorpusError, match=r"no such file|holds no file"):
            open_corpus(str(path))


def _tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_tars(recordings, tmp_path):
    pytest.importorskip("webdataset")
    audio = (recordings / "s0/0000.wav").read_bytes()
    _tar(
        tmp_path / "x-0.tar",
        [("a.wav", audio), ("a.json", b'{"k": 1}'), ("b.txt", b"no audio"), ("d/c.wav", audio)],
    )
    _tar(tmp_path / "x-1.tar", [("e.wav", audio), ("e.txt", b" words ")])
    for path in (tmp_path, tmp_path / "x-*.tar", tmp_path / "x-{0..1}.tar"):
        corpus = open_corpus(str(path))
        found = _all(corpus)
        assert [r.id for r in found] == ["a", "d/c", "e"]
        assert [r.columns for r in found] == [{"json": '{"k": 1}'}, {}, {"txt": "words"}]
        assert found[0].source == audio and corpus.num_parts == 2


def test_fingerprint_is_of_the_list(recordings, tmp_path):
    before = open_corpus(str(recordings)).fingerprint
    assert open_corpus(str(recordings)).fingerprint == before
    scp = tmp_path / "wav.scp"
    scp.write_text("a a.wav\nb b.wav\n")
    first = open_corpus(str(scp)).fingerprint
    scp.write_text("a a.wav\nb c.wav\n")
    assert open_corpus(str(scp)).fingerprint != first

"""Shards as the libraries of their formats read them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from simvq_audio.audio import read_audio


@pytest.fixture(scope="module")
def manifest(recordings, tmp_path_factory):
    path = tmp_path_factory.mktemp("manifest") / "m.jsonl"
    lines = []
    for number, found in enumerate(sorted(recordings.rglob("[!.]*.wav"))[:9]):
        lines.append({"id": f"d/u.{number}", "audio": str(found), "text": f"t{number}"})
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def _expected(codec, manifest):
    for line in manifest.read_text().splitlines():
        entry = json.loads(line)
        yield entry["id"], entry["text"], codec.encode(*read_audio(entry["audio"]))


def test_webdataset(codec, manifest, tmp_path, tokenized):
    wds = pytest.importorskip("webdataset")
    tokenized(manifest, tmp_path / "out", shard_size=5, format="webdataset")
    urls = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    assert len(urls) == 2
    samples = list(wds.WebDataset(urls, shardshuffle=False).decode())
    assert len(samples) == 9
    for sample, (name, text, codes) in zip(samples, _expected(codec, manifest)):
        assert sample["npy"].dtype == np.uint16
        assert np.array_equal(sample["npy"], codes.indices[0])
        about = sample["json"]
        assert (about["id"], about["text"], about["codes_id"]) == (name, text, codec.codes_id)
        assert (about["samples"], about["rate"]) == (codes.num_samples, codes.sample_rate)
        assert sample["__key__"] == name.replace(".", "_")


def test_shar(codec, manifest, tmp_path, tokenized):
    lhotse = pytest.importorskip("lhotse")
    tokenized(manifest, tmp_path / "out", shard_size=5, format="shar")
    cuts = list(lhotse.CutSet.from_shar(in_dir=tmp_path / "out" / "shar"))
    assert len(cuts) == 9
    for cut, (name, text, codes) in zip(cuts, _expected(codec, manifest)):
        assert cut.id == name and cut.text == text and cut.codes_id == codec.codes_id
        assert cut.duration == pytest.approx(codes.num_frames / codec.frame_rate)
        assert cut.samples == codes.num_samples
        assert np.array_equal(cut.load_codes(), codes.indices[0])


@pytest.mark.parametrize("kind", ["webdataset", "shar"])
def test_a_shard_that_is_done_again_is_replaced(kind, manifest, tmp_path, tokenized):
    pytest.importorskip("lhotse" if kind == "shar" else kind)
    out = tmp_path / "out"
    tokenized(manifest, out, shard_size=5, format=kind)
    before = sorted(path.name for path in out.rglob("*.tar"))
    (out / "_tokenize" / "part-000001.json").unlink()
    (out / "_tokenize" / "part-000001-left").mkdir()
    tokenized(manifest, out, shard_size=5, format=kind)
    assert sorted(path.name for path in out.rglob("*.tar")) == before
    assert not list((out / "_tokenize").glob("*-left"))


def test_tars_go_in_and_parquet_comes_out(codec, manifest, tmp_path, tokenized):
    """With a tar that is damaged, which costs its rest and nothing else."""
    pytest.importorskip("pyarrow")
    wds = pytest.importorskip("webdataset")
    from corpora_runs import rows_of

    expected = list(_expected(codec, manifest))
    entries = [json.loads(line) for line in manifest.read_text().splitlines()]
    for tar_number in range(2):
        with wds.TarWriter(str(tmp_path / f"x-{tar_number}.tar"), encoder=False) as tar:
            for entry in entries[tar_number * 5 :][:5]:
                audio = open(entry["audio"], "rb").read()
                key = entry["id"].replace(".", "-")
                tar.write({"__key__": key, "wav": audio, "txt": entry["text"].encode()})
    damaged = tmp_path / "x-0.tar"
    data = damaged.read_bytes()
    damaged.write_bytes(data[: len(data) // 2])
    run = tokenized(tmp_path / "x-*.tar", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert 4 < len(rows) < 9
    for name, text, codes in expected[5:]:
        row = rows[name.replace(".", "-")]
        assert (row["codes"], row["txt"]) == (codes.indices[0].tolist(), text)
    (failure,) = run.done_by_all().failures
    assert failure.id == str(damaged) and "is damaged" in failure.reason

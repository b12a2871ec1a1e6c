"""Whole runs: equal to ``Codec.encode``, and to themselves after every accident."""

from __future__ import annotations

import json
import random
import shutil
import time

import numpy as np
import pytest
import soundfile
from corpora_runs import make_recordings, rows_of, start

from simvq_audio.audio import read_audio
from simvq_audio.cli import main
from simvq_audio.corpora import CorpusError, Worker, open_corpus

pq = pytest.importorskip("pyarrow.parquet")


def _expected(codec, path):
    waveform, rate = read_audio(path)
    return codec.encode(waveform, rate)


def test_rows_are_what_encode_gives(codec, recordings, tmp_path, tokenized):
    tokenized(recordings, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert list(rows) == sorted(
        str(path.relative_to(recordings)) for path in recordings.rglob("[!.]*.wav")
    )
    for name, row in rows.items():
        codes = _expected(codec, recordings / name)
        assert row["codes"] == codes.indices[0].tolist()
        assert (row["samples"], row["rate"]) == (codes.num_samples, codes.sample_rate)
        assert (row["codes_id"], row["channels"]) == (codec.codes_id, 1)
    schema = pq.read_schema(tmp_path / "out" / "part-000000.parquet")
    assert str(schema.field("codes").type.value_type) == "uint16"
    assert json.loads(schema.metadata[b"simvq_audio.codebook_size"]) == codec.codebook_size


def test_codes_do_not_depend_on_batches_or_pieces(codec, recordings, tmp_path, tokenized):
    tokenized(recordings, tmp_path / "a")
    small = codec.with_batch_seconds(0.3)  # most recordings go in pieces, the others alone
    large = codec.with_batch_seconds(300)
    from simvq_audio.corpora import TokenizeRun

    for name, other, threads in (("b", small, 1), ("c", large, 5)):
        corpus = open_corpus(str(recordings), 11)
        TokenizeRun(other, corpus, tmp_path / name, shard_size=11, threads=threads).run()
        assert rows_of(tmp_path / name) == rows_of(tmp_path / "a")


def test_channels_and_segments(codec, tmp_path, tokenized):
    (path,) = make_recordings(tmp_path / "in", 1, channels=2)
    waveform, rate = read_audio(path)
    length = waveform.shape[1] / rate
    lines = [
        {"id": "whole", "audio": str(path), "speaker": "x"},
        {"id": "part", "audio": str(path), "offset": length / 4, "duration": length / 2},
        {"id": "beyond", "audio": str(path), "offset": 60.0},
        {"id": "gone", "audio": "no.wav"},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    run = tokenized(manifest, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert list(rows) == ["whole", "part"]
    assert rows["whole"]["speaker"] == "x" and rows["part"]["speaker"] is None
    whole = codec.encode(waveform, rate).indices
    assert np.array_equal(np.reshape(rows["whole"]["codes"], (2, -1)), whole)
    first = round(length / 4 * rate)
    part = waveform[:, first : first + round(length / 2 * rate)]
    assert np.array_equal(
        np.reshape(rows["part"]["codes"], (2, -1)), codec.encode(part, rate).indices
    )
    summary = run.done_by_all()
    assert (summary.recordings, summary.rows, len(summary.failures)) == (4, 2, 2)
    assert [failure.id for failure in summary.failures] == ["beyond", "gone"]
    assert "No such file" in summary.failures[1].reason


def test_bad_recordings_take_no_others_with_them(codec, recordings, tmp_path, tokenized):
    folder = tmp_path / "in"
    shutil.copytree(recordings, folder)
    (folder / "bad.wav").write_bytes(b"RIFF")
    (folder / "empty.wav").write_bytes(b"")
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan]), 16_000, subtype="FLOAT")
    soundfile.write(folder / "none.wav", np.zeros(0), 16_000)
    run = tokenized(folder, tmp_path / "out", retry_failed=True)
    failures = {each.id: each.reason for each in run.done_by_all().failures}
    assert sorted(failures) == ["bad.wav", "empty.wav", "nan.wav"]
    assert failures["empty.wav"] == "is empty (0 bytes)"
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 41 and rows["none.wav"]["codes"] == []
    # What was repaired is there after --retry-failed.
    shutil.copy(folder / "s0/0000.wav", folder / "bad.wav")
    run = tokenized(folder, tmp_path / "out", retry_failed=True)
    assert len(run.done_by_all().failures) == 2
    assert rows_of(tmp_path / "out")["bad.wav"]["codes"] == rows["s0/0000.wav"]["codes"]


def test_a_stop_anywhere_changes_nothing(recordings, tmp_path, tokenized, monkeypatch):
    """Stopped at every step that changes the disk, and gone on with."""
    tokenized(recordings, tmp_path / "whole")
    import os

    class Stop(BaseException):
        pass

    real, left = os.replace, 0

    def replace(*paths):
        nonlocal left
        left -= 1
        if left == 0:
            raise Stop
        real(*paths)
        left -= 1
        if left == 0:
            raise Stop

    monkeypatch.setattr(os, "replace", replace)
    stops = 0
    for steps in range(1, 200):
        left = steps % 5 + 1
        try:
            tokenized(recordings, tmp_path / "out")
            break
        except Stop:
            stops += 1
    assert stops > 5
    whole, out = tmp_path / "whole", tmp_path / "out"
    names = sorted(path.name for path in whole.glob("*.parquet"))
    assert names == sorted(path.name for path in out.glob("*.parquet"))
    for name in names:
        assert (whole / name).read_bytes() == (out / name).read_bytes()


def test_killed_again_and_again(model_file, tmp_path, tokenized):
    """SIGKILL at random moments; the end is that of a run in one go."""
    make_recordings(tmp_path / "in", 120)
    tokenized(tmp_path / "in", tmp_path / "whole", shard_size=4)
    out = tmp_path / "out"
    arguments = [str(tmp_path / "in"), str(out), "--model", str(model_file), "--shard-size", "4"]
    arguments += ["--batch-seconds", "1"]  # so that shards come a few at a time
    choice, counts = random.Random(5), []
    for _ in range(3):
        process = start(*arguments)
        before = len(list(out.glob("*.parquet")))
        # Until it has written a shard or two, at least.
        aim = before + choice.randint(2, 6)
        while process.poll() is None and len(list(out.glob("*.parquet"))) < aim:
            time.sleep(0.005)
        time.sleep(choice.uniform(0, 0.01))
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr.read()
            break
        process.kill()
        process.wait()
        counts.append(len(list(out.glob("*.parquet"))))
    assert len(counts) >= 2 and counts == sorted(counts)
    tokenized(tmp_path / "in", out, shard_size=4)
    assert rows_of(out) == rows_of(tmp_path / "whole") and len(rows_of(out)) == 120


def test_workers_share_the_work(recordings, tmp_path, tokenized):
    tokenized(recordings, tmp_path / "whole")
    out = tmp_path / "out"
    tokenized(recordings, out, worker=Worker(1, 3))
    assert sorted(path.name for path in out.glob("*.parquet")) == [
        "part-000001.parquet",
        "part-000004.parquet",
    ]
    # What is left, by another number of workers.
    for rank in range(2):
        tokenized(recordings, out, worker=Worker(rank, 2))
    assert rows_of(out) == rows_of(tmp_path / "whole")
    with pytest.raises(CorpusError, match="ranks are 0 to 1"):
        Worker(2, 2)


def test_another_process_is_kept_out(recordings, tmp_path, tokenized):
    run = tokenized(recordings, tmp_path / "out")
    with run._journal.locked(0, 1), pytest.raises(CorpusError, match="another process is at work"):
        tokenized(recordings, tmp_path / "out")


def test_a_folder_begun_otherwise_is_refused(recordings, tmp_path, tokenized):
    folder = tmp_path / "in"
    shutil.copytree(recordings, folder)
    tokenized(folder, tmp_path / "out")
    with pytest.raises(CorpusError, match="shard_size was 7 and is now 8"):
        tokenized(folder, tmp_path / "out", shard_size=8)
    shutil.copy(folder / "s0/0000.wav", folder / "new.wav")
    with pytest.raises(CorpusError, match="IN has changed since"):
        tokenized(folder, tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    with pytest.raises(CorpusError, match="holds other files"):
        tokenized(folder, tmp_path / "other")


def test_command_line(recordings, model_file, tmp_path, capsys):
    folder = tmp_path / "in"
    shutil.copytree(recordings, folder)
    (folder / "bad.wav").write_bytes(b"no")
    arguments = ["tokenize", str(folder), str(tmp_path / "out"), "-m", str(model_file), "--json"]
    for _ in range(2):  # the second time nothing is left to do
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        printed, errors = capsys.readouterr()
        summary = json.loads(printed)
        assert stop.value.code == 1
        assert (summary["in"], summary["out"], summary["failed"]) == (41, 40, 1)
        assert summary["reasons"][0]["count"] == 1
        assert "failed: bad.wav: is not audio" in errors and "Traceback" not in errors
    assert summary["this_run"]["done_before"] == 41


def test_options_that_do_not_go_together(recordings, tmp_path, capsys):
    for options, words in (
        (["--rank", "0"], "belong together"),
        (["--rank", "3", "--world-size", "2"], "ranks are 0 to 1"),
    ):
        with pytest.raises(SystemExit):
            main(["tokenize", str(recordings), str(tmp_path / "out"), *options])
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

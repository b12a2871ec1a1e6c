"""Several processes: torchrun, Ray Data, datasets; one of them killed in the middle."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from corpora_runs import make_recordings, rows_of, start

from simvq_audio.audio import read_audio
from simvq_audio.cli import main
from simvq_audio.corpora import Tokenizer
from simvq_audio.errors import ConfigError

pa = pytest.importorskip("pyarrow")
RECIPES = Path(__file__).parents[2] / "recipes"


def _expected(codec, paths):
    return [codec.encode(*read_audio(path)).indices[0].tolist() for path in paths]


def test_one_of_two_workers_is_killed(codec, model_file, tmp_path, monkeypatch, capsys):
    """The first is this process, the second another one, which dies in the middle."""
    paths = make_recordings(tmp_path / "in", 100)
    out = tmp_path / "out"
    options = [str(tmp_path / "in"), str(out), "-m", str(model_file), "--shard-size", "5"]
    # So that shards come one at a time.
    options += ["--batch-seconds", "1"]
    # As a launcher that is not torchrun would set them.
    second = start(*options, RANK="1", WORLD_SIZE="2")
    while second.poll() is None and len(list(out.glob("*[13579].parquet"))) < 2:
        time.sleep(0.005)
    second.kill()
    assert second.wait() == -signal.SIGKILL
    with monkeypatch.context() as environment:
        environment.setenv("RANK", "0")
        environment.setenv("WORLD_SIZE", "2")
        tokenize(*options)
    assert "the others are for other workers" in capsys.readouterr().out
    assert 60 <= len(rows_of(out)) < 100
    tokenize(*options, "--rank", "1", "--world-size", "2")
    assert "100 in, 100 out, 0 failed" in capsys.readouterr().out
    rows = rows_of(out)
    names = [str(path.relative_to(tmp_path / "in")) for path in paths]
    assert [rows[name]["codes"] for name in names] == _expected(codec, paths)


def tokenize(*arguments: str) -> None:
    """``simvq-audio tokenize`` in this process, on the CPU."""
    with pytest.raises(SystemExit) as end:
        main(["tokenize", *arguments])
    assert end.value.code in (None, 0)


def test_torchrun_starts_anew_what_died(codec, model_file, tmp_path):
    paths = make_recordings(tmp_path / "in", 80)
    out = tmp_path / "out"
    # The worker of rank 1 dies once, in the middle.
    script = tmp_path / "work.py"
    script.write_text(
        "import os, sys, threading, time\n"
        "from pathlib import Path\n"
        "def die(out, mark):\n"
        "    while len(list(out.glob('*[13579].parquet'))) < 3:\n"
        "        time.sleep(0.001)\n"
        "    mark.touch()\n"
        "    os.kill(os.getpid(), 9)\n"
        "out = Path(sys.argv[2])\n"
        "mark = out.with_name('died')\n"
        "if os.environ['RANK'] == '1' and not mark.exists():\n"
        "    threading.Thread(target=die, args=(out, mark), daemon=True).start()\n"
        "from simvq_audio.cli import main\n"
        "main(['tokenize', *sys.argv[1:]])\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--master-port=0", "--max-restarts=2", str(script), str(tmp_path / "in"), str(out)]
    command += ["-m", str(model_file), "--shard-size", "4"]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (tmp_path / "died").exists()
    rows = rows_of(out)
    names = [str(path.relative_to(tmp_path / "in")) for path in paths]
    assert len(rows) == 80 and [rows[name]["codes"] for name in names] == _expected(codec, paths)


def test_tokenizer_takes_what_the_libraries_have(codec, model_file, recordings, tmp_path):
    tokenizer = Tokenizer(str(model_file), "cpu")
    paths = sorted(recordings.rglob("[!.]*.wav"))[:5]
    expected = _expected(codec, paths)
    decoded = []
    for path in paths:
        waveform, rate = read_audio(path)
        decoded.append({"array": waveform[0], "sampling_rate": rate, "path": None})
    batches = [
        {"path": [str(path) for path in paths]},
        {"path": ["?"] * 5, "bytes": [path.read_bytes() for path in paths]},
        {"audio": decoded, "n": list(range(5))},
        {"audio": [{"bytes": path.read_bytes(), "path": path.name} for path in paths]},
        {"audio": [{"bytes": None, "path": str(path)} for path in paths]},
    ]
    for batch in batches:
        result = tokenizer(batch)
        assert [codes.tolist() for codes in result["codes"]] == expected
        assert result["codes"][0].dtype == np.uint16
        assert "audio" not in result and "bytes" not in result
        assert result["error"] == [""] * 5
        assert result["samples"][0] == read_audio(paths[0])[0].shape[1]
    assert tokenizer(batches[2])["n"] == list(range(5))
    table = pa.table({"path": [str(path) for path in paths], "n": range(5)})
    result = tokenizer(table)
    assert result["codes"].to_pylist() == expected and result["n"].to_pylist() == list(range(5))
    assert result["codes"].type == pa.list_(pa.uint16())
    mixed = tokenizer({"path": [str(paths[0]), str(tmp_path / "none.wav")]})
    assert mixed["codes"][0].tolist() == expected[0] and not len(mixed["codes"][1])
    assert mixed["error"][0] == "" and "No such file" in mixed["error"][1]
    with pytest.raises(ConfigError, match="these are: text"):
        tokenizer({"text": ["x"]})


def test_datasets_recipe(codec, model_file, recordings, tmp_path):
    datasets = pytest.importorskip("datasets")
    recipe = runpy.run_path(str(RECIPES / "tokenize_datasets.py"))
    (recordings / "bad.wav").write_bytes(b"no audio")
    try:
        recipe["tokenize"](str(recordings), str(tmp_path / "out"), model=str(model_file))
    finally:
        (recordings / "bad.wav").unlink()
    result = datasets.load_from_disk(str(tmp_path / "out"))
    assert len(result) == 41
    assert result.features["codes"].feature.dtype == "uint16"
    good = [row["codes"] for row in result if not row["error"]]
    expected = _expected(codec, sorted(recordings.rglob("[!.]*.wav")))
    assert sorted(good) == sorted(expected)


def test_a_column_of_audio(codec, model_file, recordings):
    datasets = pytest.importorskip("datasets")
    paths = sorted(recordings.rglob("[!.]*.wav"))[:5]
    audio = datasets.Dataset.from_dict({"audio": [str(path) for path in paths], "n": range(5)})
    audio = audio.cast_column("audio", datasets.Audio(decode=False))
    tokenizer = Tokenizer(str(model_file), "cpu")
    result = audio.map(tokenizer, batched=True, batch_size=2, remove_columns=["audio"])
    assert result["codes"][:] == _expected(codec, paths) and result["n"][:] == list(range(5))


def test_ray_recipe_with_a_worker_killed(codec, model_file, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    paths = make_recordings(tmp_path / "in", 40)
    marks = tmp_path / "marks"
    marks.mkdir()
    recipe = runpy.run_path(str(RECIPES / "tokenize_ray.py"))

    class Mortal(Tokenizer):
        """One worker dies at its second batch."""

        calls = 0

        def __call__(self, batch):
            self.calls += 1
            (marks / str(os.getpid())).touch()
            if self.calls == 2:
                try:
                    (marks / "died").touch(exist_ok=False)
                except FileExistsError:
                    pass
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    recipe["tokenize"].__globals__["Tokenizer"] = Mortal
    # Ray gives its workers the least priority, and they would wait for all else that runs.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        recipe["tokenize"](
            str(tmp_path / "in"), str(tmp_path / "out"), model=str(model_file), batch_size=8
        )
    finally:
        ray.shutdown()
    assert (marks / "died").exists() and len(list(marks.iterdir())) >= 3
    import pyarrow.dataset as ds

    table = ds.dataset(str(tmp_path / "out"), format="parquet").to_table()
    assert table["codes"].type == pa.list_(pa.uint16())
    rows = table.to_pylist()
    assert len(rows) == 40
    found = {row["path"]: row["codes"] for row in rows}
    assert [found[str(path)] for path in paths] == _expected(codec, paths)

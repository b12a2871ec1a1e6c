"""The study's scripts: runs leave logs, finished ones are skipped, reports come from logs alone."""

from __future__ import annotations

import csv
import dataclasses
import json
from statistics import mean, stdev

import numpy as np
import pytest
import report
import run as run_script
import torch
import train_row
from study.execution import execute
from study.logs import Cost, Point, RunLog, log_path, read_logs, write_cost, write_log
from study.rows import ROWS, Run
from study.scoring import read_recordings
from study.session import Networks, Session, open_speech
from study.setting import Setting, read_setting, setting_of
from study.usage import Window, usage
from study.warm_up import load_warm_up, make_warm_up

from simvq_audio.errors import ConfigError
from simvq_audio.evaluation.metrics.perceptual import Estoi, PesqWb, Stoi

CPU = torch.device("cpu")


@pytest.fixture
def train(speech, runs, capsys):
    """Runs train_row.py; returns its exit code, output and errors."""

    def call(*arguments: str):
        common = ["--data", str(speech / "packed"), "--out", str(runs), "--device", "cpu"]
        code = train_row.main([*arguments, *common])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_run_leaves_a_log_of_all_that_is_reported(train, runs, speech):
    dev = ["--dev", str(speech / "dev")]
    code, out, _ = train("simvq-latents", "--codebook-size", "64", *dev)
    assert code == 0
    assert "simvq-latents-64-s0" in out
    (log,) = read_logs(runs)
    assert log.run == Run("simvq-latents", 64, 0)
    assert [point.step for point in log.curve] == [2, 4, 6]
    assert log.curve[0].error is None  # unquantised
    assert log.curve[-1].error > 0
    use = log.scores["usage"]
    assert use["frames"] == 200  # 2 s at 100 frames/s
    assert 0 < use["utilisation"] <= 1
    assert 1 <= use["perplexity"] <= 64
    assert sum(count for _, count in use["histogram"]) <= 200
    assert {"mel", "pesq_wb", "stoi", "error"} <= set(log.scores)
    assert log.peak_mib > 50 and log.step_seconds > 0
    with np.load(log_path(runs, log.run).with_suffix(".npz")) as points:
        assert list(points["steps"]) == [2, 6]
        assert points["latents-1"].shape == (40, 2)
    size = sum(path.stat().st_size for path in (runs / "results").iterdir())
    assert size < 100_000


def test_rows_of_a_seed_see_the_same_crops_from_the_same_start(runs, speech):
    setting = read_setting(speech / "setting.json")
    path = make_warm_up(runs, setting, speech / "packed", 1, CPU)
    first, second = (load_warm_up(path, setting, 1, CPU) for _ in range(2))
    assert first.latents.shape[0] >= setting.start_latents
    sessions = [
        Session(setting, shared.networks, open_speech(speech / "packed", setting, 1), CPU, 6)
        for shared in (first, second)
    ]
    assert torch.equal(*(session.crops(3)[0] for session in sessions))
    assert torch.equal(*(session.latents(3) for session in sessions))
    # One more unquantised step is the same in both: the optimiser's moments came along.
    assert sessions[0].step(2).mel == sessions[1].step(2).mel
    assert torch.equal(sessions[0].latents(3), sessions[1].latents(3))
    other = Session(
        setting,
        Networks.make(setting, 2, CPU),
        open_speech(speech / "packed", setting, 2),
        CPU,
        6,
    )
    assert not torch.equal(other.crops(3)[0], sessions[0].crops(3)[0])


@pytest.mark.parametrize("name", [row.name for row in ROWS.values() if row.length == 1])
def test_every_row_trains_and_is_scored(name, runs, speech, monkeypatch):
    for metric in (PesqWb, Stoi, Estoi):
        # The synthetic recordings are no speech.
        monkeypatch.setattr(metric, "score", lambda *_: 1.0)
    setting = read_setting(speech / "setting.json")
    make_warm_up(runs, setting, speech / "packed", 1, CPU)
    recordings = read_recordings([speech / "dev"], setting)
    size = 1 if name == "unquantized" else 64
    log = execute(Run(name, size, 1), setting, speech / "packed", recordings, runs, CPU)
    assert np.isfinite([log.scores["mel"], log.scores["error"], log.curve[-1].mel]).all()
    assert log.curve[-1].step == setting.steps
    if name == "unquantized":
        assert log.scores["error"] == 0
    else:
        assert 0 < log.curve[-1].utilisation <= 1


def test_training_lowers_the_loss_and_follows_the_quantiser(runs, speech):
    setting = dataclasses.replace(
        read_setting(speech / "setting.json"), steps=60, unquantized_steps=20, decay_steps=10
    )
    networks = Networks.make(setting, 0, CPU)
    source = open_speech(speech / "packed", setting, 0)
    session = Session(setting, networks, source, CPU, setting.steps)
    losses = [session.step(step) for step in range(20)]
    assert losses[0].indices is None
    row = ROWS["simvq-latents"].make(64, setting.latent_dim)
    row.start(session.latents(99).mT.flatten(0, 1), torch.Generator().manual_seed(0), 40)
    before = row.simvq.proj.weight.detach().clone()
    session.set_bottleneck(row)
    losses += [session.step(step) for step in range(20, 60)]
    assert losses[-1].mel < 0.8 * losses[0].mel
    assert losses[-1].indices.shape == (2, 20)
    assert not torch.equal(row.simvq.proj.weight, before)


def test_run_skips_what_is_finished_and_names_what_fails(speech, runs, capsys, monkeypatch):
    arguments = ["--data", str(speech / "packed"), "--dev", str(speech / "dev")]
    arguments += ["--out", str(runs), "--device", "cpu", "--jobs", "2", "--seeds", "0"]
    write_log(runs, finished("fsq", 8192, 0), None)
    plan = ["--rows", "fsq,rvq", "--codebook-sizes", "1024,8192"]
    assert run_script.main([*arguments, *plan, "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[0] == "4 runs, 1 of them finished"
    assert listed[1:] == ["rvq-8192-s0", "fsq-1024-s0", "rvq-1024-s0"]
    # A process of its own for each; the shared steps are there already.
    make_warm_up(runs, setting_of(runs), speech / "packed", 0, CPU)
    assert run_script.main([*arguments, "--rows", "rvq", "--codebook-sizes", "1024"]) == 0
    said = capsys.readouterr().out
    assert "rvq-1024-s0: mel" in said
    assert run_script.main([*arguments, "--rows", "rvq", "--codebook-sizes", "1024"]) == 0
    assert "1 runs, 1 of them finished" in capsys.readouterr().out
    monkeypatch.setattr(run_script, "_SCRIPT", speech / "missing.py")
    assert run_script.main([*arguments, "--rows", "rvq", "--codebook-sizes", "8192"]) == 1
    error = capsys.readouterr().err
    assert "1 runs failed: rvq-8192-s0" in error and "Traceback" not in error


def test_time_that_is_over_leaves_runs_for_later(speech, runs, capsys):
    arguments = ["--data", str(speech / "packed"), "--dev", str(speech / "dev"), "--out", str(runs)]
    assert run_script.main([*arguments, "--rows", "fsq", "--max-minutes", "-1"]) == 0
    assert "12 runs are left" in capsys.readouterr().out


def test_benchmark_measures_a_step_and_its_quantiser(train, runs):
    code, out, _ = train("fsq", "--codebook-size", "64", "--benchmark")
    assert code == 0 and "ms a step" in out
    cost = Cost(**json.loads((runs / "benchmark" / "fsq-64.json").read_text()))
    assert 0 < cost.quantizer_seconds < cost.step_seconds


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nothing"], "there is no row 'nothing'; rows: "),
        ([], "which row?"),
        (["fsq"], "--dev must name a folder"),
        (["fsq", "--dev", "/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_end_in_one_line(train, arguments, message):
    code, _, error = train(*arguments)
    assert code == 1
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_keeps_one_setting(tmp_path, speech):
    setting = setting_of(tmp_path / "a")
    assert setting == Setting() == setting_of(tmp_path / "a")
    with pytest.raises(ConfigError, match="another setting"):
        setting_of(tmp_path / "a", speech / "setting.json")
    assert setting_of(tmp_path / "b", speech / "setting.json").dim == 16
    (tmp_path / "c.json").write_text('{"stepps": 3}')
    with pytest.raises(ConfigError, match="stepps"):
        read_setting(tmp_path / "c.json")


def test_usage_of_known_counts():
    use = usage(torch.tensor([4, 4, 0, 8]))
    assert (use.frames, use.utilisation, use.entropy) == (16, 0.75, 1.5)
    assert use.perplexity == pytest.approx(2**1.5)
    assert use.even_utilisation == pytest.approx(1 - 0.75**16)
    assert use.histogram == [(1, 8), (2, 4), (3, 4)]


def test_the_window_forgets_old_steps():
    window = Window(8, 2)
    for code in (1, 2, 3):
        window.add(torch.full((1, 4), code))
    assert window.usage().utilisation == 2 / 8


def finished(row: str, size: int, seed: int, mel: float = 0.5) -> RunLog:
    use = dataclasses.asdict(usage(torch.bincount(torch.arange(300) % 7 % size, minlength=size)))
    scores = {"mel": mel, "pesq_wb": 1.2, "stoi": 0.7, "estoi": 0.5, "error": 0.1, "usage": use}
    scores |= {"pesq_failed": 0, "recordings": 2}
    curve = [Point(200, 1.0), Point(400, 0.8, 0.2, 0.5, 30.0), Point(550, 0.7, 0.1, 0.4, 20.0)]
    return RunLog(Run(row, size, seed), Setting().to_dict(), curve, scores, 0.1, 9.0, 500.0)


def test_report_makes_tables_and_pictures_from_logs_alone(tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "docs"
    mels = [0.51, 0.53, 0.58]
    points = {"steps": np.array([200, 550])}
    for number in (0, 1):
        for name in ("latents", "entries", "hit"):
            points[f"{name}-{number}"] = np.zeros((5, 2), np.float16)
    for seed, mel in enumerate(mels):
        write_log(runs, finished("simvq-latents", 8192, seed, mel), points if not seed else None)
    for row, size in (("vq", 8192), ("vq", 1024), ("simvq-rotation", 8192), ("unquantized", 1)):
        write_log(runs, finished(row, size, 0), None)
    write_cost(runs, Cost("vq", 8192, 0.140, 0.060, 900.0, {"device": "cpu", "name": "a CPU"}))
    assert report.main([str(runs), "--out", str(out)]) == 0
    text = (out / "results.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| SimVQ, C from"))
    assert f"{mean(mels):.3f} ± {stdev(mels):.3f}" in line
    assert "## K = 8192" in text and "## Variants of SimVQ, K = 8192" in text
    assert "| VQ, learnt table | 140 (60); 900 |" in text
    with open(out / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7
    assert [float(row["mel"]) for row in rows if row["row"] == "simvq-latents"] == mels
    names = {path.name for path in out.glob("*.png")}
    assert names == {
        "quality.png",
        "curves-1024.png",
        "curves-8192.png",
        "curves-variants-8192.png",
        "usage-1024.png",
        "usage-8192.png",
        "projection-8192.png",
    }


def test_report_of_nothing_or_of_damage_is_one_line(tmp_path, capsys):
    assert report.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "holds no finished runs" in capsys.readouterr().err
    write_log(tmp_path, finished("vq", 8192, 0), None)
    log_path(tmp_path, Run("vq", 8192, 0)).write_text("{")
    assert report.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "is damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

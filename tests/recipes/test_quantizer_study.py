"""The study: runs leave logs, finished ones are skipped, reports are made from logs only."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
import report
import run as run_script
import torch
import train_row
from study.results import (
    Cost,
    Point,
    RunLog,
    finished,
    read_results,
    read_survey,
    run_folder,
    write_cost,
    write_log,
    write_unseen,
)
from study.rows import ROWS, Run
from study.spectrum import live_dimensions
from study.statistics import paired, perplexity_ratio
from study.training import read_recordings, train_and_score
from study.use import Use, chao1, chao_shen_entropy, count_codes

from simvq_audio.errors import ConfigError
from simvq_audio.evaluation.metrics.perceptual import Estoi, PesqWb, Stoi
from simvq_audio.training.config import TrainingConfig

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def runs(tmp_path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def train(speech, runs, capsys):
    """Runs train_row.py; returns its exit code, output and errors."""

    def call(*arguments: str):
        common = ["--data", str(speech / "packed"), "--out", str(runs)]
        code = train_row.main([*arguments, *common, "--setting", str(speech / "tiny.toml")])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_run_leaves_a_log_of_all_that_is_reported(train, runs, speech):
    dev = ["--dev", str(speech / "dev")]
    code, out, err = train("simvq-latents", "--codebook-size", "64", *dev)
    assert code == 0, err
    assert "simvq-latents-64-s0: mel" in out
    results = read_results(runs)
    (log,) = results.logs
    assert log.run == Run("simvq-latents", 64, 0)
    assert [point.step for point in log.curve] == [2, 4, 6]
    assert log.curve[0].error is None  # unquantised
    assert log.curve[-1].error > 0 and log.curve[-1].perplexity >= 1
    assert log.use.frames == 200  # 2 s at 100 frames/s
    assert 0 < log.use.utilisation <= 1
    assert 1 <= log.use.perplexity <= 64
    assert {"mel", "pesq_wb", "stoi", "error"} <= set(log.scores)
    assert log.peak_mib > 50 and log.step_seconds > 0
    last = log.curve[-1]
    assert last.w_largest >= last.w_median >= last.w_smallest > 0
    assert 1 <= last.live_latent <= 8 and 1 <= last.live_codebook <= 8
    # The model is kept, and its codes can be counted on more speech.
    assert not list(run_folder(runs, log.run).glob("checkpoints/*"))
    code, out, err = train("simvq-latents", "--codebook-size", "64", "--count", "150")
    assert code == 0 and "frames" in out, err
    (log,) = read_results(runs).logs
    assert log.unseen.frames >= 150 and 0 < log.unseen.utilisation <= log.unseen.chao1 <= 1


@pytest.mark.parametrize("name", [row.name for row in ROWS.values() if row.length == 1])
def test_every_row_trains_and_is_scored(name, runs, speech, monkeypatch):
    for metric in (PesqWb, Stoi, Estoi):
        # The synthetic recordings are no speech.
        monkeypatch.setattr(metric, "score", lambda *_: 1.0)
    setting = speech / "tiny.toml"
    recordings = read_recordings([speech / "dev"], TrainingConfig.load(setting))
    run = Run(name, 1 if name == "unquantized" else 64, 0)
    log = train_and_score(run, speech / "packed", recordings, runs, setting, "cpu")
    assert np.isfinite([log.scores["mel"], log.scores["error"], log.curve[-1].mel]).all()
    assert log.curve[-1].step == 6
    if name == "unquantized":
        assert log.scores["error"] == 0 and log.use == Use.none()
    else:
        assert 0 < log.curve[-1].utilisation <= 1
    assert finished(runs) == {run.name}
    assert len(recordings.recordings) == 1


def finished_log(row: str, size: int, seed: int, mel: float = 0.5) -> RunLog:
    use = Use.of(torch.bincount(torch.arange(300) % 7 % size, minlength=size))
    scores = {"mel": mel, "pesq_wb": 1.2, "stoi": 0.7, "estoi": 0.5, "error": 0.1}
    scores |= {"pesq_wb_failed": 0, "recordings": 2}
    curve = [Point(200, 1.0), Point(400, 0.8, 0.2, 0.5, 30.0), Point(550, 0.7, 0.1, 0.4, 20.0)]
    return RunLog(Run(row, size, seed), curve, scores, use, 0.1, 9.0, 500.0)


def test_run_skips_what_is_finished_and_names_what_fails(speech, runs, capsys):
    arguments = ["--data", str(speech / "packed"), "--dev", str(speech / "dev")]
    arguments += ["--out", str(runs), "--jobs", "2", "--seeds", "0"]
    arguments += ["--setting", str(speech / "tiny.toml")]
    write_log(runs, finished_log("fsq", 8192, 0))
    plan = ["--rows", "fsq,rvq", "--codebook-sizes", "1024,8192"]
    assert run_script.main([*arguments, *plan, "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[0] == "4 runs, 1 of them finished"
    assert listed[1:] == ["rvq-8192-s0", "rvq-1024-s0", "fsq-1024-s0"]
    assert run_script.main([*arguments, "--rows", "rvq", "--codebook-sizes", "1024"]) == 0
    assert "rvq-1024-s0: mel" in capsys.readouterr().out
    assert run_script.main([*arguments, "--rows", "rvq", "--codebook-sizes", "1024"]) == 0
    assert "1 runs, 1 of them finished" in capsys.readouterr().out
    arguments[1] = str(speech / "missing")
    assert run_script.main([*arguments, "--rows", "rvq", "--codebook-sizes", "8192"]) == 1
    error = capsys.readouterr().err
    assert "1 runs failed: rvq-8192-s0" in error and "Traceback" not in error


def test_time_that_is_over_leaves_runs_for_later(speech, runs, capsys):
    arguments = ["--data", str(speech / "packed"), "--dev", str(speech / "dev"), "--out", str(runs)]
    assert run_script.main([*arguments, "--rows", "fsq", "--max-minutes", "-1"]) == 0
    assert "15 runs are left" in capsys.readouterr().out


def test_benchmark_measures_a_step_and_its_quantiser(train, runs):
    code, out, err = train("fsq", "--codebook-size", "64", "--benchmark")
    assert code == 0 and "ms per step" in out, err
    write_log(runs, finished_log("fsq", 64, 0))
    (cost,) = read_results(runs).costs
    assert 0 < cost.quantizer_seconds < cost.step_seconds


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nothing"], "there is no row 'nothing'; rows: "),
        (["fsq"], "--dev must name a folder"),
        (["fsq", "--dev", "/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_end_in_one_line(train, arguments, message):
    code, _, error = train(*arguments)
    assert code == 1
    assert message in error
    assert error.count("\n") == 1


def test_use_of_known_counts():
    use = Use.of(torch.tensor([4, 4, 0, 8]))
    assert (use.frames, use.utilisation, use.entropy) == (16, 0.75, 1.5)
    assert use.perplexity == pytest.approx(2**1.5)
    assert use.even_utilisation == pytest.approx(1 - 0.75**16)


def test_estimates_see_what_few_frames_do_not_show():
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(1, 2001, dtype=torch.double).pow(-0.7)
    truth /= truth.sum()
    entropy = -(truth * truth.log2()).sum().item()
    codes = torch.multinomial(truth, 3000, replacement=True, generator=generator)
    counts = torch.bincount(codes, minlength=2000)
    use = Use.of(counts)
    assert use.entropy < entropy - 0.4
    assert abs(chao_shen_entropy(counts) - entropy) < 0.15
    assert use.utilisation * 2000 < chao1(counts) < 2000
    # By hand: two seen once, one twice.
    assert chao1(torch.tensor([1, 1, 2, 5, 0])) == 4 + 2 * 1 / (2 * 2)
    # With every code seen often there is nothing to correct.
    often = torch.tensor([4000, 4000, 8000])
    assert chao_shen_entropy(often) == pytest.approx(1.5) and chao1(often) == 3


def test_live_dimensions_have_a_hundredth_of_the_largest_variance():
    points = torch.randn(20_000, 5) * torch.tensor([10.0, 5.0, 1.2, 0.8, 0.0])
    assert live_dimensions(points + 100) == 3


def test_codes_of_several_codebooks_count_as_one():
    codes = torch.tensor([[[0, 1, 1], [2, 0, 0]]])
    counts = count_codes(codes, (2, 3))
    assert counts.tolist() == [0, 0, 1, 2, 0, 0]
    assert count_codes(codes, (2, 3), counts).sum() == 6


def test_report_makes_tables_and_pictures_from_logs_alone(tmp_path, monkeypatch):
    runs, out = tmp_path / "runs", tmp_path / "docs"
    mels = [0.51, 0.53, 0.58]
    for seed, mel in enumerate(mels):
        log = finished_log("simvq-latents", 8192, seed, mel)
        write_log(runs, log)
    for row, size in (("vq", 8192), ("vq", 1024), ("simvq-rotation", 8192), ("unquantized", 1)):
        write_log(runs, finished_log(row, size, 0))
    write_unseen(runs, Run("vq", 8192, 0), Use.of(torch.full((8192,), 3)))
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    write_cost(runs, Cost("vq", 8192, 0.140, 0.060, 900.0, {"device": "cpu", "name": "a CPU"}))
    template = tmp_path / "page.md.j2"
    template.write_text(
        "{{ runs }} runs; {{ mean('simvq-latents', 8192, 'mel') }};"
        " {{ difference('simvq-latents', 'vq', 8192, 'mel') }}; {{ mean('fsq', 8192, 'mel') }}\n"
    )
    tables = tmp_path / "tables"
    arguments = ["--out", str(out), "--page", str(template)]
    assert report.main([str(runs), *arguments, "--tables", str(tables)]) == 0
    page = (out / "quantizers.md").read_text()
    assert page == f"7 runs; {mean(mels):.3f} ± {stdev(mels):.3f}; +0.010 (1 seed); -\n"
    text = (out / "quantizers" / "results.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| SimVQ, C from"))
    assert f"{mean(mels):.3f} ± {stdev(mels):.3f}" in line
    assert "## K = 8192" in text and "on the 24 576 frames of more speech" in text
    assert "| VQ, from the latents, table at 40x | 140 (60); 900 |" in text
    with open(tables / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7
    assert [float(row["mel"]) for row in rows if row["row"] == "simvq-latents"] == mels
    names = {path.name for path in (out / "quantizers").glob("*.png")}
    assert names == {
        "curves-8192.png",
        "curves-variants-8192.png",
        "spectrum-8192.png",
    }
    # The tables say the same again, and count as finished runs.
    again = tmp_path / "again"
    assert report.main([str(tables), "--out", str(again), "--page", str(template)]) == 0
    assert (again / "quantizers" / "results.md").read_text() == text
    assert (again / "quantizers.md").read_text() == page
    assert finished(tables) == finished(runs) and len(finished(runs)) == 7


def test_the_page_cannot_claim_what_the_seeds_do_not_show(tmp_path, capsys):
    runs, out = tmp_path / "runs", tmp_path / "docs"
    template = tmp_path / "page.md.j2"
    for seed in range(3):
        write_log(runs, finished_log("vq", 8192, seed, 0.5 + 0.1 * seed))
        write_log(runs, finished_log("fsq", 8192, seed, 0.6 + 0.11 * seed))
    for claim, code in (("less", 0), ("more", 1)):
        template.write_text(f"{{{{ difference('vq', 'fsq', 8192, 'mel', '{claim}') }}}}\n")
        assert report.main([str(runs), "--out", str(out), "--page", str(template)]) == code
    assert "which the runs do not support" in capsys.readouterr().err
    assert (out / "quantizers.md").read_text() == "-0.110 [-0.135, -0.085] (3 seeds)\n"


def test_differences_are_paired_by_seed():
    logs = [finished_log("vq", 64, seed, mel) for seed, mel in enumerate((0.5, 0.7, 0.6))]
    logs += [finished_log("fsq", 64, seed, mel) for seed, mel in ((1, 0.8), (2, 0.8), (3, 0.1))]
    found = paired(logs, "vq", "fsq", 64, lambda log: log.scores["mel"])
    assert found.seeds == 2 and found.middle == pytest.approx(-0.15)
    assert found.high == np.inf  # two seeds support no claim
    logs += [finished_log("fsq", 64, 0, 0.6)]
    found = paired(logs, "vq", "fsq", 64, lambda log: log.scores["mel"])
    assert found.seeds == 3 and found.middle == pytest.approx(-0.4 / 3)
    # Student's t of two degrees of freedom, at 97.5 %.
    half = 4.30265 * stdev([-0.1, -0.1, -0.2]) / 3**0.5
    assert found.high - found.middle == pytest.approx(half, rel=1e-4)
    assert perplexity_ratio(logs, "vq", "fsq", 64).middle == pytest.approx(1)
    with pytest.raises(ConfigError, match="no seed in common"):
        paired(logs, "vq", "rvq", 64, lambda log: 0.0)


def test_the_page_and_its_numbers_follow_from_the_committed_tables():
    from study.page import page
    from study.tables import markdown

    folder = REPOSITORY / "recipes" / "quantizers" / "results"
    results = read_results(folder)
    survey = read_survey(folder / "survey.csv")
    text = markdown(results.logs, survey, results.costs)
    assert text == (REPOSITORY / "docs" / "quantizers" / "results.md").read_text()
    assert page(results.logs, survey) == (REPOSITORY / "docs" / "quantizers.md").read_text()


def test_report_of_nothing_or_of_damage_is_one_line(tmp_path, capsys):
    assert report.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "holds no finished runs" in capsys.readouterr().err
    write_log(tmp_path, finished_log("vq", 8192, 0))
    (run_folder(tmp_path, Run("vq", 8192, 0)) / "result.json").write_text("{")
    assert report.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "is damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

"""evaluate and compare as commands: what they print and write, and what they refuse."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from simvq_audio.bitstream import OVERHEAD_BYTES

METRICS = "si_sdr,kbps,kbps_file"


def write_noise(path: Path, seconds: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(sum(path.name.encode()))
    samples = 0.05 * rng.standard_normal(round(16_000 * seconds))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16_000)
    return samples


@pytest.fixture
def recordings(tmp_path) -> Path:
    for name in ("a/one.wav", "a/two.flac", "b/three.wav"):
        write_noise(tmp_path / "in" / name)
    return tmp_path / "in"


@pytest.fixture
def page(monkeypatch) -> list[tuple[object, Path, int]]:
    """The page's arguments instead of the page, which has other tests."""
    written = []

    def write_page(report: object, out: Path, *, players: int) -> None:
        out.write_text("page")
        written.append((report, out, players))

    module = ModuleType("simvq_audio.evaluation.report.page")
    module.write_page = write_page
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return written


def test_evaluate_prints_and_writes_the_same(run, page, recordings, model_file, tmp_path, codec):
    out = tmp_path / "report"
    arguments = [
        *("evaluate", recordings, "--model", model_file, "--device", "cpu", "--jobs", 1),
        *("--metrics", METRICS, "--out", out, "--players", 2),
        *("--csv", tmp_path / "r.csv"),
    ]
    ended = run(*arguments)
    assert (ended.code, ended.errors) == (0, "")
    ((report, *rest),) = page
    assert rest == [out / "index.html", 2]
    written = json.loads((out / "report.json").read_bytes())
    assert (tmp_path / "r.csv").read_bytes() == (out / "scores.csv").read_bytes()
    assert report.command == f"simvq-audio {' '.join(map(str, arguments))}"
    (system,) = report.systems
    assert [file.name for file in system.files] == ["a/one.wav", "a/two.flac", "b/three.wav"]
    assert [file["scores"] for file in written["systems"][0]["files"]] == [
        file.scores for file in system.files
    ]
    for file in system.files:
        size = (out / "codes" / file.name).with_suffix(".codes").stat().st_size
        assert file.scores["kbps_file"] == pytest.approx(8 * size / 0.5 / 1000)
        payload = file.scores["kbps"] * 0.5 * 1000
        assert 0 <= 8 * (size - OVERHEAD_BYTES) - payload < 8
    # 75 frames a second, 9 bits each, the last frame filled up.
    assert system.kbps == pytest.approx(38 * 9 / 0.5 / 1000)

    text = ended.text
    mean = np.mean([file.scores["si_sdr"] for file in system.files])
    assert f"{mean:.2f}" in text
    assert "SI-SDR (dB) ↑" in text and "Bit rate (kbit/s) ↓" in text
    assert "by folder" in text and "│ b " in text
    assert f"small {codec.model_id}: 3 files scored, 0.684 kbit/s" in text
    assert "114 codes:" in text and "512 entries" in text
    with (out / "scores.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3

    # Once more: nothing changes but the time.
    again = run(*arguments, "--quiet")
    assert (again.code, again.output, again.errors) == (0, b"", "")
    assert json.loads((out / "report.json").read_bytes())["systems"] == written["systems"]


def test_what_fails_is_named_and_gives_code_1(run, page, recordings, model_file, tmp_path):
    (recordings / "b" / "broken.wav").write_bytes(b"no audio")
    write_noise(recordings / "b" / "short.wav", 0.1)
    ended = run(
        *("evaluate", recordings, "--model", model_file, "--jobs", 1, "--metrics", "stoi"),
        *("--out", tmp_path / "out"),
    )
    assert ended.code == 1
    lines = ended.errors.splitlines()
    assert lines[0].startswith("simvq-audio: failed: b/broken.wav: is not audio")
    assert lines[1].startswith("simvq-audio: error: 1 failed")
    assert len(lines) == 2
    assert "1 without STOI (too short for STOI" in ended.text
    assert "b/short.wav" in ended.text
    assert "1 failed" in ended.text
    assert len(page) == 1
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(content["systems"][0]["failures"]) == ["b/broken.wav"]
    assert content["summary"]["small"]["all"]["stoi"]["count"] == 3


def test_compare(run, page, recordings, tmp_path):
    for name in ("a/one.wav", "a/two.wav", "b/three.wav"):
        samples, rate = soundfile.read(recordings / name.replace("two.wav", "two.flac"))
        for system, level in {"good": 0.001, "bad": 0.02}.items():
            noise = level * np.random.default_rng(len(name)).standard_normal(len(samples))
            (tmp_path / system / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / system / name, samples + noise, rate)
    ended = run(
        *("compare", recordings, f"good={tmp_path / 'good'}", f"bad={tmp_path / 'bad'}"),
        *("--bitrate", "bad=1.5", "--metrics", "si_sdr", "--out", tmp_path / "r"),
        *("--jobs", 1),
    )
    assert (ended.code, ended.errors) == (0, "")
    content = json.loads((tmp_path / "r/report.json").read_text())
    assert [system["kbps"] for system in content["systems"]] == [None, 1.5]
    assert "bad minus good, on the files of both" in ended.text
    test = content["paired_tests"]["bad"]["si_sdr"]
    assert test["difference"]["value"] == pytest.approx(-20 * np.log10(20), abs=1)
    assert f"{test['difference']['value']:.2f}" in ended.text


def test_default_metrics_of_compare_need_no_codes(run, recordings, tmp_path, monkeypatch):
    seen = []

    def compare_systems(folder, systems, rates, settings):
        seen.append(settings.metrics)
        raise KeyboardInterrupt

    monkeypatch.setattr("simvq_audio.evaluation.compare.compare_systems", compare_systems)
    assert run("compare", recordings, f"x={recordings}").code == 130
    names = [metric.name for metric in seen[0]]
    assert "pesq_wb" in names and "kbps" not in names


def test_limit(run, recordings, model_file, tmp_path):
    ended = run(
        *("evaluate", recordings, "--model", model_file, "--metrics", "kbps", "--limit", 1),
        "--json",
    )
    assert ended.code == 0
    (system,) = json.loads(ended.text)["systems"]
    assert [file["name"] for file in system["files"]] == ["a/one.wav"]


def test_only(run, recordings, model_file, tmp_path):
    arguments = ("evaluate", recordings, "--model", model_file, "--metrics", "kbps")
    ended = run(*arguments, "--only", "b", "--json")
    assert ended.code == 0
    (system,) = json.loads(ended.text)["systems"]
    assert [file["name"] for file in system["files"]] == ["b/three.wav"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "none"], "none: no such folder"),
        (["evaluate", "in/a/one.wav"], "one.wav: is a file"),
        (["evaluate", "empty"], "empty: holds no recording"),
        (["evaluate", "in", "--metrics", "pesq_xb"], "there is no metric pesq_xb"),
        (["evaluate", "in", "--metrics", ","], "no metric"),
        (["evaluate", "in", "--model", "none.safetensors"], "none.safetensors"),
        (["evaluate", "in", "--out", "in/a/one.wav"], "one.wav: is a file; --out takes a folder"),
        (["evaluate", "in", "--out", "in/report"], "--out and DIR must not lie in each other"),
        (["evaluate", "in/a", "--out", "in"], "--out and DIR must not lie in each other"),
        (["evaluate", "in", "--csv", "none/r.csv"], "none: no such folder"),
        (["evaluate", "in", "--csv", "in"], "in: is a folder"),
        (["compare", "in", "other"], "other: is not of the form NAME=DIR"),
        (["compare", "in", "=in"], "=in: is not of the form NAME=DIR"),
        (["compare", "in", "x=none"], "none: no such folder"),
        (["compare", "none", "x=in"], "none: no such folder"),
        (["compare", "in", "x=in", "x=empty"], "x is given twice"),
        (["compare", "in", "x=in", "--bitrate", "y=3"], "there is no such system; given are x"),
        (["compare", "in", "x=in", "--bitrate", "x=fast"], "KBPS must be a number above 0"),
        (["compare", "in", "x=in", "--bitrate", "x=nan"], "KBPS must be a number above 0"),
        (["compare", "in", "x=in", "--bitrate", "x"], "x: is not of the form NAME=KBPS"),
        (["compare", "in", "x=in", "--metrics", "kbps,stoi"], "kbps: needs codes"),
    ],
)
def test_mistakes_give_one_line(run, recordings, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    run(*arguments).assert_refused(words)
    assert sorted(tmp_path.rglob("*")) == before


def test_without_the_extra_its_name_is_said(run, recordings, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(
            "importlib.util.find_spec", lambda name: None if name == "scipy" else find(name)
        )
        run("evaluate", recordings).assert_refused("pip install 'simvq-audio[eval]'")
    monkeypatch.setitem(sys.modules, "pesq", None)
    run("evaluate", recordings, "--metrics", "pesq_wb").assert_refused("'simvq-audio[eval]'")

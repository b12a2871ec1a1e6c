"""Reports as JSON and CSV."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from simvq_audio.evaluation.metric import MetricInfo
from simvq_audio.evaluation.report.files import report_to_json, write_csv, write_json
from simvq_audio.evaluation.results import CodebookUse, FileResult, Report, SystemResult


@pytest.fixture
def report() -> Report:
    rng = np.random.default_rng(0)
    metrics = (
        MetricInfo("m", "M", "dB", True, "ITU", 16_000, 3),
        MetricInfo("n", "N", "", None, "tests", None, 1),
    )

    def files(shift: float) -> tuple[FileResult, ...]:
        made = [
            FileResult(
                f"{folder}/{i}.wav", 0.1 + i, {"m": rng.normal() + shift, "n": 1 / 3}, {}, "/r"
            )
            for folder in ("x", "y")
            for i in range(4)
        ]
        made[2] = replace(made[2], scores={"n": 2.0}, problems={"m": 'no "speech", at all'})
        made[3] = replace(made[3], decoded_path="/d")
        return tuple(made)

    use = CodebookUse(512, 7, (4, 2, 1), 3 / 512, 2.6, 1.37)
    return Report(
        metrics,
        (
            SystemResult("ours", files(0), 0.975, {"all": use, "x": use}, "0" * 12, {}),
            SystemResult("other", files(1), None, {}, None, {"x/ü,1.wav": "bad\nfile"}, -3, 8_000),
        ),
        "simvq",
        "simvq-audio compare 'a b' c=d",
        "a machine",
        {"numpy": "2"},
        "2030-01-01T00:00:00+00:00",
    )


def test_json_holds_the_whole_report(report, tmp_path):
    write_json(report, tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == [tmp_path / "r.json"]
    content = json.loads((tmp_path / "r.json").read_bytes())
    assert (content["format"], content["protocol"], content["machine"]) == (1, "simvq", "a machine")
    assert content["command"] == "simvq-audio compare 'a b' c=d"
    assert content["versions"] == {"numpy": "2"} and content["created"].startswith("2030")
    assert [(m["name"], m["unit"], m["sample_rate"]) for m in content["metrics"]] == [
        ("m", "dB", 16_000),
        ("n", "", None),
    ]
    ours, other = content["systems"]
    assert (ours["name"], ours["kbps"], ours["model_id"]) == ("ours", 0.975, "0" * 12)
    assert ours["codebook"]["x"]["counts"] == [4, 2, 1]
    assert ours["codebook"]["all"]["perplexity"] == 2.6
    assert (other["delay"], other["failures"]) == (-3, {"x/ü,1.wav": "bad\nfile"})
    for written, file in zip(ours["files"], report.systems[0].files, strict=True):
        assert (written["name"], written["scores"]) == (file.name, file.scores)
        assert (written["problems"], written["decoded_path"]) == (file.problems, file.decoded_path)


def test_json_has_means_and_tests_beside_it(report):
    content = json.loads(report_to_json(report))
    assert list(content["summary"]["ours"]) == ["all", "x", "y"]
    scores = [file.scores["m"] for file in report.systems[0].files if "m" in file.scores]
    mean = content["summary"]["ours"]["all"]["m"]
    assert (mean["value"], mean["count"]) == (pytest.approx(np.mean(scores)), 7)
    assert mean["low"] < mean["value"] < mean["high"]
    assert content["summary"]["ours"]["x"]["m"]["count"] == 3
    assert list(content["paired_tests"]) == ["other"]
    test = content["paired_tests"]["other"]["m"]
    assert test["difference"]["count"] == 7
    assert 0 < test["p_value"] < 1


def test_csv_has_a_row_for_each_file_and_a_column_for_each_metric(report, tmp_path):
    write_csv(report, tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("system", "file", "folder", "duration", "m", "n", "problems", "failure")
    ]
    assert [(row["system"], row["file"]) for row in rows[:-1]] == [
        (system.name, file.name) for system in report.systems for file in system.files
    ]
    assert float(rows[0]["m"]) == report.systems[0].files[0].scores["m"]
    assert (rows[2]["m"], rows[2]["n"]) == ("", "2.0")
    assert rows[2]["problems"] == 'm: no "speech", at all'
    last = rows[-1]
    assert (last["system"], last["file"], last["m"]) == ("other", "x/ü,1.wav", "")
    assert last["failure"] == "bad\nfile"

"""Means, intervals and tests against scipy, closed forms and known coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from simvq_audio.evaluation import results
from simvq_audio.evaluation.codebook_use import CodeCounter
from simvq_audio.evaluation.metric import MetricInfo
from simvq_audio.evaluation.results import FileResult, Report, SystemResult, summarise
from simvq_audio.evaluation.statistics import mean_interval, paired_test


def test_the_interval_of_many_normal_scores_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    mean = mean_interval(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(400)
    assert mean.value == pytest.approx(values.mean())
    assert mean.count == 400
    assert mean.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert mean.high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    """Of skewed scores too: exponential, 40 files, 300 evaluations; 95 % less what n = 40 costs."""
    rng = np.random.default_rng(2)
    found = [mean_interval(rng.exponential(1.0, 40), seed) for seed in range(300)]
    covered = np.mean([mean.low <= 1.0 <= mean.high for mean in found])
    assert 0.90 <= covered <= 0.985


def test_equal_scores_give_equal_intervals_and_seeds_differ():
    values = np.random.default_rng(3).normal(size=30)
    assert mean_interval(values) == mean_interval(list(values))
    assert mean_interval(values).low != mean_interval(values, seed=1).low


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 0.1])
def test_constant_scores_have_no_width(value):
    mean = mean_interval([value] * 7)
    assert (mean.low, mean.high) == pytest.approx((value, value))


def test_one_score_has_no_interval():
    mean = mean_interval([2.5])
    assert (mean.value, mean.low, mean.high, mean.count) == (2.5, None, None, 1)


def test_paired_test_is_scipys_on_the_files_of_both():
    rng = np.random.default_rng(4)
    first = {f"{i}": value for i, value in enumerate(rng.normal(size=25))}
    second = {name: value + rng.normal(0.2, 0.3) for name, value in first.items()}
    first["only first"], second["only second"] = 100.0, -100.0
    test = paired_test(first, second)
    shared = [str(i) for i in range(25)]
    expected = stats.wilcoxon([second[n] for n in shared], [first[n] for n in shared])
    assert test.p_value == pytest.approx(expected.pvalue)
    difference = np.mean([second[n] - first[n] for n in shared])
    assert test.difference.value == pytest.approx(difference)
    assert test.difference.count == 25
    assert test.difference.low < difference < test.difference.high


def test_paired_test_of_equal_few_and_no_files():
    assert paired_test({"a": 1.0}, {"b": 1.0}) is None
    assert paired_test({"a": 1.0}, {"a": 3.0}).p_value is None
    same = paired_test({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0})
    assert (same.p_value, same.difference.value) == (1.0, 0.0)


def result(name: str, **scores: float) -> FileResult:
    return FileResult(name, 1.0, scores, {}, name)


def system(*files: FileResult) -> SystemResult:
    return SystemResult("s", files, None, {}, None, {})


def test_means_leave_out_files_without_a_score():
    files = [result("a", m=1.0, n=5.0), result("b"), result("c", m=4.0)]
    found = summarise([system(*files)], ["m", "n", "none"]).means["s"]["all"]
    assert (found["m"].value, found["m"].count) == (2.5, 2)
    assert found["n"].count == 1
    assert "none" not in found


def test_a_report_computes_its_statistics_once(monkeypatch):
    """However many of table, JSON, CSV and page are made of it."""
    calls = []
    monkeypatch.setattr(
        results, "mean_interval", lambda values: calls.append(values) or mean_interval(values)
    )
    metric = MetricInfo("m", "M", "", True, "", None, 3)
    files = [result(name, m=float(number)) for number, name in enumerate(("x/a", "x/b", "y/c"))]
    report = Report((metric,), (system(*files),), "default", "", "", {}, "")
    assert report.summary is report.summary
    assert len(calls) == 3  # all, x, y
    assert report.summary.counts == {"s": {"all": 3, "x": 2, "y": 1}}


def test_a_folder_named_all_is_not_all():
    files = [result("all/a"), result("x/b"), result("c")]
    groups = system(*files).by_folder()
    assert {name: len(files) for name, files in groups.items()} == {
        "all": 3,
        ".": 1,
        "./all": 1,
        "x": 1,
    }


def test_a_single_folder_is_not_repeated():
    assert list(system(result("x/a"), result("x/b")).by_folder()) == ["all"]


def test_codebook_use_by_folder_and_over_all():
    counter = CodeCounter(8)
    counter.add("x", np.array([[0, 1, 2, 3]]))
    counter.add("y", np.array([[3, 3], [3, 3]]))
    counter.add("x", np.array([[0, 1, 2, 3]]))
    use = counter.use(["x", "y"])
    assert list(use) == ["all", "x", "y"]
    assert use["x"].counts == (2, 2, 2, 2)
    assert (use["x"].utilisation, use["x"].perplexity, use["x"].entropy) == pytest.approx(
        (0.5, 4.0, 2.0)
    )
    assert (use["y"].counts, use["y"].frames, use["y"].entropy) == ((4,), 4, 0.0)
    p = np.array([6, 2, 2, 2]) / 12
    assert use["all"].counts == (6, 2, 2, 2)
    assert use["all"].entropy == pytest.approx(-(p * np.log2(p)).sum())

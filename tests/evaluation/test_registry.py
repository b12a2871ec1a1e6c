"""Metrics by name: ours, and those of other packages by real entry points."""

from __future__ import annotations

import importlib
import math
import sys

import pytest
from signals import noise, trial

from simvq_audio.errors import ConfigError
from simvq_audio.evaluation.metric import Metric
from simvq_audio.evaluation.registry import (
    built_in_metrics,
    default_metric_names,
    find_metrics,
    metric_names,
)

THEIRS = """
from simvq_audio.evaluation.metric import Metric

class Level(Metric):
    name = "level"
    title = "Level"
    unit = "dB"
    higher_is_better = None
    source = "a stranger"

    def score(self, trial):
        return float(abs(trial.decoded).max() / abs(trial.reference).max())

class Shadow(Level):
    name = "stoi"

class Misnamed(Level):
    name = "other"

class Nameless(Metric):
    name = "nameless"
    def score(self, trial):
        return 0.0

nothing = 3
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs distributions as pip does: a module and a .dist-info folder on sys.path."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "strangers_metrics.py").write_text(THEIRS)
    (tmp_path / "strangers_broken.py").write_text("import a_package_that_does_not_exist\n")

    def install(distribution: str, **metrics: str) -> None:
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
        rows = "".join(f"{name} = {value}\n" for name, value in metrics.items())
        (info / "entry_points.txt").write_text(f"[simvq_audio.metrics]\n{rows}")
        importlib.invalidate_caches()

    yield install
    for module in ("strangers_metrics", "strangers_broken"):
        sys.modules.pop(module, None)


def test_every_metric_says_what_it_is():
    metrics = built_in_metrics()
    names = [metric.name for metric in metrics]
    assert len({*names}) == len(names)
    assert len({metric.title for metric in metrics}) == len(names)
    for metric in metrics:
        info = metric.info()
        assert info.name.isidentifier() and info.title and info.source
        assert metric.__doc__
        assert info.higher_is_better in (True, False)
    assert {"pesq_wb", "stoi", "mel", "f0_error", "kbps"} <= {*default_metric_names()}
    assert not {"utmos", "vuv_f1_crepe", "visqol"} & {*default_metric_names()}


def test_words_and_names_in_the_order_asked_for_each_once():
    found = [metric.name for metric in find_metrics(["utmos", "stoi", "utmos", "default"])]
    assert found[:2] == ["utmos", "stoi"]
    assert found[2:] == [name for name in default_metric_names() if name != "stoi"]
    assert [metric.name for metric in find_metrics(["all"])] == [*metric_names()]
    assert {m.name for m in find_metrics(["all"])} >= {m.name for m in built_in_metrics()}


def test_default_metrics_need_the_extra_eval_alone(monkeypatch):
    for package in ("pesq", "pystoi", "auraloss", "librosa"):
        pytest.importorskip(package)
    for package in ("torchcrepe", "speechmos", "visqol", "utmos_pytorch", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    assert all(isinstance(metric(), Metric) for metric in find_metrics(["default"]))


def test_an_unknown_name_lists_the_known_ones(install):
    install("strangers", level="strangers_metrics:Level")
    with pytest.raises(ConfigError, match=r"no metric pesk; there are pesq_wb, .*level") as caught:
        find_metrics(["pesk"])
    assert "default and all" in str(caught.value)


def test_a_strangers_metric_is_found_and_scores(install):
    install("strangers-metrics", level="strangers_metrics:Level")
    (metric,) = find_metrics(["level"])
    sound = noise(100)
    assert math.isclose(metric().score(trial(sound, 0.5 * sound)), 0.5)
    assert metric.info().source == "a stranger"
    assert find_metrics(["all"])[-1] is metric
    assert metric not in find_metrics(["default"])


@pytest.mark.parametrize(
    "name, value, problem",
    [
        ("broken", "strangers_broken:Metric", "ModuleNotFoundError: No module named 'a_package"),
        ("absent", "strangers_metrics:Absent", "AttributeError"),
        ("nothing", "strangers_metrics:nothing", "is not a subclass of Metric"),
        ("nameless", "strangers_metrics:Nameless", "has no title"),
        ("level", "strangers_metrics:Misnamed", "calls itself other"),
    ],
)
def test_a_broken_package_is_named_when_it_is_asked_for(install, name, value, problem):
    install("bad-strangers", **{name: value})
    with pytest.raises(ConfigError, match=f"package bad-strangers registers .*{name}.*{problem}"):
        find_metrics([name])
    assert find_metrics(["default"])


def test_two_metrics_of_one_name(install):
    install("first-strangers", level="strangers_metrics:Level")
    install("second-strangers", level="strangers_metrics:Level", stoi="strangers_metrics:Shadow")
    with pytest.raises(ConfigError, match=r"level is registered by .*-strangers and by .*-strang"):
        find_metrics(["level"])
    with pytest.raises(ConfigError, match="stoi is registered by simvq-audio and by second-strang"):
        find_metrics(["default"])

"""Comparison of other codecs: delays, missing files, tests between systems."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_metrics import Difference, Loudness
from scipy import signal, stats

from simvq_audio.evaluation.compare import DELAY_FAILURE, compare_systems
from simvq_audio.evaluation.protocol import DEFAULT
from simvq_audio.evaluation.runner import EvaluationOptions
from simvq_audio.evaluation.statistics import paired_test

NAMES = ("a/one", "a/two", "b/three", "four")


def settings(*metrics, **options) -> EvaluationOptions:
    return EvaluationOptions(metrics or (Difference,), DEFAULT, **options)


def write(path: Path, samples: np.ndarray, rate: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="FLOAT" if path.suffix == ".wav" else None)


@pytest.fixture
def originals(tmp_path) -> dict[str, np.ndarray]:
    """Bursts of noise, as speech is: their envelope tells delays."""
    rng = np.random.default_rng(5)
    made = {}
    for name in NAMES:
        syllables = np.repeat(rng.uniform(0, 1, 12) > 0.5, 2_000)
        made[name] = np.float32(0.1 * rng.standard_normal(24_000) * (0.02 + syllables))
        write(tmp_path / "ref" / f"{name}.wav", made[name])
    return made


def test_a_constant_delay_is_found_removed_and_reported(tmp_path, originals):
    rng = np.random.default_rng(6)
    noise = {name: 0.001 * rng.standard_normal(24_000) for name in NAMES}
    for name, samples in originals.items():
        # Late by 137 samples, with the end cut off; early by 40; at half the rate.
        late = np.concatenate([np.zeros(137), samples + noise[name]])[: len(samples)]
        write(tmp_path / "late" / f"{name}.wav", late)
        write(tmp_path / "early" / f"{name}.wav", samples[40:])
        # A file's whole name may stay, and the rate be another.
        half = signal.resample_poly(np.concatenate([np.zeros(200), samples]), 1, 2)
        write(tmp_path / "half" / f"{name}.wav.flac", half, 8_000)
    report = compare_systems(
        tmp_path / "ref",
        {name: tmp_path / name for name in ("late", "early", "half")},
        {"late": 3.2},
        settings(Difference, Loudness),
    )
    late, early, half = report.systems
    assert all(system.failures == {} for system in report.systems)
    assert (late.name, late.kbps, early.kbps) == ("late", 3.2, None)
    assert (late.delay, late.delay_rate) == (137, 16_000)
    assert (early.delay, early.delay_rate) == (-40, 16_000)
    assert half.delay == pytest.approx(200, abs=16)
    assert [file.name for file in late.files] == sorted(f"{name}.wav" for name in NAMES)
    for file in late.files:
        expected = np.sqrt(np.mean(noise[file.name[:-4]][: 24_000 - 137] ** 2))
        assert file.scores["difference"] == pytest.approx(expected, rel=1e-3)
        assert file.duration == 1.5
        assert file.decoded_path.endswith(f"late/{file.name}")
    assert all(file.scores["difference"] == 0 for file in early.files)
    assert late.codebook == {} and late.model_id is None

    test = paired_test(late.scores("difference"), early.scores("difference"))
    scores = [file.scores["difference"] for file in late.files]
    assert test.difference.value == pytest.approx(-np.mean(scores))
    assert test.p_value == pytest.approx(stats.wilcoxon([-x for x in scores]).pvalue)


def test_what_does_not_pair_is_named_also_of_a_part(tmp_path, originals):
    for name in NAMES[1:]:
        write(tmp_path / "dec" / f"{name}.flac", originals[name])
    write(tmp_path / "dec" / "extra.wav", originals["four"])
    write(tmp_path / "dec" / "b" / "three.wav", np.stack([originals["b/three"]] * 2, axis=1))
    (tmp_path / "dec" / "b" / "three.flac").unlink()
    (tmp_path / "dec" / "four.flac").write_bytes(b"no audio")
    whole = compare_systems(tmp_path / "ref", {"s": tmp_path / "dec"}, {}, settings())
    (system,) = whole.systems
    assert [file.name for file in system.files] == ["a/two.wav"]
    assert sorted(system.failures) == ["a/one.wav", "b/three.wav", "extra.wav", "four.wav"]
    assert "no decoded file" in system.failures["a/one.wav"]
    assert "2 channels, and 1" in system.failures["b/three.wav"]
    assert "is not audio" in system.failures["four.wav"]
    assert "belongs to no recording" in system.failures["extra.wav"]
    # Two of the four, a/one and b/three: the extra file is extra still, four was left out.
    part = compare_systems(tmp_path / "ref", {"s": tmp_path / "dec"}, {}, settings(limit=2))
    # With no pair left that can be read, there is no delay to be found either.
    named = [DELAY_FAILURE, "a/one.wav", "b/three.wav", "extra.wav"]
    assert sorted(part.systems[0].failures) == named


def test_a_delay_that_is_not_constant_is_not_removed(tmp_path, originals):
    for number, (name, samples) in enumerate(originals.items()):
        shift = np.zeros(1_000 * number)
        write(tmp_path / "dec" / f"{name}.wav", np.concatenate([shift, samples]))
    report = compare_systems(tmp_path / "ref", {"s": tmp_path / "dec"}, {}, settings())
    (system,) = report.systems
    assert list(system.failures) == [DELAY_FAILURE]
    assert "not constant" in system.failures[DELAY_FAILURE]
    assert (system.delay, system.delay_rate) == (0, None)
    assert len(system.files) == 4


def test_scores_are_kept_by_content(tmp_path, originals, monkeypatch):
    for name, samples in originals.items():
        write(tmp_path / "dec" / f"{name}.wav", samples)

    def compare(**systems: Path):
        folders = {name: tmp_path / place for name, place in systems.items()}
        return compare_systems(
            tmp_path / "ref", folders, {}, settings(Difference, out=tmp_path / "report")
        )

    first = compare(s="dec")

    def nothing_left(jobs, *arguments):
        assert list(jobs) == []
        yield from ()

    monkeypatch.setattr("simvq_audio.evaluation.runner.score_all", nothing_left)
    # Under another name the same files have the same scores.
    again = compare(s="dec", t="dec")
    assert again.systems[0] == first.systems[0]
    assert again.systems[1].files == first.systems[0].files

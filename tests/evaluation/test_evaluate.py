"""From a folder of recordings to a report of our codec, interrupted or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fake_metrics
import numpy as np
import pytest
import soundfile
from fake_metrics import Difference, FileBytes, Loudness, Treacherous, Unavailable
from noise import write_noise

from simvq_audio.bitstream import OVERHEAD_BYTES, Codes
from simvq_audio.errors import AudioError, ConfigError, MissingExtraError
from simvq_audio.evaluation.evaluate import evaluate_codec
from simvq_audio.evaluation.protocol import DEFAULT
from simvq_audio.evaluation.results import Report
from simvq_audio.evaluation.runner import LEDGER_NAME, EvaluationOptions

ALL = (Difference, Loudness, FileBytes)


def settings(*metrics, **options) -> EvaluationOptions:
    return EvaluationOptions(metrics or ALL, DEFAULT, command="simvq-audio evaluate x", **options)


def comparable(report: Report, out: Path | None = None) -> Report:
    """A report without what two runs may differ in: the time and the place."""
    (system,) = report.systems
    files = tuple(
        replace(f, decoded_path=f.decoded_path and os.path.relpath(f.decoded_path, out))
        for f in system.files
    )
    return replace(report, created="", systems=(replace(system, files=files),))


@pytest.fixture(scope="module")
def calls(tmp_path_factory, request) -> Path:
    """Where the metric ``Difference`` notes its calls."""
    path = tmp_path_factory.mktemp("calls") / "calls.txt"
    patch = pytest.MonkeyPatch()
    request.addfinalizer(patch.undo)
    patch.setenv(fake_metrics.CALLS, str(path))
    return path


@pytest.fixture
def count(calls) -> Callable[[], int]:
    """How many channels were scored since the last call."""
    calls.write_text("")

    def since() -> int:
        lines = calls.read_text().splitlines()
        calls.write_text("")
        return len(lines)

    return since


def test_every_recording_is_coded_and_scored(codec, recordings, tmp_path, count):
    out = tmp_path / "report"
    report = evaluate_codec(lambda: codec, recordings, settings(out=out, jobs=2))
    (system,) = report.systems
    assert (system.name, system.model_id) == (codec.name, codec.model_id)
    names = ["a/one.wav", "a/two.flac", "b/one.wav", "b/short.wav", "b/stereo.wav", "top.wav"]
    assert [file.name for file in system.files] == names
    assert system.failures == {}
    assert count() == 7

    bits = seconds = 0
    pooled = []
    for file in system.files:
        original, rate = soundfile.read(recordings / file.name, always_2d=True)
        codes = codec.encode_file(recordings / file.name)
        coded = (out / "codes" / file.name).with_suffix(".codes")
        assert Codes.load(coded) == codes
        decoded, decoded_rate = soundfile.read(file.decoded_path, always_2d=True)
        assert file.decoded_path == str((out / "decoded" / file.name).with_suffix(".wav"))
        assert (decoded.shape, decoded_rate) == (original.shape, rate)
        assert os.path.samefile(file.reference_path, recordings / file.name)
        assert file.duration == pytest.approx(len(original) / rate)
        # A score is the mean over channels.
        errors = np.sqrt(np.mean((original - decoded) ** 2, axis=0))
        assert file.scores["difference"] == pytest.approx(errors.mean(), rel=1e-4)
        size = coded.stat().st_size
        assert file.scores["file_bytes"] == size
        # Nine bits a code of 512; what is left of the last byte is no payload.
        payload = 9 * codes.indices.size
        assert 0 <= 8 * (size - OVERHEAD_BYTES) - payload < 8
        bits += payload
        seconds += len(original) / rate * original.shape[1]
        pooled.append(codes.indices.ravel())
    assert system.kbps == pytest.approx(bits / seconds / 1000)

    # What cannot be scored is named, and has no number.
    short = system.files[3]
    assert short.problems == {"loudness": "too short"}
    assert "loudness" not in short.scores
    assert sum(len(file.problems) for file in system.files) == 1

    use = system.codebook
    assert list(use) == ["all", ".", "a", "b"]
    counts = np.bincount(np.concatenate(pooled), minlength=512)
    assert use["all"].frames == counts.sum()
    assert use["all"].utilisation == pytest.approx((counts > 0).mean())
    p = counts[counts > 0] / counts.sum()
    assert use["all"].entropy == pytest.approx(-(p * np.log2(p)).sum())
    assert use["a"].frames == sum(len(codes) for codes in pooled[:2])

    assert [metric.name for metric in report.metrics] == ["difference", "loudness", "file_bytes"]
    assert report.protocol == "default"
    assert {"numpy", "torch", "soxr", "python"} <= set(report.versions)
    assert report.machine and report.created.endswith("+00:00")


def test_without_a_place_nothing_is_kept_and_jobs_do_not_matter(codec, recordings, tmp_path):
    alone = evaluate_codec(lambda: codec, recordings, settings(Difference, jobs=1))
    many = evaluate_codec(
        lambda: codec, recordings, settings(Difference, jobs=3, out=tmp_path / "kept")
    )
    (system,), (kept,) = alone.systems, many.systems
    assert all(file.decoded_path is None for file in system.files)
    assert [file.scores for file in system.files] == [file.scores for file in kept.files]
    # Codes of decoded files are made only for metrics that read them.
    assert not (tmp_path / "kept" / "reencoded").exists()


class Interrupted(KeyboardInterrupt):
    pass


def interrupting(phase: str, after: int):
    """A progress bar that raises after a number of files of a phase."""

    @contextmanager
    def progress(label: str, total: float):
        done = 0

        def advance(amount: float) -> None:
            nonlocal done
            done += 1
            if label == phase and done > after:
                raise Interrupted

        yield advance

    return progress


@pytest.mark.parametrize(("phase", "after"), [("coding", 0), ("coding", 3), ("scoring", 2)])
def test_an_interrupted_run_goes_on(codec, recordings, tmp_path, count, phase, after):
    out = tmp_path / "report"
    with pytest.raises(Interrupted):
        evaluate_codec(
            lambda: codec, recordings, settings(out=out, progress=interrupting(phase, after))
        )
    count()
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")}
    resumed = evaluate_codec(lambda: codec, recordings, settings(out=out))
    whole = evaluate_codec(lambda: codec, recordings, settings(out=tmp_path / "whole"))
    assert comparable(resumed, out) == comparable(whole, tmp_path / "whole")
    # Nothing was done twice: what was coded stands, and what was noted is not scored again. The
    # third result came as the first run ended, and was not noted; the whole run has 7 calls.
    assert all(path.stat().st_mtime_ns == at for path, at in times.items())
    assert len(times) == (after + 1 if phase == "coding" else 6)
    assert count() - 7 == (7 if phase == "coding" else 7 - after)


def test_what_was_found_is_used_only_for_what_it_was_found_of(
    codec, recordings, tmp_path, count, monkeypatch
):
    out = tmp_path / "report"

    def evaluate(*metrics) -> Report:
        return evaluate_codec(lambda: codec, recordings, settings(*metrics, out=out))

    first = evaluate(Difference)
    assert count() == 7
    assert comparable(evaluate(Difference), out) == comparable(first, out)
    assert count() == 0
    # Another metric: the first one's scores stand.
    evaluate(Difference, Loudness)
    assert count() == 0
    # Another recording of the same name.
    write_noise(recordings / "a" / "one.wav", 0.9)
    changed = evaluate(Difference)
    assert count() == 1
    assert changed.systems[0].files[0].duration == pytest.approx(0.9)
    # A decoded file that was tampered with is made again, and has its old score.
    decoded = Path(changed.systems[0].files[1].decoded_path)
    decoded.write_bytes(b"")
    assert comparable(evaluate(Difference), out) == comparable(changed, out)
    assert count() == 0
    # Another version of a package that scores.
    versions = {"numpy": "0"}
    monkeypatch.setattr("simvq_audio.evaluation.runner.package_versions", lambda metrics: versions)
    evaluate(Difference)
    assert count() == 7


def test_failures_are_named_and_the_rest_goes_on(codec, recordings):
    (recordings / "a" / "noise.wav").write_bytes(b"no audio at all")
    soundfile.write(recordings / "b" / "empty.wav", np.zeros(0), 16_000)
    write_noise(recordings / "breaks.wav", 0.4, fake_metrics.BREAKING_RATE)
    write_noise(recordings / "infinite.wav", 0.4, fake_metrics.INFINITE_RATE)
    for name in ("same.flac", "same.wav"):
        write_noise(recordings / name, 0.4)
    report = evaluate_codec(lambda: codec, recordings, settings(Treacherous, Loudness))
    (system,) = report.systems
    clash = ["same.flac", "same.wav"]
    assert sorted(system.failures) == ["a/noise.wav", "b/empty.wav", "breaks.wav", *clash]
    for name in clash:
        assert "same.flac and same.wav would all become same.codes" in system.failures[name]
    assert "is not audio" in system.failures["a/noise.wav"]
    assert "no samples" in system.failures["b/empty.wav"]
    assert "treacherous" in system.failures["breaks.wav"]
    assert "ZeroDivisionError: by nothing" in system.failures["breaks.wav"]
    files = {file.name: file for file in system.files}
    assert len(files) == 8
    # One metric's breakdown leaves the others' scores.
    assert list(files["breaks.wav"].scores) == ["loudness"]
    assert list(files["breaks.wav"].problems) == ["treacherous"]
    assert "inf" in files["infinite.wav"].problems["treacherous"]
    for file in files.values():
        assert {*file.scores} | {*file.problems} == {"treacherous", "loudness"}
        assert not {*file.scores} & {*file.problems}


def test_a_process_that_dies_takes_one_recording_with_it(codec, recordings):
    write_noise(recordings / "a" / "deadly.wav", 0.4, fake_metrics.DEADLY_RATE)
    report = evaluate_codec(lambda: codec, recordings, settings(Treacherous, jobs=2))
    (system,) = report.systems
    assert list(system.failures) == ["a/deadly.wav"]
    assert "died" in system.failures["a/deadly.wav"]
    assert len(system.files) == 6
    assert all(file.scores == {"treacherous": 1.0} for file in system.files)


def test_silence_in_one_channel_leaves_no_score(codec, tmp_path):
    samples = write_noise(tmp_path / "half.wav", 0.5, 16_000, channels=2)
    samples[:, 1] = 0
    soundfile.write(tmp_path / "half.wav", samples, 16_000)
    report = evaluate_codec(lambda: codec, tmp_path, settings(Loudness))
    assert report.systems[0].files[0].problems == {"loudness": "channel 2: silent"}


class Heavy(Loudness):
    """Takes more memory than the main process shall spend on it."""

    name = "heavy"

    @classmethod
    def check(cls) -> None:
        pass

    def __init__(self) -> None:
        raise AssertionError("made only to see whether it can be")


def test_packages_are_checked_without_loading_networks():
    settings(Heavy).check_packages()
    with pytest.raises(MissingExtraError):
        settings(Heavy, Unavailable).check_packages()


def test_nothing_is_loaded_for_what_cannot_be_done(tmp_path, recordings):
    def load():
        raise AssertionError

    with pytest.raises(AudioError, match="no such folder"):
        evaluate_codec(load, tmp_path / "none", settings())
    with pytest.raises(MissingExtraError, match="pip install something"):
        evaluate_codec(load, recordings, settings(Unavailable))
    for wrong in ({"jobs": 0}, {"limit": 0}):
        with pytest.raises(ConfigError):
            settings(**wrong)
    with pytest.raises(ConfigError):
        EvaluationOptions((), DEFAULT)


DRIVER = """
import sys
from pathlib import Path

from fake_metrics import Difference
from simvq_audio import Codec
from simvq_audio.evaluation.evaluate import evaluate_codec
from simvq_audio.evaluation.protocol import DEFAULT
from simvq_audio.evaluation.runner import EvaluationOptions

if __name__ == "__main__":
    model, folder, out = sys.argv[1:]
    settings = EvaluationOptions((Difference,), DEFAULT, jobs=2, out=Path(out))
    report = evaluate_codec(lambda: Codec.load(model, device="cpu"), Path(folder), settings)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal here")
def test_a_killed_run_goes_on_and_leaves_no_process(
    codec, model_file, recordings, tmp_path, calls, count
):
    for number in range(30):
        write_noise(recordings / "many" / f"{number}.wav", 0.3)
    out, script = tmp_path / "report", tmp_path / "driver.py"
    script.write_text(DRIVER)
    paths = [str(Path(__file__).parent), *sys.path]
    process = subprocess.Popen(
        [sys.executable, script, model_file, recordings, out],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    try:
        wait_until(lambda: b'"metric"' in (read(out / LEDGER_NAME)), process)
    finally:
        process.kill()
        process.wait()
    workers = {int(line.split()[0]) for line in calls.read_text().splitlines()}
    assert workers
    wait_until(lambda: not any(map(is_alive, workers)))
    count()
    resumed = evaluate_codec(lambda: codec, recordings, settings(Difference, out=out))
    assert count() < 37
    whole = evaluate_codec(lambda: codec, recordings, settings(Difference, out=tmp_path / "whole"))
    assert comparable(resumed, out) == comparable(whole, tmp_path / "whole")


def wait_until(condition: Callable[[], bool], process: subprocess.Popen | None = None) -> None:
    for _ in range(6000):
        if condition():
            return
        assert process is None or process.poll() is None, "it ended by itself"
        time.sleep(0.05)
    raise AssertionError("nothing happened for five minutes")


def read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # An orphan may stand there ended until the system's first process asks for it.
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")

"""Many files by one coder: batched both ways, one error policy, going on where memory runs out."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from simvq_audio.audio import read_audio
from simvq_audio.bitstream import Codes
from simvq_audio.codec import Codec
from simvq_audio.codec.folders import FolderCoder

SECONDS = (0.4, 1.1, 0.9, 3.2, 0.0, 0.7)


@pytest.fixture
def jobs(tmp_path):
    generator = np.random.default_rng(0)
    for index, seconds in enumerate(SECONDS):
        samples = 0.1 * generator.standard_normal((round(16_000 * seconds), 1 + index % 2))
        soundfile.write(tmp_path / f"{index}.wav", samples, 16_000)
    return [(tmp_path / f"{i}.wav", tmp_path / "codes" / f"{i}.codes") for i in range(len(SECONDS))]


@pytest.mark.parametrize("batch_seconds", [1.0, 2.5, 30.0])
def test_files_together_are_files_alone(codec, jobs, tmp_path, batch_seconds):
    coder = FolderCoder(codec.with_batch_seconds(batch_seconds))
    results = list(coder.encode(jobs))
    assert sorted(result.job for result in results) == sorted(jobs)
    for result in results:
        assert result.failure is None and result.elapsed > 0
        expected = codec.encode_file(result.job.source)
        assert Codes.load(result.job.target) == result.codes == expected
    back = [(target, tmp_path / "out" / f"{target.stem}.wav") for _, target in jobs]
    results = list(coder.decode(back))
    assert sorted(result.job for result in results) == sorted(back)
    for result in results:
        waveform, rate = read_audio(result.job.target)
        expected = codec.decode(result.codes)
        assert rate == 16_000
        np.testing.assert_allclose(waveform, expected.clamp(-1, 1), atol=1e-4)
        assert result.clipped == int((expected.abs() > 1).sum())


def short_of_memory(monkeypatch, codec, limit: float) -> list[float]:
    """Passes of the model with more than ``limit`` seconds fail, as on a small GPU."""
    model, passes = codec._model, []

    def checked(part, seconds_of):
        forward = part.forward

        def run(array, *rest):
            seconds = seconds_of(array)
            passes.append(seconds)
            if seconds > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            return forward(array, *rest)

        monkeypatch.setattr(part, "forward", run)

    checked(model.encoder, lambda x: x.shape[0] * x.shape[1] / 24_000)
    checked(model.decoder, lambda x: x.shape[0] * x.shape[2] / 75)
    return passes


def test_where_memory_runs_out_the_batch_is_halved(model_file, codec, jobs, tmp_path, monkeypatch):
    tight = Codec.load(model_file, device="cpu", batch_seconds=30.0)
    passes = short_of_memory(monkeypatch, tight, 3.5)
    coder = FolderCoder(tight)
    for result in coder.encode(jobs):
        assert result.failure is None
        assert result.codes == codec.encode_file(result.job.source)
    assert max(passes) > 3.5 >= passes[-1]
    # The codec that the caller gave is as it was.
    assert (tight.batch_seconds, coder.codec.batch_seconds) == (30.0, 1.875)
    coder = FolderCoder(tight)
    back = [(target, tmp_path / "out" / f"{target.stem}.wav") for _, target in jobs]
    for result in coder.decode(back):
        assert result.failure is None
        assert soundfile.info(result.job.target).frames == result.codes.num_samples
    assert coder.codec.batch_seconds == 1.875


def test_files_that_fit_into_no_memory_fail_and_the_rest_goes_on(model_file, jobs, monkeypatch):
    tight = Codec.load(model_file, device="cpu", batch_seconds=30.0)
    short_of_memory(monkeypatch, tight, 0.5)
    results = {result.job.source.stem: result for result in FolderCoder(tight).encode(jobs)}
    done = {name for name, result in results.items() if result.failure is None}
    assert "0" in done and "3" not in done
    assert results["3"].failure.startswith("out of memory")
    for result in results.values():
        assert result.job.target.exists() is (result.failure is None)


def test_what_a_device_reports_is_a_files_failure(codec, jobs, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setattr(codec._model.encoder, "forward", fail)
    results = list(FolderCoder(codec).encode(jobs))
    texts = {result.failure for result in results if result.failure is not None}
    assert texts == {"RuntimeError: CUDA error: an illegal memory access"}
    assert len(results) == len(jobs)

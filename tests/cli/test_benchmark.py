"""``simvq-audio benchmark``: what it measures adds up; no number is judged."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from simvq_audio.benchmark import coders, measure
from simvq_audio.benchmark.table import as_text
from simvq_audio.errors import ConfigError


class Counting:
    """A coder whose time is what it says, by a clock that it moves."""

    detail = "a fake"

    def __init__(self, name: str, cost: float, log: list[str], now: SimpleNamespace) -> None:
        self.name, self._cost, self._log, self._now = name, cost, log, now

    def encode(self, waveforms: torch.Tensor) -> torch.Tensor:
        self._log.append(self.name)
        self._now.time += self._cost
        return waveforms

    def decode(self, codes: torch.Tensor) -> None:
        self._now.time += 3 * self._cost


def test_coders_take_turns_and_speeds_are_ratios_to_real_time():
    log: list[str] = []
    now = SimpleNamespace(time=0.0)
    pair = [Counting("a", 0.5, log, now), Counting("b", 1.0, log, now)]
    case = measure.Case(2.0, 3)
    first, second = measure.measure_speed(pair, measure.audio(case), case, 4, lambda: now.time)
    assert log == ["a", "b"] * 5
    assert (first.encode, first.decode, first.both) == (12.0, 4.0, 3.0)
    assert (second.encode, second.decode, second.both) == (6.0, 2.0, 1.5)
    assert first.spread == second.spread == 1.0


def test_a_recording_is_repeated_and_cut():
    row = np.arange(1000, dtype=np.float32)
    made = measure.audio(measure.Case(0.1, 2), row)
    assert made.shape == (2, 2400) and made.dtype == torch.float32
    assert made[0].tolist() == [*row, *row, *row[:400]]
    assert torch.equal(made[0], made[1])


def test_streams_are_measured_on_the_push_api(codec):
    found = measure.measure_stream(codec, time.perf_counter)
    stated = found["encoder_latency_ms"] + found["decoder_latency_ms"]
    # In pushes of 80 ms; the frame that waits is part of what is stated.
    assert stated - 2 * 80 < found["first_output_ms"] < stated + 80
    assert found["times_real_time"] == pytest.approx(80 / found["push_ms"])


def test_what_is_printed_and_as_json(small, run, monkeypatch, tmp_path):
    monkeypatch.setattr(
        measure,
        "measure_memory",
        lambda name, model, device, case: {
            "coder": name,
            "seconds": case.seconds,
            "batch": case.batch,
            "loaded_mb": 1.0,
            "peak_mb": None,
        },
    )
    cold = {"import_torch": 2.0, "encode": 3.0, "ratio": 1.5}
    monkeypatch.setattr(measure, "measure_cold_start", lambda *arguments: cold)
    options = ["--seconds", "0.2,0.5", "--batch", "1,2", "--runs", "1"]
    picture = tmp_path / "speed.png"
    ended = run("benchmark", *options, "--json", "--plot", picture)
    assert (ended.code, ended.errors) == (0, "")
    result = json.loads(ended.text)
    cases = [(row["seconds"], row["batch"]) for row in result["speed"]]
    assert cases == [(0.2, 1), (0.2, 2), (0.5, 1), (0.5, 2)]
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = as_text(result)
    assert "out of memory" in text and "1.50 times" in text and "2 x 0.5 s" in text
    assert text.count("| simvq-audio | 0.5 |") == 2


def test_memory_is_that_of_a_process_of_its_own(model_file):
    found = measure.measure_memory("ours", str(model_file), "cpu", measure.Case(1.0, 1))
    assert 20 < found["loaded_mb"] <= found["peak_mb"] < 4000
    failed = measure.measure_memory("ours", "no-such-file", "cpu", measure.Case(1.0, 1))
    assert failed["peak_mb"] is None


def test_what_is_refused(run):
    run("benchmark", "--against", "opus").assert_refused("'opus' is no peer; there are encodec")
    run("benchmark", "--against", "dac,dac").assert_refused("named twice")
    run("benchmark", "--seconds", "one").assert_refused("--seconds: one is not numbers")
    run("benchmark", "--seconds", "601").assert_refused("at most 600")
    run("benchmark", "--batch", "0").assert_refused("above 0")


@pytest.mark.parametrize("name", ["mimi", "encodec"])
def test_peers_of_transformers_code(name):
    pytest.importorskip("transformers")
    coder = coders.make_coder(name, "cpu")
    decoded = coder.decode(coder.encode(measure.audio(measure.Case(0.5, 2))))
    assert decoded.audio_values.shape[0] == 2


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="is no peer"):
        coders.check_peers(["lyra"])

"""Measurements: speed in turn, memory and cold start in processes of their own, streams."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simvq_audio.benchmark.coders import SAMPLE_RATE, Coder, OurCoder
from simvq_audio.codec import Codec

_COLD_SECONDS = 5.0
_STREAM_SECONDS = 5.0
_PUSH_MS = 80


@dataclass(frozen=True)
class Case:
    """What is coded at once: ``batch`` recordings of ``seconds`` each."""

    seconds: float
    batch: int


@dataclass(frozen=True)
class Speed:
    """Seconds of audio coded in a second, medians over the rounds.

    Attributes:
        coder: its name.
        encode, decode, both: times real time.
        spread: largest over smallest time that both together took.
    """

    coder: str
    seconds: float
    batch: int
    encode: float
    decode: float
    both: float
    spread: float


def audio(case: Case, recording: np.ndarray | None = None) -> Tensor:
    """(batch, samples) at 24 kHz: a recording, repeated, or a voice-like tone in noise.

    Args:
        recording: (samples,) at 24 kHz.
    """
    samples = round(case.seconds * SAMPLE_RATE)
    if recording is None:
        at = np.arange(samples) / SAMPLE_RATE
        tone = sum(np.sin(2 * np.pi * 140 * k * at) / k for k in range(1, 20))
        recording = 0.05 * tone + 0.01 * np.random.default_rng(0).standard_normal(samples)
    row = np.resize(recording, samples).astype(np.float32)
    return torch.from_numpy(np.tile(row, (case.batch, 1)))


def measure_speed(
    coders: Sequence[Coder],
    waveforms: Tensor,
    case: Case,
    runs: int,
    clock: Callable[[], float],
) -> list[Speed]:
    """Encode and decode with each coder in turn, several rounds after one that is not counted."""
    times: dict[str, list[tuple[float, float]]] = {coder.name: [] for coder in coders}
    for _ in range(runs + 1):
        for coder in coders:
            _synchronize()
            start = clock()
            codes = coder.encode(waveforms)
            _synchronize()
            middle = clock()
            coder.decode(codes)
            _synchronize()
            times[coder.name].append((middle - start, clock() - middle))
    total = case.seconds * case.batch
    found = []
    for name, rounds in times.items():
        encode, decode = (statistics.median(part) for part in zip(*rounds[1:]))
        both = [sum(pair) for pair in rounds[1:]]
        found.append(
            Speed(
                name,
                case.seconds,
                case.batch,
                total / encode,
                total / decode,
                total / statistics.median(both),
                max(both) / min(both),
            )
        )
    return found


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure_stream(codec: Codec, clock: Callable[[], float]) -> dict[str, float]:
    """What a stream of 24 kHz mono waits for, and what pushes of 80 ms cost.

    Returns:
        ``encoder_latency_ms`` and ``decoder_latency_ms`` of audio, as the objects state them;
        ``first_output_ms``: audio pushed until the first samples came out of both;
        ``push_ms``: what a push takes to compute, through both, median;
        ``times_real_time``: of pushes as short as these.
    """
    encoder, decoder = codec.encoder(SAMPLE_RATE), codec.decoder()
    step = SAMPLE_RATE * _PUSH_MS // 1000
    waveform = audio(Case(_STREAM_SECONDS, 1))[0].numpy()
    first, took = 0.0, []
    for start in range(0, len(waveform), step):
        begin = clock()
        samples = decoder.push(encoder.push(waveform[start : start + step]))
        took.append(clock() - begin)
        if samples.shape[1] and not first:
            first = 1000 * min(start + step, len(waveform)) / SAMPLE_RATE
    push = 1000 * statistics.median(took[len(took) // 2 :])
    return {
        "encoder_latency_ms": encoder.latency_ms,
        "decoder_latency_ms": decoder.latency_ms,
        "first_output_ms": first,
        "push_ms": push,
        "times_real_time": _PUSH_MS / push,
    }


def measure_cold_start(model: str | None, runs: int, cpu_time: bool) -> dict[str, float]:
    """Start the program to encode 5 s, and Python to import torch, in turn; medians of seconds."""
    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        recording, out = Path(folder, "a.wav"), Path(folder, "a.codes")
        soundfile.write(recording, audio(Case(_COLD_SECONDS, 1))[0].numpy(), SAMPLE_RATE)
        program = [sys.executable, "-m", "simvq_audio", "encode", "--force", "--quiet"]
        program += [str(recording), str(out), *(() if model is None else ("--model", model))]
        commands = {"import_torch": [sys.executable, "-c", "import torch"], "encode": program}
        took: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs + 1):
            for name, command in commands.items():
                before = _children_seconds() if cpu_time else time.perf_counter()
                subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
                after = _children_seconds() if cpu_time else time.perf_counter()
                took[name].append(after - before)
    medians = {name: statistics.median(times[1:]) for name, times in took.items()}
    return {**medians, "ratio": medians["encode"] / medians["import_torch"]}


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_memory(name: str, model: str | None, device: str, case: Case) -> dict[str, Any]:
    """Memory of one coder, in a process of its own: loaded, and at its peak, in MB.

    On a GPU it is what torch has allocated there.
    """
    arguments = [name, model or "", device, str(case.seconds), str(case.batch)]
    ended = subprocess.run(
        [sys.executable, "-m", "simvq_audio.benchmark.measure", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    found = {"coder": name, **asdict(case)}
    if ended.returncode:
        return {**found, "loaded_mb": None, "peak_mb": None}
    return {**found, **json.loads(ended.stdout.splitlines()[-1])}


def _peak_mb() -> float:
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss begins with what the parent process had
        (line,) = (text for text in status.read_text().splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def _memory_child(name: str, model: str, device: str, seconds: str, batch: str) -> None:
    from simvq_audio.benchmark.coders import make_coder

    coder = make_coder(name, device, model or None)
    loaded = _peak_mb()
    coder.decode(coder.encode(audio(Case(float(seconds), int(batch)))))
    print(json.dumps({"loaded_mb": loaded, "peak_mb": _peak_mb()}))


def machine(device: str) -> dict[str, Any]:
    """What the numbers were measured on."""
    on_gpu = torch.device(device).type == "cuda" if device != "auto" else torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def stream_codec(coder: Coder) -> Codec | None:
    """The codec of a coder that streams."""
    return coder.codec if isinstance(coder, OurCoder) else None


if __name__ == "__main__":
    _memory_child(*sys.argv[1:])

"""``benchmark``: speed, memory, cold start and latency, beside other codecs."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from simvq_audio.cli.console import CommandError, print_json, print_message, progress
from simvq_audio.cli.options import DeviceOption, JsonOption, ModelOption, QuietOption

EXAMPLES = """
[bold]Examples[/bold]

simvq-audio benchmark

simvq-audio benchmark --against encodec,dac,mimi,snac,published --plot speed.png --json > speed.json
"""


def benchmark(
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="NAMES",
            help="Peers with commas: encodec, dac, mimi, snac, published. They have random "
            "weights, which cost the same.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = "cpu",
    seconds: Annotated[
        str, typer.Option("--seconds", help="Durations of a recording, with commas, up to 600.")
    ] = "1,10",
    batch: Annotated[
        str, typer.Option("--batch", help="Recordings coded at once, with commas.")
    ] = "1,8",
    runs: Annotated[
        int, typer.Option("--runs", min=1, help="Rounds, after one that is not counted.")
    ] = 5,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Of the CPU.", show_default=False)
    ] = None,
    cpu_time: Annotated[
        bool,
        typer.Option(
            "--cpu-time",
            help="Count the CPU's time, summed over threads, where other programs run too.",
        ),
    ] = False,
    recording: Annotated[
        Path | None,
        typer.Option(
            "--recording",
            help="What to code, repeated or cut. Default: a synthetic voice.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the speeds (.png).", show_default=False)
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how fast it codes here, beside other codecs.

    All codecs take turns on the same audio at 24 kHz in one run, so that what else the machine does
    hits all of them.
    """
    durations = _numbers(seconds, "--seconds", float, 600)
    batches = _numbers(batch, "--batch", int, 1024)
    peers = [name.strip() for name in against.split(",")] if against else []
    import torch

    from simvq_audio.benchmark import coders as kinds
    from simvq_audio.benchmark import measure
    from simvq_audio.benchmark.table import as_text
    from simvq_audio.benchmark.table import plot as draw

    kinds.check_peers(peers)
    if threads is not None:
        torch.set_num_threads(threads)
    own = kinds.make_coder("simvq-audio", device, model)
    coders = [own, *(kinds.make_coder(name, device) for name in peers)]
    samples = None if recording is None else _read(recording)
    clock = time.process_time if cpu_time else time.perf_counter
    cases = [measure.Case(length, count) for length in durations for count in batches]
    result: dict[str, Any] = {
        "machine": measure.machine(device),
        "clock": "CPU" if cpu_time else "wall",
        "coders": [{"name": coder.name, "detail": coder.detail} for coder in coders],
        "speed": [],
    }
    with progress("measuring", len(cases) + 1 + len(coders), quiet=quiet) as advance:
        for case in cases:
            waveforms = measure.audio(case, samples)
            speeds = measure.measure_speed(coders, waveforms, case, runs, clock)
            result["speed"] += [asdict(speed) for speed in speeds]
            advance(1)
        result["streams"] = {
            coder.name: measure.measure_stream(codec, clock)
            for coder in coders
            if (codec := measure.stream_codec(coder)) is not None
        }
        largest = max(cases, key=lambda case: case.seconds * case.batch)
        result["memory"] = []
        for coder in coders:
            own_model = model if coder is own else None
            result["memory"].append(measure.measure_memory(coder.name, own_model, device, largest))
            advance(1)
        result["cold_start"] = measure.measure_cold_start(model, min(runs, 3), cpu_time)
        advance(1)
    if plot is not None:
        draw(result, plot)
    if as_json:
        print_json(result)
    else:
        print_message(as_text(result))


def _numbers(text: str, option: str, kind: type, most: float) -> list[Any]:
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError:
        raise CommandError(f"{option}: {text} is not numbers with commas between") from None
    if not all(0 < number <= most for number in numbers):
        raise CommandError(f"{option}: numbers must be above 0 and at most {most:g}")
    return numbers


def _read(path: Path) -> Any:
    from simvq_audio.audio import read_audio, resample
    from simvq_audio.benchmark.coders import SAMPLE_RATE

    waveform, rate = read_audio(path)
    if not waveform.shape[1]:
        raise CommandError(f"{path}: holds no audio")
    return resample(waveform[:1], rate, SAMPLE_RATE)[0]

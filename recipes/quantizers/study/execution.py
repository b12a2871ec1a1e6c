"""One run from beginning to end, and the measurement of what a row costs."""

from __future__ import annotations

import dataclasses
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from study.bottleneck import Bottleneck, Unquantized
from study.logs import Cost, Point, RunLog, write_cost, write_log
from study.rows import Row, Run, find_row
from study.scoring import score_model
from study.session import Networks, Session, StepResult, open_speech
from study.setting import Setting
from study.snapshots import Snapshots
from study.usage import Window
from study.warm_up import load_warm_up, warm_up_path

# Steps after the first quantised one at which pictures are taken, besides the last.
_PICTURES = (0, 25, 100)
# Crops that no run trains on.
_PICTURE_STEP = 2_000_000
_BENCHMARK_STEPS = 7
_BENCHMARK_FIRST = 2


def execute(
    run: Run,
    setting: Setting,
    data: Path,
    recordings: Sequence[np.ndarray],
    runs: Path,
    device: torch.device,
) -> RunLog:
    """Train and score a run, and write its log. Pictures are kept for seed 0.

    Raises:
        ConfigError: the shared steps are missing (see ``make_warm_up``).
        RuntimeError: the loss is not finite.
    """
    began = time.monotonic()
    row = find_row(run.row)
    steps = setting.steps * row.length
    torch.manual_seed(1000 + run.seed)
    bottleneck = row.make(run.codebook_size, setting.latent_dim).to(device).train()
    networks, first, curve = _beginning(row, run, setting, runs, bottleneck, device)
    source = open_speech(data, setting, run.seed)
    session = Session(setting, networks, source, device, steps)
    session.set_bottleneck(bottleneck)
    snapshots = None
    if run.seed == 0 and not isinstance(bottleneck, Unquantized):
        snapshots = Snapshots(run.seed)
    clock = _clock(device)
    seconds: list[float] = []
    window = Window(run.codebook_size, setting.window)
    recent: list[StepResult] = []
    for step in range(first, steps):
        if snapshots is not None and step - first in _PICTURES:
            snapshots.take(step, session.latents(_PICTURE_STEP), bottleneck)
        before = clock()
        result = session.step(step)
        seconds.append(clock() - before)
        recent.append(result)
        assert result.indices is not None
        window.add(result.indices)
        if (step + 1) % (setting.log_every * row.length) == 0 or step + 1 == steps:
            curve.append(_point(step + 1, recent, window))
            recent.clear()
    if snapshots is not None:
        snapshots.take(steps, session.latents(_PICTURE_STEP), bottleneck)
    peak = peak_mib(device)
    scores = score_model(networks, bottleneck, recordings, setting, device)
    log = RunLog(
        run=run,
        setting=setting.to_dict(),
        curve=curve,
        scores=dataclasses.asdict(scores),
        step_seconds=median(seconds),
        wall_seconds=time.monotonic() - began,
        peak_mib=peak,
        machine=machine(device),
    )
    write_log(runs, log, None if snapshots is None else snapshots.projected())
    return log


def measure(
    row: Row, codebook_size: int, setting: Setting, data: Path, device: torch.device
) -> Cost:
    """Time some steps of a row from its own initialisation, and the quantiser alone."""
    torch.manual_seed(0)
    networks = Networks.make(setting, 0, device)
    session = Session(setting, networks, open_speech(data, setting, 0), device, setting.steps)
    bottleneck = row.make(codebook_size, setting.latent_dim).to(device).train()
    session.set_bottleneck(bottleneck)
    clock = _clock(device)
    whole = _median(clock, lambda number: session.step(number))
    latent = torch.randn(
        setting.batch_size,
        setting.latent_dim,
        setting.frames_per_step // setting.batch_size,
        device=device,
    ).requires_grad_()

    def quantize(number: int) -> None:
        quantized = bottleneck(latent)
        (quantized.latent.sum() + quantized.loss).backward()

    part = _median(clock, quantize)
    return Cost(row.name, codebook_size, whole, part, peak_mib(device), machine(device))


def write_measurement(
    row: Row, codebook_size: int, setting: Setting, data: Path, runs: Path, device: torch.device
) -> Cost:
    """``measure``, and write it down."""
    cost = measure(row, codebook_size, setting, data, device)
    write_cost(runs, cost)
    return cost


def peak_mib(device: torch.device) -> float:
    """Most memory so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts KiB, macOS bytes.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def machine(device: torch.device) -> dict[str, str]:
    """What a run was made on."""
    try:
        package = version("vector-quantize-pytorch")
    except PackageNotFoundError:
        package = ""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "name": name,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "vector-quantize-pytorch": package,
    }


def _beginning(
    row: Row,
    run: Run,
    setting: Setting,
    runs: Path,
    bottleneck: Bottleneck,
    device: torch.device,
) -> tuple[Networks, int, list[Point]]:
    """Networks, the first quantised step, and the curve until there."""
    if row.cold:
        return Networks.make(setting, run.seed, device), 0, []
    shared = load_warm_up(warm_up_path(runs, run.seed), setting, run.seed, device)
    generator = torch.Generator().manual_seed(run.seed)
    bottleneck.start(shared.latents, generator, setting.frames_per_step)
    shared.networks.encoder.train()
    shared.networks.decoder.train()
    curve = [Point(step, mel) for step, mel in shared.curve]
    return shared.networks, setting.unquantized_steps, curve


def _point(step: int, recent: list[StepResult], window: Window) -> Point:
    use = window.usage()
    errors = [result.error for result in recent if result.error is not None]
    return Point(
        step,
        _mean([result.mel for result in recent]),
        _mean(errors),
        use.utilisation,
        use.perplexity,
    )


def _mean(values: list[Tensor]) -> float:
    return torch.stack(values).mean().item()


def _median(clock: Callable[[], float], work: Callable[[int], object]) -> float:
    seconds = []
    for number in range(_BENCHMARK_FIRST + _BENCHMARK_STEPS):
        before = clock()
        work(number)
        seconds.append(clock() - before)
    return median(seconds[_BENCHMARK_FIRST:])


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds: of the processor on a CPU, where others may be at work; of the wall on a GPU."""
    if device.type != "cuda":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.monotonic()

    return clock


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()

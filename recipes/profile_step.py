"""Time and operations of the parts of a training step.

    python recipes/profile_step.py CONFIG [--device cuda] [--batch-size N] [--steps N]

Times each part of a step on noise, with every loss in use, with PyTorch's profiler. Counts
operations (matrix products, convolutions, attention; neither FFTs nor, on a GPU, LSTMs) of this
step and of a step of the published code, in which the discriminators run twice over originals and
reconstructions, and the generator's loss goes back through all of them, also through their weights,
and in Vocos' families through the originals' features.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.fabric import make_fabric
from simvq_audio.training.losses import discriminator_loss, generator_losses
from simvq_audio.training.script import positive, run_script
from simvq_audio.training.step import Plan, TrainingStep

_PARTS = ("forward", "losses", "discriminators", "backward", "optimizer")
_EVERYTHING = Plan(quantize=True, discriminate=True, heard=True, hold=False)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("profile_step.py", description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--batch-size", type=positive, help="instead of the configuration's")
    parser.add_argument("--steps", type=positive, default=10, help="steps that are timed")
    return run_script(parser, profile, arguments)


def profile(args: argparse.Namespace) -> None:
    config = TrainingConfig.load(args.config)
    size = args.batch_size or config.data.batch_size
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=size))
    fabric = make_fabric(args.device, config.precision)
    step = TrainingStep(config, fabric)
    waveforms = 0.1 * torch.randn(size, config.crop_samples, device=fabric.device)
    bandwidths = torch.full((size,), config.model.sample_rate / 2, device=fabric.device)
    batch = waveforms, bandwidths
    print(
        f"{args.config}, {fabric.device}, {config.precision}: "
        f"{size} crops of {config.data.crop_seconds:g} s"
    )
    for number in range(3):  # the first steps choose kernels and allocate memory
        step(batch, number, _EVERYTHING, 1.0)
    for part, seconds in _time_parts(step, batch, args.steps).items():
        print(f"{part:16} {1000 * seconds:9.1f} ms")
    speed = _steps_per_second(step, batch, args.steps)
    print(f"{speed:.2f} steps/s, {speed * size * config.data.crop_seconds:.1f} audio seconds/s")
    if fabric.device.type == "cuda":
        print(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of memory at most")
    ours = _operations(lambda: step(batch, 0, _EVERYTHING, 1.0))
    theirs = _operations(lambda: _as_published(step, waveforms))
    print(f"{ours / 1e12:.3f} Tflop per step, {ours * speed / 1e12:.2f} Tflop/s")
    print(f"{theirs / 1e12:.3f} Tflop in the published code: {theirs / ours:.2f} times")


def _time_parts(step: TrainingStep, batch: tuple[Tensor, Tensor], steps: int) -> dict[str, float]:
    """Mean seconds of each part that ``TrainingStep`` marks."""
    on_gpu = batch[0].device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        for number in range(steps):
            step(batch, number, _EVERYTHING, 1.0)
        _wait()
    totals = {event.key: event for event in profiler.key_averages()}
    return {
        part: (totals[part].device_time_total if on_gpu else totals[part].cpu_time_total)
        / (1e6 * steps)
        for part in _PARTS
    }


def _steps_per_second(step: TrainingStep, batch: tuple[Tensor, Tensor], steps: int) -> float:
    _wait()
    begin = time.perf_counter()
    for number in range(steps):
        step(batch, number, _EVERYTHING, 1.0)
    _wait()
    return steps / (time.perf_counter() - begin)


class _OperationCounter(TorchDispatchMode):
    """Counts floating-point operations; a product and a sum are one each.

    ``torch.utils.flop_counter.FlopCounterMode`` has hooks on modules that fail with
    ``torch.autograd.grad``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        count = flop_registry.get(function.overloadpacket)
        if count is not None:
            self.total += count(*args, **kwargs, out_val=result)
        return result


def _operations(work: Callable[[], object]) -> int:
    with _OperationCounter() as counter:
        work()
    return counter.total


def _as_published(step: TrainingStep, original: Tensor) -> None:
    """The two updates of the published code (VQModel.training_step in youngsheen/SimVQ)."""
    config, judges = step.config, step.discriminators
    reconstruction, _, quantized = step.model(original)
    loss = step.spectral.total(step.spectral(reconstruction, original))
    loss = loss + sum(quantized.losses.values())
    real, fake = judges(original), judges(reconstruction)
    loss = loss + sum(generator_losses(config.discriminators, real, fake).values())
    for family, ours, theirs in zip(config.discriminators.families, real, fake):
        # Vocos' feature matching does not detach the originals' features; DAC's does.
        if family.gan == "hinge":
            pairs = zip(chain(*ours.features), chain(*theirs.features))
            loss = loss + sum((a - b).abs().mean() for a, b in pairs)
    loss.backward()
    real, fake = judges(original), judges(reconstruction.detach())
    discriminator_loss(config.discriminators, real, fake).backward()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())

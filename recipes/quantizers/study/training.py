"""One run: the package's trainer on speech of one bandwidth, then scores; and the cost of a row."""

from __future__ import annotations

import dataclasses
import json
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from simvq_audio.evaluation.metrics.perceptual import Estoi, PesqWb, Stoi
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.storage import load_model
from simvq_audio.model.usage import quantization_error
from simvq_audio.training.checkpoint import CARRY
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.fabric import make_fabric
from simvq_audio.training.losses import limit_bandwidth
from simvq_audio.training.recipes import merged, read_recipe
from simvq_audio.training.sampling import CropSource
from simvq_audio.training.source import open_source
from simvq_audio.training.step import Plan, TrainingStep
from simvq_audio.training.trainer import MODEL, Trainer
from simvq_audio.training.validation import ValidationSet
from simvq_audio.training.watch import Watch
from study.results import Cost, Point, RunLog, run_folder, write_cost, write_log
from study.rows import Row, Run, find_row
from study.spectrum import Spectrum
from study.use import Use, count_codes

SETTING = Path(__file__).parents[1] / "study.toml"
# Audio is low-passed there. Recordings at 16 and 24 kHz differ most above 8 kHz, and a codebook
# that distinguishes them is half unused on speech of one kind.
BANDWIDTH_HZ = 8000.0
# First of the batches that no run trains on: the spectrum's, then those that codes are counted on.
_UNSEEN_STEP = 2_000_000
_SPECTRUM_BATCHES = 4
_ALL = 1_000_000
_BENCHMARK_STEPS = 7
_BENCHMARK_FIRST = 2


def configure(run: Run, setting: Path = SETTING) -> TrainingConfig:
    """The trainer's configuration of a run.

    Raises:
        ConfigError: there is no such row, or a setting is invalid.
    """
    row = find_row(run.row)
    values = read_recipe(setting)
    steps = values["steps"] * row.length
    own = row.settings(run.codebook_size, values["model"]["quantizer"]["latent_dim"])
    if row.group == "reference":
        own["quantizer_start"] = {"unquantized_steps": steps}
    values = merged(values, own)
    values["model"]["quantizer"] = own["model"]["quantizer"]
    values = merged(values, {"seed": run.seed, "steps": steps})
    values["log_every"] *= row.length
    return TrainingConfig.from_dict(values, str(setting))


class Narrow:
    """A ``CropSource`` whose audio ends at ``BANDWIDTH_HZ``."""

    def __init__(self, source: CropSource, sample_rate: int) -> None:
        self._source = source
        self._sample_rate = sample_rate

    def batch(
        self, step: int, size: int, rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        """See ``CropSource.batch``."""
        waveforms, bandwidths = self._source.batch(step, size, rank, world_size)
        return narrow(waveforms, self._sample_rate), bandwidths.clamp(max=BANDWIDTH_HZ)


class NarrowModel(nn.Module):
    """A model whose output is low-passed at ``BANDWIDTH_HZ``, as in training.

    Args:
        quantized: whether codes are made; otherwise all are 0 and the latent is decoded.
    """

    def __init__(self, model: Autoencoder, quantized: bool) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self._quantized = quantized
        self._latent: Tensor | None = None

    def encode(self, waveform: Tensor) -> Tensor:
        """See ``Autoencoder.encode``."""
        if self._quantized:
            return self.model.encode(waveform)
        self._latent = self.model.encode_latent(waveform)
        return torch.zeros(self._latent[:, 0].shape, dtype=torch.long)

    def decode(self, indices: Tensor) -> Tensor:
        """See ``Autoencoder.decode``."""
        if self._quantized:
            decoded = self.model.decode(indices)
        else:
            decoded = self.model.decode_latent(self._latent)
        return narrow(decoded, self.config.sample_rate)


def narrow(waveforms: Tensor, sample_rate: int) -> Tensor:
    """(batch, samples) low-passed at ``BANDWIDTH_HZ``."""
    if sample_rate <= 2 * BANDWIDTH_HZ:
        return waveforms
    bandwidths = waveforms.new_full((len(waveforms),), BANDWIDTH_HZ)
    return limit_bandwidth(waveforms, bandwidths, sample_rate)


def read_recordings(folders: Sequence[Path], config: TrainingConfig) -> ValidationSet:
    """Every recording below the folders, cut in time and in frequency.

    Raises:
        ConfigError: a folder holds none of at least a second.
        AudioError: one cannot be read.
    """
    everything = dataclasses.replace(config.validation, recordings=_ALL)
    rate = config.model.sample_rate
    # PESQ-wb says nothing of telephone bandwidth.
    metrics = (PesqWb, Stoi, Estoi) if rate >= 2 * BANDWIDTH_HZ else (Stoi,)
    sets = [ValidationSet(folder, everything, rate, metrics) for folder in folders]
    whole = sets[0]
    whole.recordings = [
        (name, narrow(torch.from_numpy(samples)[None], rate)[0].numpy())
        for part in sets
        for name, samples in part.recordings
    ]
    return whole


def train_and_score(
    run: Run, data: Path, recordings: ValidationSet, runs: Path, setting: Path, device: str
) -> RunLog:
    """Train and score a run, and write its log.

    Raises:
        SimvqAudioError: the data cannot be used, or gradients were not finite.
    """
    began = time.monotonic()
    config = configure(run, setting)
    folder = run_folder(runs, run)
    trainer = _trainer(config, data, folder, device)
    quantized = find_row(run.row).group != "reference"
    unseen = _unseen_speech(trainer, config)
    spectra: dict[int, Spectrum] = {}

    def look() -> bool:
        """Take the spectrum when a line of the log was written; never stop."""
        if quantized and trainer.step and trainer.step % config.log_every == 0:
            model = trainer.networks.model
            with torch.no_grad():
                latent = model.encode_latent(unseen)
            spectra[trainer.step] = Spectrum.of(latent, model.quantizer)
        return False

    trainer.run(look)
    look()
    peak = peak_mib(device)
    model = trainer.networks.average
    scores, use, error = _scored(model, quantized, recordings, config)
    curve = _curve(folder, spectra)
    log = RunLog(
        run=run,
        curve=curve,
        scores={**scores, "error": error},
        use=use,
        step_seconds=median(1 / point.steps_per_second for point in curve),
        wall_seconds=time.monotonic() - began,
        peak_mib=peak,
        machine=machine(device),
    )
    _keep_only_the_model(folder)
    write_log(runs, log)
    return log


def count_unseen(run: Run, data: Path, runs: Path, setting: Path, frames: int, device: str) -> Use:
    """Use of the codebook of a finished run on crops of the training speakers.

    The crops are drawn like those of training, at steps that no run has; a small part of their
    audio was trained on.

    Raises:
        ModelError: the run's model was not kept.
    """
    config = configure(run, setting)
    model, _ = load_model(run_folder(runs, run) / MODEL, torch.device(device))
    rate, batch = config.model.sample_rate, 4 * config.data.batch_size
    source = Narrow(open_source(data, config, torch.device(device)), rate)
    counts, counted, step = None, 0, _UNSEEN_STEP + _SPECTRUM_BATCHES
    with torch.no_grad():
        while counted < frames:
            waveforms, _ = source.batch(step, batch)
            latent = model.encode_latent(waveforms.to(device))
            indices = model.quantizer.encode(latent)
            counts = count_codes(indices, model.config.quantizer.codebook_sizes, counts)
            counted += latent.shape[0] * latent.shape[2]
            step += 1
    return Use.of(counts)


def measure(
    row: Row, codebook_size: int, data: Path, runs: Path, setting: Path, device: str
) -> Cost:
    """Time some steps of a row from its initialisation, and the quantiser."""
    config = configure(Run(row.name, codebook_size, 0), setting)
    fabric = make_fabric(device, config.precision)
    step = TrainingStep(config, fabric)
    source = Narrow(open_source(data, config, fabric.device), config.model.sample_rate)
    plan = Plan(row.group != "reference", discriminate=False, heard=False, hold=False)
    clock = _clock(fabric.device)

    def whole(number: int) -> None:
        batch = source.batch(number, config.data.batch_size)
        step(tuple(part.to(fabric.device) for part in batch), number, plan, 1.0)

    latent = step.model.encode_latent(source.batch(0, config.data.batch_size)[0].to(fabric.device))
    latent = latent.detach().requires_grad_()

    def quantize(number: int) -> None:
        quantized = step.model.quantizer(latent)
        (quantized.latent.sum() + sum(quantized.losses.values())).backward()

    cost = Cost(
        row.name,
        codebook_size,
        _median(clock, whole),
        _median(clock, quantize),
        peak_mib(device),
        machine(device),
    )
    write_cost(runs, cost)
    return cost


def _trainer(config: TrainingConfig, data: Path, folder: Path, device: str) -> Trainer:
    fabric = make_fabric(device, config.precision)
    source = Narrow(open_source(data, config, fabric.device), config.model.sample_rate)
    watch = Watch(folder, config.steps, console=Console(quiet=True))
    return Trainer(config, fabric, source, folder, watch=watch)


def _unseen_speech(trainer: Trainer, config: TrainingConfig) -> Tensor:
    """Crops (n, samples) for the spectrum."""
    steps = range(_UNSEEN_STEP, _UNSEEN_STEP + _SPECTRUM_BATCHES)
    size = config.data.batch_size
    crops = torch.cat([trainer.source.batch(step, size)[0] for step in steps])
    return crops.to(next(trainer.networks.model.parameters()).device)


def _keep_only_the_model(folder: Path) -> None:
    """Remove what only a resumed training needs; runs are short and start again."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    (folder / CARRY).unlink(missing_ok=True)


def _scored(
    model: Autoencoder, quantized: bool, recordings: ValidationSet, config: TrainingConfig
) -> tuple[dict[str, float], Use, float]:
    """Scores of some recordings, evenly spaced; use and quantisation error over all."""
    everything = recordings.recordings
    count = min(config.validation.recordings, len(everything))
    recordings.recordings = [everything[i * len(everything) // count] for i in range(count)]
    narrowed = NarrowModel(model, quantized)
    try:
        validation = recordings.validate(narrowed, examples=0).scores
    finally:
        recordings.recordings = everything
    device = next(model.parameters()).device
    counts, errors = None, []
    for _, samples in everything if quantized else []:
        latent = model.encode_latent(torch.from_numpy(samples)[None].to(device))
        indices = model.quantizer.encode(latent)
        counts = count_codes(indices, model.config.quantizer.codebook_sizes, counts)
        errors.append(quantization_error(latent, model.quantizer.decode(indices)).item())
    names = ("mel", "pesq_wb", "stoi", "estoi", "pesq_wb_failed")
    scores = {name: validation[name] for name in names if name in validation}
    scores["recordings"] = count
    if counts is None:
        return scores, Use.none(), 0.0
    return scores, Use.of(counts), float(np.mean(errors))


def _curve(folder: Path, spectra: dict[int, Spectrum]) -> list[Point]:
    """The trainer's log, and the spectra by step."""
    points = []
    nothing = (None,) * len(dataclasses.fields(Spectrum))
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        points.append(
            Point(
                row["step"],
                row["mel"],
                row.get("quantization_error"),
                row.get("utilisation"),
                row.get("perplexity"),
                row["steps_per_second"],
                *(dataclasses.astuple(spectra[row["step"]]) if row["step"] in spectra else nothing),
            )
        )
    return points


def peak_mib(device: str) -> float:
    """Most memory so far: of the GPU, or of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts KiB, macOS bytes.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def machine(device: str) -> dict[str, str]:
    """The machine and the versions of a run."""
    found = {
        "device": device,
        "name": torch.cuda.get_device_name() if device == "cuda" else platform.processor(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }
    for package in ("simvq-audio", "vector-quantize-pytorch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def _median(clock: Callable[[], float], work: Callable[[int], object]) -> float:
    seconds = []
    for number in range(_BENCHMARK_FIRST + _BENCHMARK_STEPS):
        before = clock()
        work(number)
        seconds.append(clock() - before)
    return median(seconds[_BENCHMARK_FIRST:])


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds: process time on a CPU, where other work may run; wall time on a GPU."""
    if device.type != "cuda":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.monotonic()

    return clock

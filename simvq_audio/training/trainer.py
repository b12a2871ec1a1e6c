"""The training loop: steps, logging, checkpoints, validation, and resuming."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import ConfigError, ModelError, SimvqAudioError
from simvq_audio.model.autoencoder import PARTS
from simvq_audio.model.config import ModelConfig, without_training_settings
from simvq_audio.model.storage import load_model, save_model
from simvq_audio.training.checkpoint import (
    CARRY,
    checkpoint_path,
    find_checkpoint,
    halved,
    keep_as_best,
    load_checkpoint,
    remove_old,
    save_checkpoint,
)
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.log_window import LogWindow
from simvq_audio.training.read_ahead import Prefetched
from simvq_audio.training.sampling import CropSource
from simvq_audio.training.source import PinnedSource
from simvq_audio.training.step import Plan, TrainingStep, learning_rate_factor
from simvq_audio.training.validation import ValidationSet
from simvq_audio.training.watch import Watch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MODEL = "model.safetensors"
BEST_MODEL = "best.safetensors"
# A step number that no run reaches, for the batches of the latents' statistics.
_STATISTICS_STEP = 2**40
# Steps between agreements of several processes on whether to stop, which wait for the device.
_STOP_EVERY = 10


class TrainingDiverged(SimvqAudioError):
    """Gradients were not finite for many steps."""


class Trainer:
    """Trains an ``Autoencoder``; everything that a resumed run needs is in its checkpoint.

    Randomness depends only on (seed, step, rank), so no state of samplers or generators is kept: a
    stopped run continues from its last checkpoint and, on the CPU, ends with the same weights as
    one that was not stopped.

    Args:
        config: the run's configuration.
        fabric: device, precision and processes; see ``make_fabric``.
        source: where batches come from.
        out: run folder: ``checkpoints/``, ``carry.pt``, ``model.safetensors`` (averaged weights,
            always a valid model), ``best.safetensors``, ``metrics.jsonl`` and ``config.json``.
            Only the first process reads and writes it.
        validation: scored at intervals, if given.
        watch: follows progress in the first process, if given.

    Attributes:
        step: number of steps done.
        networks: what is trained; see ``TrainingStep``.
        quantizer_started: whether the quantiser was started from latents; ``run`` does so before
            its first step.
    """

    def __init__(
        self,
        config: TrainingConfig,
        fabric: Fabric,
        source: CropSource,
        out: Path,
        *,
        validation: ValidationSet | None = None,
        watch: Watch | None = None,
    ) -> None:
        if config.data.batch_size % fabric.world_size:
            raise ConfigError(
                f"data.batch_size ({config.data.batch_size}) must be a multiple of the number of "
                f"processes, {fabric.world_size}"
            )
        self.config = config
        self.out = out
        self.networks = TrainingStep(config, fabric)
        self.step = 0
        self._fabric = fabric
        self.source = source
        self._validation = validation
        self._watch = watch if fabric.is_global_zero else None
        # A frozen quantiser is not changed.
        self.quantizer_started = (
            config.quantizer_start.unquantized_steps == 0 or "quantizer" in config.freeze
        )
        self._fresh_since = 0
        self._best: float | None = None

    # -- starting and stopping -----------------------------------------------------------------

    def start_from_model(self, path: Path) -> list[str]:
        """Take the weights of a model file; optimisers and discriminators start from scratch.

        A decoder with another configuration takes the layers of the same name and shape. The
        look-ahead of a part does not matter here.

        Returns:
            the parts, quantiser or decoder, that start at least partly from scratch, because this
            run configures them differently.

        Raises:
            ModelError: the file cannot be read.
            ConfigError: it has another sample rate or another encoder, or a frozen part has another
                form.
        """
        model, header = load_model(path, self._fabric.device)
        ours, theirs = self.config.model.to_dict(), header.config.to_dict()
        for name in ("sample_rate", *self.config.freeze):
            _require_same(f"model.{name}", ours[name], theirs[name], path)
        for part in PARTS:
            ours[part].pop("look_ahead_frames", None)
            theirs[part].pop("look_ahead_frames", None)
        _require_same("model.encoder", ours["encoder"], theirs["encoder"], path)
        taken = [part for part in PARTS if ours[part] == theirs[part]]
        for part in taken:
            weights = getattr(model, part).state_dict()
            getattr(self.networks.model, part).load_state_dict(weights)
        if "decoder" not in taken:
            decoder = self.networks.model.decoder
            own, given = decoder.state_dict(), model.decoder.state_dict()
            fitting = {n: v for n, v in given.items() if n in own and own[n].shape == v.shape}
            decoder.load_state_dict({**own, **fitting})
        self.networks.restart_average()
        self.quantizer_started |= "quantizer" in taken
        return [part for part in PARTS if part not in taken]

    def resume(self) -> Path:
        """Continue from the newest checkpoint in ``out``, or from ``carry.pt`` if there is none.

        Returns:
            the file.

        Raises:
            ModelError: there is neither, or it is damaged.
            ConfigError: it is of a run with other networks.
        """
        path, state = None, None
        if self._fabric.is_global_zero:
            path = find_checkpoint(self.out)
            if path is None:
                raise ModelError(f"{self.out} holds no checkpoint to resume from")
            state = load_checkpoint(path)
        path, state = self._fabric.broadcast((path, state))
        ours, theirs = self.config.to_dict(), {"freeze": [], **state["config"]}
        # Runs of version 0.1.0 can be resumed.
        stored = without_training_settings(theirs["model"])
        theirs["model"] = ModelConfig.from_dict(stored).to_dict()
        for part in ("model", "discriminators", "freeze"):
            _require_same(part, ours[part], theirs[part], path)
        self.networks.load_weights(state)
        self.step = state["step"]
        self.quantizer_started = state["quantizer_started"]
        self._best = state["best"]
        if "moments" in state:
            self.networks.load_moments(state["moments"])
            self._fresh_since = state["fresh_since"]
        else:
            self._fresh_since = self.step
        return path

    def save(self) -> None:
        """Write checkpoint, ``carry.pt`` and model, each whole or not at all.

        Raises:
            OSError: a file cannot be written.
        """
        if not self._fabric.is_global_zero:
            return
        weights = self.networks.weights()
        progress = {
            "config": self.config.to_dict(),
            "step": self.step,
            "quantizer_started": self.quantizer_started,
            "best": self._best,
        }
        moments = {"moments": self.networks.moments(), "fresh_since": self._fresh_since}
        save_checkpoint(checkpoint_path(self.out, self.step), {**progress, **weights, **moments})
        save_checkpoint(self.out / CARRY, {**progress, **halved(weights)})
        self._save_model()
        remove_old(self.out, self.config.keep_checkpoints)

    def _save_model(self) -> None:
        save_model(
            self.out / MODEL,
            self.config.model,
            self.networks.average.state_dict(),
            {"training": f"{self.step} steps"},
        )

    # -- the loop ------------------------------------------------------------------------------

    def run(
        self, should_stop: Callable[[], bool] = lambda: False, max_steps: int | None = None
    ) -> None:
        """Train until the run's last step, for ``max_steps`` steps, or until ``should_stop()``.

        Raises:
            TrainingDiverged: many steps in a row had no finite gradients.
            OSError: the run folder cannot be written to.
        """
        config, fabric = self.config, self._fabric
        last = config.steps if max_steps is None else min(config.steps, self.step + max_steps)
        if fabric.is_global_zero:
            self.out.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.out / "config.json") as temporary:
                temporary.write_text(json.dumps(config.to_dict(), indent=1))
        if self._watch:
            self._watch.start(self.step)
        batches = self._batches()
        size = config.data.batch_size // fabric.world_size
        window = LogWindow(config, fabric)
        saved = -1
        try:
            if self.step == 0:
                self.save()
            while self.step < last and not self._stop(should_stop):
                if not self.quantizer_started and self._plan().quantize:
                    self.start_quantizer()
                batch = batches.batch(self.step, size, fabric.global_rank, fabric.world_size)
                outcome = self.networks(
                    (
                        batch[0].to(fabric.device, non_blocking=True),
                        batch[1].to(fabric.device, non_blocking=True),
                    ),
                    self.step,
                    self._plan(),
                    self._learning_rate_factor(),
                )
                window.add(outcome.losses, outcome.indices)
                self.step += 1
                if self._watch:
                    self._watch.step(self.step)
                if self.step % config.log_every == 0:
                    self._log(window)
                if self._validation and self.step % config.validation.every == 0:
                    self._validate()
                    saved = self.step
                    window.restart_clock()
                elif self.step % config.checkpoint_every == 0:
                    self.save()
                    saved = self.step
            if saved != self.step:
                self.save()
        finally:
            if isinstance(batches, Prefetched):
                batches.close()
            if self._watch:
                self._watch.close()

    def _batches(self) -> CropSource:
        """The source, with threads unless its audio is on the device."""
        data = self.config.data
        if not data.workers or data.hold_on_device:
            return self.source
        cuda = self._fabric.device.type == "cuda"
        source = PinnedSource(self.source) if cuda else self.source
        return Prefetched(source, threads=data.workers, ahead=2 * data.workers)

    def _plan(self) -> Plan:
        """What the next step does."""
        adversary = self.config.adversary
        discriminate = self.step >= adversary.start_step
        heard = self.step >= adversary.start_step + adversary.warmup_steps
        return Plan(
            quantize=self.quantizer_started
            or self.step >= self.config.quantizer_start.unquantized_steps,
            discriminate=discriminate,
            heard=heard,
            hold=adversary.hold_generator and discriminate and not heard,
        )

    def _learning_rate_factor(self) -> float:
        config = self.config
        return learning_rate_factor(
            config.optimizer, self.step, config.steps, fresh_since=self._fresh_since
        )

    def _stop(self, should_stop: Callable[[], bool]) -> bool:
        """Whether any process wants to stop; all of them get the same answer."""
        stop = should_stop()
        if self._fabric.world_size == 1:
            return stop
        if self.step % _STOP_EVERY:
            return False
        votes = torch.tensor(float(stop), device=self._fabric.device)
        return bool(self._fabric.all_reduce(votes, reduce_op="sum") > 0)

    def _log(self, window: LogWindow) -> None:
        row = {"step": self.step, **window.close()}
        row["learning_rate"] = self.config.optimizer.learning_rate * self._learning_rate_factor()
        skipped = self.networks.skipped
        row["skipped"] = int(skipped.total)
        if self._watch:
            self._watch.log(row)
        if skipped.in_a_row >= self.config.max_skipped:
            raise TrainingDiverged(
                f"no finite gradients in the last {int(skipped.in_a_row)} steps, up to step "
                f"{self.step}; lower the learning rate and continue with --resume, from an earlier "
                f"checkpoint if necessary (remove later ones from {self.out / 'checkpoints'})"
            )

    def _validate(self) -> None:
        """Score the averaged weights, save, and keep the best."""
        if self._fabric.is_global_zero and self._validation is not None:
            result = self._validation.validate(self.networks.average)
            best_by = self.config.validation.best_by
            better = result.better_than(self._best, best_by)
            if better:
                self._best = result.scores[best_by]
            self.save()
            if better:
                keep_as_best(checkpoint_path(self.out, self.step))
                with atomic_path(self.out / BEST_MODEL) as temporary:
                    shutil.copyfile(self.out / MODEL, temporary)
            if self._watch:
                self._watch.validation(
                    {"step": self.step, **result.scores},
                    result.examples,
                    self.config.model.sample_rate,
                )
        self._fabric.barrier()

    @torch.no_grad()
    def start_quantizer(self) -> None:
        """Start the quantiser from the latents of some batches; the same on every process."""
        config, networks = self.config, self.networks
        latents = []
        for index in range(config.quantizer_start.statistics_batches):
            batch, _ = self.source.batch(_STATISTICS_STEP + index, config.data.batch_size)
            with self._fabric.autocast():
                latent = networks.model.encode_latent(batch.to(self._fabric.device))
            latents.append(latent.transpose(1, 2).flatten(0, 1))
        quantizer = networks.model.quantizer
        quantizer.start(
            torch.cat(latents),
            torch.Generator().manual_seed(config.seed),
            entries_from_latents=config.quantizer_start.entries_from_latents,
            kmeans_rounds=config.quantizer_start.kmeans_rounds,
        )
        # Devices may round differently, but weights must be equal.
        state = {name: value.cpu() for name, value in quantizer.state_dict().items()}
        state = self._fabric.broadcast(state)
        quantizer.load_state_dict(state)
        networks.average.quantizer.load_state_dict(state)
        self.quantizer_started = True


def _require_same(part: str, ours: Any, theirs: Any, path: Path) -> None:
    """Raise ConfigError that names the first setting in which two tables differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted({*ours, *theirs}):
            _require_same(f"{part}.{name}", ours.get(name), theirs.get(name), path)
    elif json.dumps(ours) != json.dumps(theirs):
        raise ConfigError(f"{path} was made with {part} = {theirs!r}, this run has {ours!r}")

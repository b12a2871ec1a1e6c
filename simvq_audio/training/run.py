"""``simvq-audio train``: a run from its recipe to its model."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed

from simvq_audio.codec.model_source import locate_model
from simvq_audio.errors import ConfigError, ModelError
from simvq_audio.model.config import without_training_settings
from simvq_audio.model.storage import read_header
from simvq_audio.training.checkpoint import find_checkpoint, load_checkpoint
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.fabric import make_fabric
from simvq_audio.training.recipes import merged, read_recipe
from simvq_audio.training.source import open_source
from simvq_audio.training.trainer import MODEL, Trainer
from simvq_audio.training.validation import ValidationSet
from simvq_audio.training.watch import Watch


def train(
    recipe: Path,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    init: str | None = None,
    dev: Path | None = None,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    device: str = "auto",
    tensorboard: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Train until the recipe's last step, or resumably until a limit, SIGTERM or Ctrl-C.

    Args:
        recipe: TOML file; see ``TrainingConfig`` and ``read_recipe``.
        data: packed folder or manifest.
        out: run folder; see ``Trainer``.
        resume: continue from the last checkpoint in ``out``, or its ``carry.pt``.
        init: start from a model: anything that ``locate_model`` takes.
        dev: folder or manifest to validate on.
        max_minutes: stop after this time.
        max_steps: stop after this many more steps.
        device: "auto", "cpu", "cuda" or "mps".
        tensorboard: write ``out/tensorboard`` as well.
        say: called with lines of progress, in the first process.

    Raises:
        SimvqAudioError: the recipe, the data, a model or a checkpoint cannot be used.
        OSError: the run folder cannot be written.
    """
    started = time.monotonic()
    try:
        _train(
            _configured(recipe, out, resume=resume, init=init),
            data,
            out,
            resume=resume,
            init=init,
            dev=dev,
            deadline=float("inf") if max_minutes is None else started + 60 * max_minutes,
            max_steps=max_steps,
            device=device,
            tensorboard=tensorboard,
            say=say,
        )
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _configured(recipe: Path, out: Path, *, resume: bool, init: str | None) -> TrainingConfig:
    """The recipe, merged over the model that the run continues or starts from."""
    values = read_recipe(recipe)
    checkpoint = find_checkpoint(out)
    if checkpoint and not resume:
        raise ConfigError(
            f"{out} holds a run already; continue it with --resume, or choose another --out"
        )
    if resume:
        if checkpoint is None:
            raise ModelError(f"{out} holds no checkpoint to resume from")
        model = without_training_settings(load_checkpoint(checkpoint)["config"]["model"])
        values["model"] = _over(model, values)
    elif init:
        values["model"] = _over(read_header(locate_model(init)).config.to_dict(), values)
    return TrainingConfig.from_dict(values, str(recipe))


def _over(model: dict[str, Any], recipe: dict[str, Any]) -> Any:
    """A model's configuration with a recipe's changes.

    A part of another kind replaces that of the model.
    """
    own = recipe.get("model", {})
    if not isinstance(own, dict):
        return own  # reported when the whole is checked
    kept = {
        name: part
        for name, part in model.items()
        if not (isinstance(part, dict) and _kind(own.get(name)) not in (None, part.get("kind")))
    }
    return merged(kept, own)


def _kind(part: Any) -> Any:
    return part.get("kind") if isinstance(part, dict) else None


def _train(
    config: TrainingConfig,
    data: Path,
    out: Path,
    *,
    resume: bool,
    init: str | None,
    dev: Path | None,
    deadline: float,
    max_steps: int | None,
    device: str,
    tensorboard: bool,
    say: Callable[[str], None],
) -> None:
    fabric = make_fabric(device, config.precision)
    source = open_source(data, config, fabric.device)
    first = fabric.is_global_zero
    validation = watch = None
    if dev:
        validation = ValidationSet(dev, config.validation, config.model.sample_rate)
    if first:
        watch = Watch(out, config.steps, tensorboard=tensorboard)
    trainer = Trainer(config, fabric, source, out, validation=validation, watch=watch)
    if resume:
        path = trainer.resume()
        if first:
            say(f"continuing from {path}, step {trainer.step}")
    elif init:
        fresh = trainer.start_from_model(locate_model(init))
        if first and fresh:
            say(f"{' and '.join(fresh)} start from scratch where they differ from {init}")
    stopped: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: stopped.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        trainer.run(lambda: bool(stopped) or time.monotonic() > deadline, max_steps)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if first:
        say(f"step {trainer.step} of {config.steps}; model: {out / MODEL}")

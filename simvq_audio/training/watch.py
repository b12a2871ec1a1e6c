"""Progress of a run: a line on the terminal, ``metrics.jsonl`` and, on request, TensorBoard."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import ConfigError, needs_extra
from simvq_audio.training.validation import Example, spectrogram_image

_METRICS = "metrics.jsonl"
# Values of metrics.jsonl that a line shows, and their formats.
_SHOWN = {
    "mel": ".3f",
    "quantizer": ".4f",
    "adversarial": ".3f",
    "feature_matching": ".3f",
    "discriminator": ".3f",
    "perplexity": ".0f",
    "gradient_norm": ".2g",
    "steps_per_second": ".2f",
    "audio_seconds_per_second": ".1f",
}


class Watch:
    """Follows one run; only the first process has one.

    On a terminal, one line is updated; elsewhere every logged step prints a line.

    Args:
        out: run folder; ``metrics.jsonl`` and ``tensorboard/`` are written there.
        steps: last step of the run.
        tensorboard: write scalars, audio and spectrograms for it.

    Raises:
        MissingExtraError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self, out: Path, steps: int, *, tensorboard: bool = False, console: Console | None = None
    ) -> None:
        self._out = out
        self._steps = steps
        self._console = console or Console(highlight=False)
        self._make_writer = _summary_writer() if tensorboard else None
        self._writer: Any = None
        self._progress: Progress | None = None
        self._task: Any = None

    def start(self, step: int) -> None:
        """Start at ``step``; later lines, of a run that was killed, are removed."""
        path = self._out / _METRICS
        if path.exists():
            kept = [
                line
                for line in path.read_text().splitlines()
                if (row := _row(line)) is not None and row["step"] <= step
            ]
            with atomic_path(path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept))
        if self._make_writer:
            self._writer = self._make_writer(self._out / "tensorboard", purge_step=step + 1)
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=20))
            self._progress = Progress(*columns, console=self._console)
            self._task = self._progress.add_task("starting", total=self._steps, completed=step)
            self._progress.start()

    def step(self, step: int) -> None:
        """A step is done."""
        if self._progress:
            self._progress.update(self._task, completed=step)

    def log(self, row: dict[str, Any]) -> None:
        """Means over some steps; ``step`` and ``steps_per_second`` are among them."""
        self._write(row, "training")
        left = timedelta(seconds=round((self._steps - row["step"]) / row["steps_per_second"]))
        numbers = [
            f"{name.replace('_', ' ')} {row[name]:{form}}"
            for name, form in _SHOWN.items()
            if name in row
        ]
        if row["skipped"]:
            numbers.append(f"skipped {row['skipped']}")
        line = f"step {row['step']}/{self._steps}  {'  '.join(numbers)}  {left} left"
        if self._progress:
            self._progress.update(self._task, description=line)
        else:
            self._say(line)

    def validation(self, row: dict[str, Any], examples: list[Example], sample_rate: int) -> None:
        """Scores of the averaged weights, and a few recordings to listen to."""
        self._write({k if k == "step" else f"validation_{k}": v for k, v in row.items()}, "")
        scores = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "step")
        self._say(f"validation at step {row['step']}: {scores}")
        if not self._writer:
            return
        for example in examples:
            for kind, waveform in (("original", example.original), ("decoded", example.decoded)):
                audio = torch.from_numpy(waveform)
                tag = f"{example.name}/{kind}"
                self._writer.add_audio(tag, audio[None], row["step"], sample_rate)
                self._writer.add_image(tag, spectrogram_image(audio), row["step"])

    def close(self) -> None:
        """Remove the progress line."""
        if self._progress:
            self._progress.stop()
        if self._writer:
            self._writer.close()

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False)

    def _write(self, row: dict[str, Any], section: str) -> None:
        with open(self._out / _METRICS, "a") as log:
            log.write(json.dumps({**row, "time": round(time.time(), 1)}) + "\n")
        if self._writer:
            for name, value in row.items():
                if name != "step":
                    tag = f"{section}/{name}" if section else name.replace("_", "/", 1)
                    self._writer.add_scalar(tag, value, row["step"])


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The rows of a run's ``metrics.jsonl``.

    A truncated line, left by a killed run, is ignored.

    Raises:
        ConfigError: there is no such file, or it has no row yet.
    """
    path = run / _METRICS
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    rows = [row for line in lines if (row := _row(line)) is not None]
    if not rows:
        raise ConfigError(f"{path} has no rows yet")
    return rows


def _row(line: str) -> dict[str, Any] | None:
    """A line of metrics; None if it is truncated."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and "step" in row else None


def _summary_writer() -> Any:
    with needs_extra("train"):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter

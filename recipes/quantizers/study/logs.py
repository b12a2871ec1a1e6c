"""The log of a run: one JSON file, and one with points for pictures."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import ConfigError
from study.rows import Run

LOGS = "results"
BENCHMARK = "benchmark"


@dataclass(frozen=True)
class Point:
    """Training at a step: means since the last point; use over the last steps.

    Attributes:
        quantized: False in unquantised steps, where all but ``mel`` is None.
    """

    step: int
    mel: float
    error: float | None = None
    utilisation: float | None = None
    perplexity: float | None = None


@dataclass(frozen=True)
class RunLog:
    """A finished run.

    Attributes:
        run: its row, codebook size and seed.
        setting: as ``Setting.to_dict`` gave it.
        curve: over training.
        scores: as ``scoring.Scores`` has them, in plain values.
        step_seconds: median of a quantised step, of the processor's time on a CPU, else of the
            wall's.
        wall_seconds: of the whole run.
        peak_mib: most memory of the process, or of the GPU, until the end of training.
        machine: processor, device and versions.
    """

    run: Run
    setting: dict[str, Any]
    curve: list[Point]
    scores: dict[str, Any]
    step_seconds: float
    wall_seconds: float
    peak_mib: float
    machine: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What a row costs, measured alone.

    Attributes:
        step_seconds: median training step; processor's time on a CPU.
        quantizer_seconds: the part of the quantiser, forward and backward.
        peak_mib: most memory of a process that only trains.
        machine: as in ``RunLog``.
    """

    row: str
    codebook_size: int
    step_seconds: float
    quantizer_seconds: float
    peak_mib: float
    machine: dict[str, str] = field(default_factory=dict)


def log_path(runs: Path, run: Run) -> Path:
    return runs / LOGS / f"{run.name}.json"


def cost_path(runs: Path, row: str, codebook_size: int) -> Path:
    return runs / BENCHMARK / f"{row}-{codebook_size}.json"


def write_log(runs: Path, log: RunLog, pictures: dict[str, np.ndarray] | None) -> None:
    """Write a run's log; the JSON comes last, and says that the run is finished."""
    path = log_path(runs, log.run)
    path.parent.mkdir(parents=True, exist_ok=True)
    if pictures is not None:
        with atomic_path(path.with_suffix(".npz")) as temporary:
            np.savez_compressed(temporary, **pictures)
    _write(path, dataclasses.asdict(log))


def write_cost(runs: Path, cost: Cost) -> None:
    path = cost_path(runs, cost.row, cost.codebook_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, dataclasses.asdict(cost))


def read_logs(runs: Path) -> list[RunLog]:
    """All finished runs of a folder, in the order of their names.

    Raises:
        ConfigError: there are none, or one is damaged or of another setting than the rest.
    """
    logs = []
    for path in sorted((runs / LOGS).glob("*.json")):
        values = _read(path)
        try:
            run = Run(**values.pop("run"))
            curve = [Point(**point) for point in values.pop("curve")]
            logs.append(RunLog(run=run, curve=curve, **values))
        except (KeyError, TypeError) as error:
            raise ConfigError(f"{path} is no log of a run: {error}") from error
        if logs[-1].setting != logs[0].setting:
            raise ConfigError(f"{path} was made with another setting than the other runs in {runs}")
    if not logs:
        raise ConfigError(f"{runs} holds no finished runs; make them with run.py")
    return logs


def read_costs(runs: Path) -> list[Cost]:
    """All that was measured alone, in the order of names; empty if nothing was.

    Raises:
        ConfigError: a file is damaged.
    """
    costs = []
    for path in sorted((runs / BENCHMARK).glob("*.json")):
        try:
            costs.append(Cost(**_read(path)))
        except TypeError as error:
            raise ConfigError(f"{path} is no measurement: {error}") from error
    return costs


def read_pictures(runs: Path, run: Run) -> dict[str, np.ndarray] | None:
    """The points of a run, if they were kept."""
    path = log_path(runs, run).with_suffix(".npz")
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path} is damaged; delete it and run again") from error


def _write(path: Path, values: dict[str, Any]) -> None:
    # Numbers to six digits: the logs are committed.
    text = json.dumps(_rounded(values), separators=(",", ":"))
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value

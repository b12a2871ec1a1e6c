"""Results of runs, and tables of many of them.

A finished run has RUNS/NAME/result.json and, for the pictures, points.npz. ``write_tables`` writes
five files for any number of runs: runs.csv (one line per run), curves.csv, histograms.csv,
costs.csv and points.npz. ``read_results`` reads either, or both.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import ConfigError
from study.rows import Run
from study.use import Use

RESULT, POINTS = "result.json", "points.npz"
_MACHINE = ("device", "name", "threads", "torch", "simvq-audio", "vector-quantize-pytorch")
_SCORES = ("mel", "pesq_wb", "stoi", "estoi", "error", "pesq_wb_failed", "recordings")
_USE = ("frames", "utilisation", "even_utilisation", "perplexity", "entropy")
_COSTS = ("step_seconds", "wall_seconds", "peak_mib")
_RUN = ("row", "codebook_size", "seed")


@dataclass(frozen=True)
class Point:
    """Training at a step: means since the last point; None if nothing was quantised."""

    step: int
    mel: float
    error: float | None = None
    utilisation: float | None = None
    perplexity: float | None = None
    steps_per_second: float = 0.0


@dataclass(frozen=True)
class RunLog:
    """A finished run.

    Attributes:
        run: its row, codebook size and seed.
        curve: over training.
        scores: means over recordings: "mel" (nepers, over six scales), "pesq_wb", "stoi", "estoi",
            "pesq_wb_failed", "recordings", and over all of them "error", the squared quantisation
            error over the latents' variance.
        use: of the codebook, over all recordings.
        step_seconds: median over the curve.
        wall_seconds: of the whole run.
        peak_mib: most memory of the process, or of the GPU, until the end of training.
        machine: processor, device and versions.
    """

    run: Run
    curve: list[Point]
    scores: dict[str, float]
    use: Use
    step_seconds: float
    wall_seconds: float
    peak_mib: float
    machine: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """The cost of a row, measured without other runs.

    Attributes:
        step_seconds: median training step; processor's time on a CPU.
        quantizer_seconds: the part of the quantiser, forward and backward.
        peak_mib: most memory of a training process.
        machine: as in ``RunLog``.
    """

    row: str
    codebook_size: int
    step_seconds: float
    quantizer_seconds: float
    peak_mib: float
    machine: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """All runs and costs of a folder.

    Attributes:
        points: arrays for pictures by "RUN/ARRAY"; see ``Snapshots.projected``.
    """

    logs: list[RunLog]
    costs: list[Cost]
    points: dict[str, np.ndarray]

    def points_of(self, run: Run) -> dict[str, np.ndarray] | None:
        """Arrays of a run by name, or None if they were not kept."""
        prefix = f"{run.name}/"
        found = {n[len(prefix) :]: a for n, a in self.points.items() if n.startswith(prefix)}
        return found or None


def run_folder(runs: Path, run: Run) -> Path:
    """The folder of a run."""
    return runs / run.name


def write_log(runs: Path, log: RunLog, points: dict[str, np.ndarray] | None) -> None:
    """Write a run's log; the JSON is written last and marks the run as finished."""
    folder = run_folder(runs, log.run)
    folder.mkdir(parents=True, exist_ok=True)
    if points is not None:
        with atomic_path(folder / POINTS) as temporary:
            np.savez_compressed(temporary, **points)
    _write_json(folder / RESULT, dataclasses.asdict(log))


def write_cost(runs: Path, cost: Cost) -> None:
    """Write the cost of a row."""
    path = runs / "costs" / f"{cost.row}-{cost.codebook_size}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_json(path, dataclasses.asdict(cost))


def finished(runs: Path) -> set[str]:
    """Names of the finished runs."""
    names = {path.parent.name for path in runs.glob(f"*/{RESULT}")}
    return names | {Run(*key).name for key in map(_run_key, _rows(runs / "runs.csv"))}


def measured(runs: Path) -> set[tuple[str, int]]:
    """Rows and codebook sizes that were measured."""
    found = {(cost.row, cost.codebook_size) for cost in _read_costs(runs)}
    return found | {(r["row"], int(r["codebook_size"])) for r in _rows(runs / "costs.csv")}


def read_results(runs: Path) -> Results:
    """Everything in a folder, of tables and of single runs.

    Raises:
        ConfigError: there is nothing, or something is damaged.
    """
    try:
        logs, costs, points = _read_tables(runs)
        for path in sorted(runs.glob(f"*/{RESULT}")):
            values = _read_json(path)
            run, use = Run(**values.pop("run")), Use(**values.pop("use"))
            curve = [Point(**point) for point in values.pop("curve")]
            logs.append(RunLog(run=run, use=use, curve=curve, **values))
            if (path.parent / POINTS).exists():
                with np.load(path.parent / POINTS, allow_pickle=False) as file:
                    points |= {f"{run.name}/{name}": file[name] for name in file.files}
        costs += _read_costs(runs)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"a log or a table in {runs} is damaged: {error}") from error
    if not logs:
        raise ConfigError(f"{runs} holds no finished runs; make them with run.py")
    logs.sort(key=lambda log: log.run)
    return Results(logs, costs, points)


def write_tables(results: Results, out: Path) -> None:
    """Write results to five files, each whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    runs, curves, histograms = [], [], []
    for log in results.logs:
        key = dataclasses.astuple(log.run)
        use = dataclasses.asdict(log.use)
        runs.append(
            [*key]
            + [log.scores.get(name, "") for name in _SCORES]
            + [use[name] for name in _USE]
            + [getattr(log, name) for name in _COSTS]
            + [log.machine.get(name, "") for name in _MACHINE]
        )
        curves += [[*key, *dataclasses.astuple(point)] for point in log.curve]
        histograms += [[*key, *pair] for pair in log.use.histogram]
    point = [f.name for f in dataclasses.fields(Point)]
    _write_csv(out / "runs.csv", [*_RUN, *_SCORES, *_USE, *_COSTS, *_MACHINE], runs)
    _write_csv(out / "curves.csv", [*_RUN, *point], curves)
    _write_csv(out / "histograms.csv", [*_RUN, "rank", "count"], histograms)
    costs = [
        [c.row, c.codebook_size, c.step_seconds, c.quantizer_seconds, c.peak_mib]
        + [c.machine.get(name, "") for name in _MACHINE]
        for c in results.costs
    ]
    header = ["row", "codebook_size", "step_seconds", "quantizer_seconds", "peak_mib", *_MACHINE]
    _write_csv(out / "costs.csv", header, costs)
    with atomic_path(out / POINTS) as temporary:
        np.savez_compressed(temporary, **results.points)


def _read_tables(
    folder: Path,
) -> tuple[list[RunLog], list[Cost], dict[str, np.ndarray]]:
    curves: dict[tuple[str, int, int], list[Point]] = {}
    for row in _rows(folder / "curves.csv"):
        numbers = [_number(row[f.name]) for f in dataclasses.fields(Point)]
        curves.setdefault(_run_key(row), []).append(Point(int(numbers[0]), *numbers[1:]))
    histograms: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
    for row in _rows(folder / "histograms.csv"):
        pair = int(row["rank"]), int(row["count"])
        histograms.setdefault(_run_key(row), []).append(pair)
    logs = []
    for row in _rows(folder / "runs.csv"):
        key = _run_key(row)
        frames, *use = (float(row[name]) for name in _USE)
        logs.append(
            RunLog(
                Run(*key),
                curves.get(key, []),
                {name: float(row[name]) for name in _SCORES if row[name]},
                Use(int(frames), *use, histograms.get(key, [])),
                *(float(row[name]) for name in _COSTS),
                {name: row[name] for name in _MACHINE},
            )
        )
    costs = [
        Cost(
            row["row"],
            int(row["codebook_size"]),
            *(float(row[n]) for n in ("step_seconds", "quantizer_seconds", "peak_mib")),
            {name: row[name] for name in _MACHINE},
        )
        for row in _rows(folder / "costs.csv")
    ]
    points: dict[str, np.ndarray] = {}
    if (folder / POINTS).exists():
        with np.load(folder / POINTS, allow_pickle=False) as file:
            points = {name: file[name] for name in file.files}
    return logs, costs, points


def _run_key(row: dict[str, str]) -> tuple[str, int, int]:
    return row["row"], int(row["codebook_size"]), int(row["seed"])


def _number(text: str) -> float | None:
    return float(text) if text else None


def _read_costs(runs: Path) -> list[Cost]:
    return [Cost(**_read_json(path)) for path in sorted((runs / "costs").glob("*.json"))]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path} is damaged; delete it and run again") from error


def _write_json(path: Path, values: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values) + "\n", encoding="utf-8")

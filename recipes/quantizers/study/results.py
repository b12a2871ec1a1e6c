"""Results of runs, and the tables that keep many of them.

A finished run has RUNS/NAME/result.json; unseen.json holds a later count of its codes on more
speech. ``write_tables`` writes runs.csv (a line a run), curves.csv and costs.csv; ``read_results``
reads either form, or both.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import ConfigError
from study.rows import Run
from study.use import Use

RESULT, UNSEEN = "result.json", "unseen.json"
_MACHINE = ("device", "name", "threads", "torch", "simvq-audio", "vector-quantize-pytorch")
_SCORES = ("mel", "pesq_wb", "stoi", "estoi", "error", "pesq_wb_failed", "recordings")
_USE = tuple(f.name for f in dataclasses.fields(Use))
_COSTS = ("step_seconds", "wall_seconds", "peak_mib")
_RUN = ("row", "codebook_size", "seed")


@dataclass(frozen=True)
class Point:
    """Training at a step: means since the last point; None if nothing was quantised.

    The last five are those of ``Spectrum``, at this step.
    """

    step: int
    mel: float
    error: float | None = None
    utilisation: float | None = None
    perplexity: float | None = None
    steps_per_second: float = 0.0
    w_largest: float | None = None
    w_median: float | None = None
    w_smallest: float | None = None
    live_latent: float | None = None
    live_codebook: float | None = None


@dataclass(frozen=True)
class RunLog:
    """A finished run.

    Attributes:
        run: its row, codebook size and seed.
        curve: over training.
        scores: means over recordings: "mel" (nepers, over six scales), "stoi", with a sample rate
            of 16 kHz or more also "pesq_wb" and "estoi"; "recordings", and over all of them
            "error", the squared quantisation error over the latents' variance.
        use: of the codebook, over all recordings.
        step_seconds: median over the curve.
        wall_seconds: of the whole run.
        peak_mib: most memory of the process, or of the GPU, until the end of training.
        machine: processor, device and versions.
        unseen: use of the codebook on more speech, if it was counted.
    """

    run: Run
    curve: list[Point]
    scores: dict[str, float]
    use: Use
    step_seconds: float
    wall_seconds: float
    peak_mib: float
    machine: dict[str, str] = field(default_factory=dict)
    unseen: Use | None = None


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
    """All runs and costs of a folder."""

    logs: list[RunLog]
    costs: list[Cost]


def run_folder(runs: Path, run: Run) -> Path:
    """The folder of a run."""
    return runs / run.name


def write_log(runs: Path, log: RunLog) -> None:
    """Write a run's log, which marks the run as finished."""
    folder = run_folder(runs, log.run)
    folder.mkdir(parents=True, exist_ok=True)
    values = dataclasses.asdict(log)
    del values["unseen"]
    _write_json(folder / RESULT, values)


def write_unseen(runs: Path, run: Run, use: Use) -> None:
    """Write the count of a finished run's codes on unseen speech."""
    _write_json(run_folder(runs, run) / UNSEEN, dataclasses.asdict(use))


def write_cost(runs: Path, cost: Cost) -> None:
    """Write the cost of a row."""
    path = runs / "costs" / f"{cost.row}-{cost.codebook_size}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_json(path, dataclasses.asdict(cost))


def finished(runs: Path) -> set[str]:
    """Names of the finished runs."""
    names = {path.parent.name for path in runs.glob(f"*/{RESULT}")}
    return names | {Run(*key).name for key in map(_run_key, _rows(runs / "runs.csv"))}


def counted(runs: Path, frames: int) -> set[str]:
    """Names of the runs whose codes were counted on at least as many frames."""
    paths = runs.glob(f"*/{UNSEEN}")
    return {path.parent.name for path in paths if _read_json(path)["frames"] >= frames}


def measured(runs: Path) -> set[tuple[str, int]]:
    """Rows and codebook sizes that were measured."""
    return {(cost.row, cost.codebook_size) for cost in read_costs(runs)}


def read_results(runs: Path) -> Results:
    """Everything in a folder, of tables and of single runs.

    Raises:
        ConfigError: there is nothing, or something is damaged.
    """
    try:
        logs, costs = _read_tables(runs), read_costs(runs)
        for path in sorted(runs.glob(f"*/{RESULT}")):
            values = _read_json(path)
            run, use = Run(**values.pop("run")), Use(**values.pop("use"))
            curve = [Point(**point) for point in values.pop("curve")]
            unseen = None
            if (path.parent / UNSEEN).exists():
                unseen = Use(**_read_json(path.parent / UNSEEN))
            logs.append(RunLog(run=run, use=use, curve=curve, unseen=unseen, **values))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"a log or a table in {runs} is damaged: {error}") from error
    if not logs:
        raise ConfigError(f"{runs} holds no finished runs; make them with run.py")
    logs.sort(key=lambda log: log.run)
    return Results(logs, costs)


def read_costs(folder: Path) -> list[Cost]:
    """The costs in a folder, of its table and of single measurements."""
    costs = [
        Cost(
            row["row"],
            int(row["codebook_size"]),
            *(float(row[n]) for n in ("step_seconds", "quantizer_seconds", "peak_mib")),
            {name: row[name] for name in _MACHINE},
        )
        for row in _rows(folder / "costs.csv")
    ]
    return costs + [Cost(**_read_json(path)) for path in sorted((folder / "costs").glob("*.json"))]


def read_survey(path: Path) -> list[RunLog]:
    """The runs of a table like runs.csv alone, in which columns may be missing."""
    return [_log(row, []) for row in _rows(path)]


def write_tables(results: Results, out: Path, curves_of: int) -> None:
    """Write results to three files, each whole or not at all.

    Args:
        curves_of: codebook size whose runs keep their curves.
    """
    out.mkdir(parents=True, exist_ok=True)
    runs, curves = [], []
    for log in results.logs:
        key = dataclasses.astuple(log.run)
        use = dataclasses.astuple(log.use)
        unseen = [""] * len(_USE) if log.unseen is None else dataclasses.astuple(log.unseen)
        runs.append(
            [*key]
            + [log.scores.get(name, "") for name in _SCORES]
            + [*use, *unseen]
            + [getattr(log, name) for name in _COSTS]
            + [log.machine.get(name, "") for name in _MACHINE]
        )
        if log.run.codebook_size == curves_of:
            curves += [[*key, *dataclasses.astuple(point)] for point in log.curve]
    point = [f.name for f in dataclasses.fields(Point)]
    names = [*_RUN, *_SCORES, *_USE, *(f"unseen_{name}" for name in _USE), *_COSTS, *_MACHINE]
    _write_csv(out / "runs.csv", names, runs)
    _write_csv(out / "curves.csv", [*_RUN, *point], curves)
    costs = [
        [c.row, c.codebook_size, c.step_seconds, c.quantizer_seconds, c.peak_mib]
        + [c.machine.get(name, "") for name in _MACHINE]
        for c in results.costs
    ]
    header = ["row", "codebook_size", "step_seconds", "quantizer_seconds", "peak_mib", *_MACHINE]
    _write_csv(out / "costs.csv", header, costs)


def _read_tables(folder: Path) -> list[RunLog]:
    curves: dict[tuple[str, int, int], list[Point]] = {}
    for row in _rows(folder / "curves.csv"):
        numbers = [_number(row[f.name]) for f in dataclasses.fields(Point)]
        curves.setdefault(_run_key(row), []).append(Point(int(numbers[0]), *numbers[1:]))
    logs = [_log(row, curves.get(_run_key(row), [])) for row in _rows(folder / "runs.csv")]
    return logs


def _log(row: dict[str, str], curve: list[Point]) -> RunLog:
    return RunLog(
        Run(*_run_key(row)),
        curve,
        {name: float(row[name]) for name in _SCORES if row[name]},
        _use(row, ""),
        *(float(row[name]) for name in _COSTS),
        {name: row[name] for name in _MACHINE},
        _use(row, "unseen_") if row.get("unseen_frames") else None,
    )


def _use(row: dict[str, str], prefix: str) -> Use:
    frames, *rest = (float(row.get(prefix + name) or "nan") for name in _USE)
    return Use(int(frames), *rest)


def _run_key(row: dict[str, str]) -> tuple[str, int, int]:
    return row["row"], int(row["codebook_size"]), int(row["seed"])


def _number(text: str) -> float | None:
    return float(text) if text else None


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

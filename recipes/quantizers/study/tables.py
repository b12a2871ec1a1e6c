"""Tables of a study in Markdown and CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from simvq_audio.training.config import TrainingConfig
from study.results import Cost, RunLog
from study.rows import ROWS, Row


@dataclass(frozen=True)
class Column:
    """A number that is reported for each run.

    Attributes:
        name: in the CSV.
        title: in the Markdown.
        digits: after the decimal point there.
        read: gets it from a log.
    """

    name: str
    title: str
    digits: int
    read: Callable[[RunLog], float]


def _used(name: str, factor: float = 1.0) -> Callable[[RunLog], float]:
    return lambda log: factor * getattr(log.use, name)


COLUMNS = (
    Column("utilisation", "used, %", 1, _used("utilisation", 100)),
    Column("perplexity", "perplexity", 0, _used("perplexity")),
    Column("entropy", "bits per frame", 2, _used("entropy")),
    Column(
        "training_perplexity",
        "perplexity in training",
        0,
        lambda log: log.curve[-1].perplexity or 0.0,
    ),
    Column("error", "quantisation error", 3, lambda log: log.scores["error"]),
    Column("mel", "mel distance", 3, lambda log: log.scores["mel"]),
    Column("pesq_wb", "PESQ-wb", 3, lambda log: log.scores["pesq_wb"]),
    Column("stoi", "STOI", 3, lambda log: log.scores["stoi"]),
    Column("estoi", "ESTOI", 3, lambda log: log.scores["estoi"]),
    Column("step_ms", "step, ms", 0, lambda log: 1000 * log.step_seconds),
    Column("peak_mib", "peak memory, MiB", 0, lambda log: log.peak_mib),
)

# Columns that a run without a quantiser lacks.
_OF_CODES = frozenset({"utilisation", "perplexity", "entropy", "training_perplexity", "error"})

Group = dict[tuple[str, int], list[RunLog]]


def group(logs: Sequence[RunLog]) -> Group:
    """Logs by row and codebook size, in the order of the rows."""
    order = {name: number for number, name in enumerate(ROWS)}
    found: Group = {}
    key = lambda log: (order.get(log.run.row, len(order)), log.run)  # noqa: E731
    for log in sorted(logs, key=key):
        found.setdefault((log.run.row, log.run.codebook_size), []).append(log)
    return found


def title(name: str) -> str:
    """The title of a row, or its name if it is no longer in the study."""
    return ROWS[name].title if name in ROWS else name


def markdown(logs: Sequence[RunLog], costs: Sequence[Cost], setting: TrainingConfig) -> str:
    """Every table, one per codebook size, then the variants' and the costs."""
    grouped = group(logs)
    parts = ["# The study of quantisers in numbers", "", _introduction(logs, setting), ""]
    sizes = sorted({size for (_, size) in grouped if size > 1})
    for wanted, heading in (("main", "K = {}"), ("variant", "Variants of SimVQ, K = {}")):
        for size in sizes:
            rows = {
                name: found
                for (name, of), found in grouped.items()
                if of == size and (_kind(name) == wanted or _is_base(name, wanted))
            }
            if any(_kind(name) == wanted for name in rows):
                parts += [f"## {heading.format(_spaced(size))}", "", *_table(rows, grouped), ""]
    if costs:
        parts += ["## Time and memory", "", *_cost_table(costs), ""]
    return "\n".join(parts)


def _introduction(logs: Sequence[RunLog], setting: TrainingConfig) -> str:
    steps, audio = setting.steps, setting.data.batch_size * setting.data.crop_seconds
    unquantized = setting.quantizer_start.unquantized_steps
    frames = max(log.use.frames for log in logs)
    even = {
        log.run.codebook_size: log.use.even_utilisation for log in logs if log.run.codebook_size > 1
    }
    limits = ", ".join(f"{100 * even[size]:.1f} % of {_spaced(size)}" for size in sorted(even))
    return (
        f"Made by `recipes/quantizers/report.py` from {len(logs)} runs of {steps} steps of "
        f"{audio:g} s each, {unquantized} of them unquantised (none of those in "
        f"rows with a cold start). Mean ± standard deviation over seeds; without ± there is one "
        f"seed. Codes are counted on {_spaced(frames)} frames of unseen speakers: even use would "
        f"reach {limits}. Scores are means over {logs[0].scores['recordings']:.0f} recordings. The "
        "quantisation error is squared, over the latents' variance in the recording. A step's time "
        "is the median of its run; runs shared the machine with each other and with other work."
    )


def _table(rows: Group | dict[str, list[RunLog]], grouped: Group) -> list[str]:
    lines = [
        "| quantiser | seeds | " + " | ".join(column.title for column in COLUMNS) + " |",
        "|---" * (2 + len(COLUMNS)) + "|",
    ]
    for name, found in rows.items():
        cells = [_spread([column.read(log) for log in found], column.digits) for column in COLUMNS]
        lines.append(f"| {title(name)} | {len(found)} | " + " | ".join(cells) + " |")
    for (name, _), found in grouped.items():
        if _kind(name) == "reference":
            cells = [
                _spread([column.read(log) for log in found], column.digits)
                if column.name not in _OF_CODES
                else ""
                for column in COLUMNS
            ]
            lines.append(f"| {title(name)} | {len(found)} | " + " | ".join(cells) + " |")
    return lines


def _cost_table(costs: Sequence[Cost]) -> list[str]:
    """Step time and memory by row and codebook size."""
    sizes = sorted({cost.codebook_size for cost in costs if cost.codebook_size > 1})
    found = {(cost.row, cost.codebook_size): cost for cost in costs}
    names = [name for name in ROWS if any(row == name for row, _ in found)]
    machine = costs[0].machine
    unit = "processor's time of" if machine.get("device") == "cpu" else "time of"
    lines = [
        f"Median {unit} per training step and the quantiser's part of it, in ms; most memory of "
        f"the process, in MiB. {machine.get('name', '')}, {machine.get('threads') or '?'} thread.",
        "",
        "| quantiser | " + " | ".join(f"K = {_spaced(size)}" for size in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    for name in names:
        cells = [_cost_cell(found.get((name, size))) for size in sizes]
        if any(cells):
            lines.append(f"| {title(name)} | " + " | ".join(cells) + " |")
    return lines


def _cost_cell(cost: Cost | None) -> str:
    if cost is None:
        return ""
    return (
        f"{1000 * cost.step_seconds:.0f} ({1000 * cost.quantizer_seconds:.0f}); {cost.peak_mib:.0f}"
    )


def _spread(values: Sequence[float], digits: int) -> str:
    text = f"{mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {stdev(values):.{digits}f}"


def _spaced(number: int) -> str:
    """65536 -> 65 536."""
    return str(number) if number < 10_000 else f"{number:,}".replace(",", " ")


def _kind(name: str) -> str:
    row: Row | None = ROWS.get(name)
    return "main" if row is None else row.group


def _is_base(name: str, wanted: str) -> bool:
    """Variants are shown beside the row that they vary."""
    return wanted == "variant" and name in ("simvq-latents", "simvq-cold", "simvq-covariance")

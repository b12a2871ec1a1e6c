"""Tables of the study in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from statistics import mean, median, stdev

from study.results import Cost, RunLog
from study.rows import ROWS
from study.statistics import Interval, paired, perplexity_ratio

# What every row is compared with, seed by seed.
BASE = "simvq-latents"
_SPECTRUM_STEPS = (25, 100, 200, 225, 300, 400, 550)


@dataclass(frozen=True)
class Column:
    """A number that is reported for each run.

    Attributes:
        title: of the column.
        digits: after the decimal point.
        read: gets it from a log; not a number where there is none.
    """

    title: str
    digits: int
    read: Callable[[RunLog], float]


def _used(name: str, factor: float = 1.0) -> Callable[[RunLog], float]:
    return lambda log: factor * getattr(log.use, name) if log.use.frames else nan


def _unseen(name: str, factor: float = 1.0) -> Callable[[RunLog], float]:
    return lambda log: nan if log.unseen is None else factor * getattr(log.unseen, name)


def _score(name: str) -> Callable[[RunLog], float]:
    return lambda log: log.scores.get(name, nan) if log.use.frames or name != "error" else nan


_STEP = Column("step, ms", 0, lambda log: 1000 * log.step_seconds)
COLUMNS = {
    "utilisation": Column("used, %", 1, _used("utilisation", 100)),
    "chao1": Column("Chao1, %", 1, _used("chao1", 100)),
    "perplexity": Column("perplexity", 0, _used("perplexity")),
    "corrected_perplexity": Column("corrected", 0, _used("corrected_perplexity")),
    "unseen_utilisation": Column("used, more speech, %", 1, _unseen("utilisation", 100)),
    "unseen_chao1": Column("Chao1, more speech, %", 1, _unseen("chao1", 100)),
    "unseen_corrected_perplexity": Column(
        "corrected, more speech", 0, _unseen("corrected_perplexity")
    ),
    "error": Column("quantisation error", 3, _score("error")),
    "mel": Column("mel distance", 3, _score("mel")),
    "stoi": Column("STOI", 3, _score("stoi")),
    "live_latent": Column("live dimensions, latents", 0, lambda log: _last(log, "live_latent")),
    "live_codebook": Column("of the codebook", 0, lambda log: _last(log, "live_codebook")),
    "step_ms": _STEP,
}
SURVEY_COLUMNS = {
    **{name: COLUMNS[name] for name in ("utilisation", "perplexity", "error", "mel")},
    "pesq_wb": Column("PESQ-wb", 3, _score("pesq_wb")),
    "stoi": COLUMNS["stoi"],
    "step_ms": _STEP,
}

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


def markdown(logs: Sequence[RunLog], survey: Sequence[RunLog], costs: Sequence[Cost]) -> str:
    """Every table: by codebook size, paired differences, spectra, the survey and its costs."""
    parts = ["# The study of quantisers in numbers", "", _introduction(logs), ""]
    sizes = sorted({log.run.codebook_size for log in logs if log.run.codebook_size > 1})
    for size in sizes:
        of_size = [log for log in logs if log.run.codebook_size in (1, size)]
        parts += [f"## K = {spaced(size)}", "", _counting(of_size, size), ""]
        parts += [*_table(of_size, COLUMNS), ""]
        differences = _differences(logs, size)
        if differences:
            parts += [f"### K = {spaced(size)}: each row minus {title(BASE)}", ""]
            parts += [*differences, ""]
    spectra = _spectra(logs)
    if spectra:
        parts += ["## Singular values of W and live dimensions over training", "", *spectra, ""]
    if survey:
        parts += ["## The survey of version 0.1", "", _SURVEY, ""]
        for size in sorted({log.run.codebook_size for log in survey if log.run.codebook_size > 1}):
            of_size = [log for log in survey if log.run.codebook_size in (1, size)]
            parts += [f"### Survey, K = {spaced(size)}", "", *_table(of_size, SURVEY_COLUMNS), ""]
    if costs:
        parts += ["## Time and memory", "", *_cost_table(costs), ""]
    return "\n".join(parts)


_SURVEY = (
    "Earlier runs of `study.toml` (24 kHz) by a trainer of the study's own; VQ, residual VQ and "
    "FSQ were the package's. They are not compared with the runs above."
)


def _introduction(logs: Sequence[RunLog]) -> str:
    return (
        f"Made by `recipes/quantizers/report.py` from {len(logs)} runs. Mean ± standard deviation "
        'over seeds; without ± there is one seed. "Used" and perplexity are counted on '
        f"{spaced(max(log.use.frames for log in logs))} frames of dev, whose speakers are not in "
        'the training set; "more speech" is crops of the training speakers, nearly all of them not '
        'trained on. "Chao1" is a lower bound on the codes that endless speech would use; '
        '"corrected" is the perplexity by Chao and Shen\'s estimate of the entropy. The '
        "quantisation error is squared, over the latents' variance in the recording. A direction "
        "is live if it has at least 1 % of the variance of the largest one."
    )


def _counting(logs: Sequence[RunLog], size: int) -> str:
    uses = [log.use for log in logs if log.use.frames]
    text = f"Even use would reach {100 * uses[0].even_utilisation:.1f} % on dev"
    more = [log.unseen for log in logs if log.unseen is not None]
    if more:
        least = min(use.frames for use in more)
        text += (
            f", {100 * min(use.even_utilisation for use in more):.1f} % on the "
            f"{spaced(least)} frames of more speech"
        )
    return text + "."


def _table(logs: Sequence[RunLog], known: dict[str, Column]) -> list[str]:
    """A line a row; columns without any number are left out."""
    columns = {n: c for n, c in known.items() if any(isfinite(c.read(log)) for log in logs)}
    lines = [
        "| quantiser | seeds | " + " | ".join(column.title for column in columns.values()) + " |",
        "|---" * (2 + len(columns)) + "|",
    ]
    for (name, _), found in group(logs).items():
        cells = [spread([c.read(log) for log in found], c.digits) for c in columns.values()]
        lines.append(f"| {title(name)} | {len(found)} | " + " | ".join(cells) + " |")
    return lines


def _differences(logs: Sequence[RunLog], size: int) -> list[str]:
    """Of the rows with at least three seeds in common with the base."""
    rows = [name for name, of in group(logs) if of == size and name != BASE]
    lines = []
    for name in rows:
        seeds = _seeds(logs, name, size) & _seeds(logs, BASE, size)
        if len(seeds) < 3:
            continue
        mel = paired(logs, name, BASE, size, COLUMNS["mel"].read)
        stoi = paired(logs, name, BASE, size, COLUMNS["stoi"].read)
        ratio = perplexity_ratio(logs, name, BASE, size)
        lines.append(
            f"| {title(name)} | {len(seeds)} | {interval(ratio, 3)} | {interval(mel, 3, True)} | "
            f"{interval(stoi, 3, True)} |"
        )
    if not lines:
        return []
    head = "| row | seeds | corrected perplexity, ratio | mel distance | STOI |"
    note = (
        "Mean over seeds of the paired difference (for the perplexity, the ratio) [95 % interval]."
    )
    return [note, "", head, "|---" * 5 + "|", *lines]


def _spectra(logs: Sequence[RunLog]) -> list[str]:
    """Medians over seeds, for the rows whose curves were kept."""
    lines = []
    for (name, size), found in group([log for log in logs if log.curve]).items():
        for step in _SPECTRUM_STEPS:
            points = [p for log in found for p in log.curve if p.step == step]
            points = [p for p in points if p.live_latent is not None]
            if not points:
                continue
            cells = [
                median_of([getattr(p, field) for p in points], digits)
                for field, digits in (
                    ("w_largest", 2),
                    ("w_median", 2),
                    ("w_smallest", 3),
                    ("live_latent", 0),
                    ("live_codebook", 0),
                )
            ]
            count = len(points)
            lines.append(
                f"| {title(name)} | {spaced(size)} | {count} | {step} | " + " | ".join(cells) + " |"
            )
    if not lines:
        return []
    head = (
        "| row | K | seeds | step | largest singular value of W | median | smallest | "
        "live dimensions, latents | of the codebook |"
    )
    return ["Medians over seeds.", "", head, "|---" * 9 + "|", *lines]


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
        "| quantiser | " + " | ".join(f"K = {spaced(size)}" for size in sizes) + " |",
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


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation, of the values that are numbers."""
    numbers = [value for value in values if isfinite(value)]
    if not numbers:
        return ""
    text = f"{mean(numbers):.{digits}f}"
    return text if len(numbers) < 2 else f"{text} ± {stdev(numbers):.{digits}f}"


def interval(found: Interval, digits: int, sign: bool = False) -> str:
    """Middle and 95 % interval; with fewer than three seeds, the value of each.

    Without ``sign`` it is a ratio, with ``digits`` significant digits.
    """

    def number(value: float) -> str:
        if sign:
            return f"{value:+.{digits}f}"
        return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:#.{digits}g}".rstrip(".")

    if found.seeds < 3:
        return " and ".join(number(value) for value in found.each)
    return f"{number(found.middle)} [{number(found.low)}, {number(found.high)}]"


def spaced(number: int) -> str:
    """65536 -> 65 536."""
    return str(number) if number < 10_000 else f"{number:,}".replace(",", " ")


def _seeds(logs: Sequence[RunLog], name: str, size: int) -> set[int]:
    return {log.run.seed for log in logs if log.run.row == name and log.run.codebook_size == size}


def _last(log: RunLog, field: str) -> float:
    value = getattr(log.curve[-1], field) if log.curve else None
    return nan if value is None else value


def median_of(values: Sequence[float | None], digits: int) -> str:
    """Of the values that there are; empty if there are none."""
    numbers = [value for value in values if value is not None]
    return f"{median(numbers):.{digits}f}" if numbers else ""

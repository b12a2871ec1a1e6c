"""Tables and figures of the page, for its template."""

from __future__ import annotations

from dataclasses import dataclass

from simvq_audio.evaluation.metric import MetricInfo
from simvq_audio.evaluation.report import figures
from simvq_audio.evaluation.results import ALL, Report
from simvq_audio.evaluation.statistics import Mean, PairedTest


@dataclass(frozen=True)
class Cell:
    """A mean in a table.

    Attributes:
        mean: None if no recording has a score.
        best: whether no other system's mean is better; False if there is one system.
        total: the system's recordings there, scored or not.
    """

    mean: Mean | None
    best: bool
    total: int


@dataclass(frozen=True)
class Row:
    """A row of a table: its label, and a cell per system."""

    title: str
    metric: MetricInfo
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Comparison:
    """A metric's tests of every system but the first against the first."""

    metric: MetricInfo
    tests: tuple[PairedTest | None, ...]


@dataclass(frozen=True)
class MetricSection:
    """The page's section of one metric.

    Attributes:
        folders: means by folder, "all" first.
        rates: the rate-distortion plot as SVG, None for a single system or if no bit
            rate is known.
        rates_unknown: systems with a score but without a bit rate.
        distribution: as SVG, None if there is no score.
    """

    metric: MetricInfo
    folders: tuple[Row, ...]
    rates: str | None
    rates_unknown: tuple[str, ...]
    distribution: str | None


def summary_rows(report: Report) -> tuple[Row, ...]:
    """A row per metric, over all recordings."""
    return tuple(_row(report, metric, ALL, metric.title) for metric in report.metrics)


def metric_section(report: Report, metric: MetricInfo) -> MetricSection:
    """Tables and figures of one metric."""
    found = report.summary.means
    folders = dict.fromkeys(folder for of in found.values() for folder in of)
    scored = [system for system in report.systems if metric.name in found[system.name][ALL]]
    points = [
        figures.RatePoint(system.name, system.kbps, found[system.name][ALL][metric.name])
        for system in scored
        if system.kbps is not None
    ]
    rates = distribution = None
    # A single point compares nothing.
    if points and len(report.systems) > 1:
        rates = figures.svg(figures.rate_distortion(points, metric), f"rates-{metric.name}")
    if scored:
        figure = figures.distributions(
            {s.name: list(s.scores(metric.name).values()) for s in scored},
            {s.name: found[s.name][ALL][metric.name] for s in scored},
            metric,
        )
        distribution = figures.svg(figure, f"distribution-{metric.name}")
    return MetricSection(
        metric,
        tuple(_row(report, metric, folder, folder) for folder in folders),
        rates,
        tuple(system.name for system in scored if system.kbps is None),
        distribution,
    )


def _row(report: Report, metric: MetricInfo, folder: str, title: str) -> Row:
    found = report.summary.means.values()
    of = [means.get(folder, {}).get(metric.name) for means in found]
    values = [mean.value for mean in of if mean is not None]
    best = None
    if len(values) > 1 and metric.higher_is_better is not None:
        best = max(values) if metric.higher_is_better else min(values)
    totals = [counts.get(folder, 0) for counts in report.summary.counts.values()]
    cells = (
        Cell(mean, mean is not None and mean.value == best, total)
        for mean, total in zip(of, totals)
    )
    return Row(title, metric, tuple(cells))


def tests(report: Report) -> tuple[Comparison, ...]:
    """Tests against the first system; none if it is alone."""
    of_systems = report.summary.tests.values()
    if not of_systems:
        return ()
    return tuple(
        Comparison(metric, tuple(of.get(metric.name) for of in of_systems))
        for metric in report.metrics
    )


def unscorable(report: Report) -> dict[str, dict[str, dict[str, str]]]:
    """Why recordings have no score, by system, title of the metric and name."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for system in report.systems:
        for metric in report.metrics:
            reasons = {
                file.name: file.problems[metric.name]
                for file in system.files
                if metric.name in file.problems
            }
            if reasons:
                found.setdefault(system.name, {})[metric.title] = reasons
    return found

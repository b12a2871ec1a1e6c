"""A report on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from simvq_audio.cli.console import print_problem

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from simvq_audio.evaluation.metric import MetricInfo
    from simvq_audio.evaluation.results import Report, SystemResult
    from simvq_audio.evaluation.statistics import Mean

# Beyond these a terminal is the wrong place.
_MAX_FOLDERS = 30
_MAX_NAMED = 10
# Of a column of means in the table of folders.
_COLUMN_WIDTH = 12
_ARROWS = {True: "↑", False: "↓", None: ""}


def print_report(report: Report) -> None:
    """Print means with their intervals, overall and by folder, tests, and what has no score."""
    from rich.console import Console

    console = Console()
    several = len(report.systems) > 1
    console.print(_overall(report))
    for system in report.systems:
        for table in _folders(report, system, console.width):
            console.print(table)
    if several:
        for system in report.systems[1:]:
            console.print(_tests(report, system))
    for system in report.systems:
        for line in _remarks(report, system):
            # As for other messages: file names may hold brackets.
            console.print(line, markup=False, emoji=False, soft_wrap=True)


def print_failures(report: Report) -> int:
    """Name on standard error each recording that failed, and return their number."""
    count = 0
    for system in report.systems:
        for name, reason in system.failures.items():
            place = name if len(report.systems) == 1 else f"{system.name}: {name}"
            print_problem("failed", f"{place}: {reason}")
            count += 1
    return count


def _overall(report: Report) -> Table:
    from simvq_audio.evaluation.statistics import means

    names = [metric.name for metric in report.metrics]
    table = _table("means over files, with 95 % intervals", "metric")
    found = []
    for system in report.systems:
        table.add_column(_plain(system.name), justify="right")
        found.append(means(system.files, names))
    for metric in report.metrics:
        cells = [_interval(of[metric.name], metric) if metric.name in of else "-" for of in found]
        table.add_row(_heading(metric), *cells)
    return table


def _folders(report: Report, system: SystemResult, width: int) -> Iterator[Table]:
    """Means by folder, in as many tables side by side as the metrics need."""
    from simvq_audio.evaluation.statistics import by_folder, means

    groups = by_folder(system)
    if not 2 < len(groups) <= _MAX_FOLDERS:
        return
    names = [metric.name for metric in report.metrics]
    found = {folder: means(files, names) for folder, files in groups.items()}
    label = max(len(folder) for folder in groups) + 10
    at_once = max(1, (width - label) // _COLUMN_WIDTH)
    for start in range(0, len(report.metrics), at_once):
        shown = report.metrics[start : start + at_once]
        title = "by folder, ± half of the interval"
        table = _table(f"{system.name}, {title}" if len(report.systems) > 1 else title, "folder")
        table.add_column("files", justify="right")
        for metric in shown:
            table.add_column(_heading(metric), justify="right")
        for folder, of in found.items():
            cells = [_half(of[m.name], m) if m.name in of else "-" for m in shown]
            table.add_row(_plain(folder), str(len(groups[folder])), *cells)
        yield table


def _tests(report: Report, system: SystemResult) -> Table:
    from simvq_audio.evaluation.statistics import paired_test, scores_of

    first = report.systems[0]
    table = _table(f"{system.name} minus {first.name}, on the files of both", "metric")
    for column in ("difference", "files", "p (Wilcoxon)"):
        table.add_column(column, justify="right")
    for metric in report.metrics:
        test = paired_test(
            scores_of(first.files, metric.name), scores_of(system.files, metric.name)
        )
        if test is not None:
            p_value = "-" if test.p_value is None else f"{test.p_value:.2g}"
            difference = _interval(test.difference, metric, "+")
            table.add_row(_heading(metric), difference, str(test.difference.count), p_value)
    return table


def _remarks(report: Report, system: SystemResult) -> Iterator[str]:
    rate = "" if system.kbps is None else f", {system.kbps:.3f} kbit/s"
    model = "" if system.fingerprint is None else f" {system.fingerprint}"
    yield f"{system.name}{model}: {len(system.files)} files scored{rate}"
    if system.delay:
        yield f"  delay removed: {system.delay} samples at {system.delay_rate} Hz"
    use = system.codebook.get("all")
    if use is not None:
        yield (
            f"  {use.frames} codes: {100 * use.utilisation:.1f} % of the {use.codebook_size} "
            f"entries used, perplexity {use.perplexity:.0f}, entropy {use.entropy:.2f} bits"
        )
    folders = {file.folder for file in system.files}
    if len(folders) > _MAX_FOLDERS - 1:
        yield f"  {len(folders)} folders: their means are in the report's files"
    for metric in report.metrics:
        reasons = {
            file.name: file.problems[metric.name]
            for file in system.files
            if metric.name in file.problems
        }
        if reasons:
            named = [f"{name} ({reason})" for name, reason in list(reasons.items())[:_MAX_NAMED]]
            more = len(reasons) - len(named)
            named += [f"and {more} more, named in the report's files"] * (more > 0)
            yield f"  no {metric.title} of {len(reasons)}: {', '.join(named)}"
    if system.failures:
        yield f"  {len(system.failures)} failed"


def _table(title: str, first: str) -> Table:
    from rich.table import Table

    table = Table(title=_plain(title), title_justify="left")
    table.add_column(first, overflow="fold")
    return table


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)


def _heading(metric: MetricInfo) -> Any:
    unit = f" ({metric.unit})" if metric.unit else ""
    arrow = _ARROWS[metric.higher_is_better]
    return _plain(f"{metric.title}{unit} {arrow}".rstrip())


def _interval(mean: Mean, metric: MetricInfo, sign: str = "") -> str:
    digits = metric.digits
    value = f"{mean.value:{sign}.{digits}f}"
    if mean.low is None or mean.high is None:
        return value
    return f"{value}  {mean.low:{sign}.{digits}f} … {mean.high:{sign}.{digits}f}"


def _half(mean: Mean, metric: MetricInfo) -> str:
    value = f"{mean.value:.{metric.digits}f}"
    if mean.low is None or mean.high is None:
        return value
    return f"{value} ±{(mean.high - mean.low) / 2:.{metric.digits}f}"

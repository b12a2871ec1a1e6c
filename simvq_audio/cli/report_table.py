"""Tables of a report on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from simvq_audio.cli.console import print_problem
from simvq_audio.evaluation.results import ALL

if TYPE_CHECKING:
    from rich.table import Table

    from simvq_audio.evaluation.metric import MetricInfo
    from simvq_audio.evaluation.results import Report, SystemResult
    from simvq_audio.evaluation.statistics import Mean

# Above these numbers, tables and lists are left to the report's files.
_MAX_FOLDERS = 30
_MAX_NAMED = 10
# Characters that a table draws between two columns, and around all columns.
_COLUMN_GAP, _EDGES = 3, 1
_ARROWS = {True: "↑", False: "↓", None: ""}


def print_report(report: Report) -> None:
    """Print means with their intervals, overall and by folder, tests, and missing scores."""
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
    """List the failed recordings on standard error; return their number."""
    count = 0
    for system in report.systems:
        for name, reason in system.failures.items():
            place = name if len(report.systems) == 1 else f"{system.name}: {name}"
            print_problem("failed", f"{place}: {reason}")
            count += 1
    return count


def _overall(report: Report) -> Table:
    table = _table("means over files, with 95 % intervals", "metric")
    found = []
    for system in report.systems:
        table.add_column(_plain(system.name), justify="right")
        found.append(report.summary.means[system.name][ALL])
    for metric in report.metrics:
        cells = [_interval(of[metric.name], metric) if metric.name in of else "-" for of in found]
        table.add_row(_plain(_heading(metric)), *cells)
    return table


def _folders(report: Report, system: SystemResult, width: int) -> Iterator[Table]:
    """Means by folder, in as many tables as fit the metrics to the width."""
    found = report.summary.means[system.name]
    if not 2 < len(found) <= _MAX_FOLDERS:
        return
    title = "by folder, ± half the interval"
    if len(report.systems) > 1:
        title = f"{system.name}, {title}"
    first = [list(found), [str(count) for count in report.summary.counts[system.name].values()]]
    columns = {
        metric: [
            _half(of[metric.name], metric) if metric.name in of else "-" for of in found.values()
        ]
        for metric in report.metrics
    }
    start = _width("folder", first[0]) + _width("files", first[1]) + _EDGES
    shown: list[MetricInfo] = []
    used = start
    for metric, cells in columns.items():
        needed = _width(_heading(metric, "\n"), cells)
        if shown and used + needed > width:
            yield _folder_table(title, first, {of: columns[of] for of in shown})
            shown, used = [], start
        shown.append(metric)
        used += needed
    if shown:
        yield _folder_table(title, first, {of: columns[of] for of in shown})


def _folder_table(
    title: str, first: list[list[str]], columns: dict[MetricInfo, list[str]]
) -> Table:
    table = _table(title, "folder")
    table.add_column("files", justify="right")
    for metric in columns:
        table.add_column(_plain(_heading(metric, "\n")), justify="right", no_wrap=True)
    for folder, *cells in zip(*first, *columns.values()):
        table.add_row(_plain(folder), *cells)
    return table


def _width(heading: str, cells: list[str]) -> int:
    return max(map(len, [*heading.splitlines(), *cells])) + _COLUMN_GAP


def _tests(report: Report, system: SystemResult) -> Table:
    first = report.systems[0]
    table = _table(f"{system.name} minus {first.name}, on the files of both", "metric")
    for column in ("difference", "files", "p (Wilcoxon)"):
        table.add_column(column, justify="right")
    for metric in report.metrics:
        test = report.summary.tests[system.name].get(metric.name)
        if test is not None:
            p_value = "-" if test.p_value is None else f"{test.p_value:.2g}"
            difference = _interval(test.difference, metric, "+")
            table.add_row(_plain(_heading(metric)), difference, str(test.difference.count), p_value)
    return table


def _remarks(report: Report, system: SystemResult) -> Iterator[str]:
    rate = "" if system.kbps is None else f", {system.kbps:.3f} kbit/s"
    model = "" if system.model_id is None else f" {system.model_id}"
    yield f"{system.name}{model}: {len(system.files)} files scored{rate}"
    if system.delay:
        yield f"  delay removed: {system.delay} samples at {system.delay_rate} Hz"
    use = system.codebook.get(ALL)
    if use is not None:
        yield (
            f"  {use.frames} codes: {100 * use.utilisation:.1f} % of the {use.codebook_size} "
            f"entries used, perplexity {use.perplexity:.0f}, entropy {use.entropy:.2f} bits"
        )
    folders = {file.folder for file in system.files}
    if len(folders) > _MAX_FOLDERS - 1:
        yield f"  {len(folders)} folders: see the report's files for their means"
    for metric in report.metrics:
        files_of: dict[str, list[str]] = {}
        for file in system.files:
            if metric.name in file.problems:
                files_of.setdefault(file.problems[metric.name], []).append(file.name)
        for reason, names in files_of.items():
            more = len(names) - _MAX_NAMED
            named = ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
            yield f"  {len(names)} without {metric.title} ({reason}): {named}"
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


def _heading(metric: MetricInfo, between: str = " ") -> str:
    unit = f"({metric.unit})" if metric.unit else ""
    details = f"{unit} {_ARROWS[metric.higher_is_better]}".strip()
    return f"{metric.title}{between}{details}" if details else metric.title


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

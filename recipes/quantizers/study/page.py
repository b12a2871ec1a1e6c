"""docs/quantizers.md, from its template and the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2

from simvq_audio.errors import ConfigError
from study.results import RunLog
from study.rows import CLAIMED, find_row, plan
from study.statistics import Interval, paired, perplexity_ratio
from study.tables import COLUMNS, interval, median_of, spaced, spread

TEMPLATE = Path(__file__).parents[1] / "page.md.j2"


def page(logs: Sequence[RunLog], survey: Sequence[RunLog] = (), template: Path = TEMPLATE) -> str:
    """The page as Markdown.

    Args:
        logs: the runs that sentences are about.
        survey: earlier runs, for tables.

    Raises:
        ConfigError: a sentence names runs that are missing, or says more than its interval does.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    numbers = _Numbers(logs)
    source = template.read_text(encoding="utf-8")
    return environment.from_string(source).render(
        mean=numbers.mean,
        seeds=numbers.seeds,
        ratio=numbers.ratio,
        difference=numbers.difference,
        not_run=numbers.not_run,
        last=numbers.last,
        at=numbers.live_at,
        survey=_Numbers(survey).mean,
        count=numbers.count,
        runs=len(logs),
        least=min(numbers.seeds(row, 8192) for row in CLAIMED),
        frames=spaced(max(log.use.frames for log in logs)),
        even=f"{100 * max(_even(log, 8192) for log in logs):.1f}",
    )


class _Numbers:
    """What the template asks for."""

    def __init__(self, logs: Sequence[RunLog]) -> None:
        self._logs = logs

    def mean(self, row: str, size: int, column: str, digits: int | None = None) -> str:
        """Mean ± standard deviation; a dash if the row was not run."""
        found = [COLUMNS[column].read(log) for log in self._of(row, size)]
        return spread(found, COLUMNS[column].digits if digits is None else digits) or "-"

    def seeds(self, row: str, size: int) -> int:
        """How many seeds the row has."""
        return len(self._of(row, size))

    def count(self, row: str, size: int) -> str:
        """The same in words."""
        return _seeds(self.seeds(row, size))

    def ratio(self, row: str, other: str, size: int, claim: str = "") -> str:
        """Ratio of corrected perplexities; ``claim`` is "more", "less" or "" for none."""
        found = perplexity_ratio(self._logs, row, other, size)
        return _checked(found, 1.0, claim, (row, other, size)) + _written(found, interval(found, 3))

    def difference(self, row: str, other: str, size: int, column: str, claim: str = "") -> str:
        """Paired difference of a column."""
        found = paired(self._logs, row, other, size, COLUMNS[column].read)
        text = interval(found, COLUMNS[column].digits, sign=True)
        return _checked(found, 0.0, claim, (row, other, size)) + _written(found, text)

    def last(self, row: str, size: int) -> list[str]:
        """Medians over seeds at the end: W's largest and smallest singular value, live dimensions
        of latents and codebook.
        """
        fields = (("w_largest", 1), ("w_smallest", 2), ("live_latent", 0), ("live_codebook", 0))
        points = [log.curve[-1] for log in self._of(row, size) if log.curve]
        return [median_of([getattr(p, name) for p in points], n) or "-" for name, n in fields]

    def live_at(self, row: str, size: int, step: int) -> str:
        """Median over seeds of the latents' live dimensions at a step."""
        points = [p for log in self._of(row, size) for p in log.curve if p.step == step]
        return median_of([point.live_latent for point in points], 0) or "-"

    def not_run(self) -> str:
        """A line for each row with missing runs: codebook sizes, with the number of seeds left."""
        done = {log.run for log in self._logs}
        missing: dict[str, dict[int, int]] = {}
        for run in plan(None, None, [0, 1, 2]):
            if run not in done:
                sizes = missing.setdefault(run.row, {})
                sizes[run.codebook_size] = sizes.get(run.codebook_size, 0) + 1
        return "\n".join(
            f"| `{name}` | "
            + ", ".join(f"{spaced(size)} ({count})" for size, count in sorted(sizes.items()))
            + " |"
            for name, sizes in missing.items()
        )

    def _of(self, row: str, size: int) -> list[RunLog]:
        find_row(row)
        return [log for log in self._logs if (log.run.row, log.run.codebook_size) == (row, size)]


def _even(log: RunLog, size: int) -> float:
    """The share of a codebook of this size that even use would reach in the frames of a log."""
    return 1 - (1 - 1 / size) ** log.use.frames


def _checked(found: Interval, even: float, claim: str, what: object) -> str:
    """Nothing, if the interval supports the claim."""
    supported = {"": True, "more": found.low > even, "less": found.high < even}
    if not supported[claim]:
        raise ConfigError(f"the page claims {claim!r} of {what}, which the runs do not support")
    return ""


def _written(found: Interval, text: str) -> str:
    return f"{text} ({_seeds(found.seeds)})"


def _seeds(number: int) -> str:
    return f"{number} seed{'' if number == 1 else 's'}"

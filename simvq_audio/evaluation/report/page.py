"""The report as a self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import AudioError, ConfigError, needs_extra
from simvq_audio.evaluation.metric import MetricInfo
from simvq_audio.evaluation.report import figures
from simvq_audio.evaluation.report.media import MAX_SECONDS, recording_media
from simvq_audio.evaluation.report.sections import (
    metric_section,
    summary_rows,
    tests,
    unscorable,
)
from simvq_audio.evaluation.results import ALL, FileResult, Report

_PACKAGE = "simvq_audio.evaluation.report"
_TEMPLATE = "page.html.j2"
_STYLE = "page.css"
_SCRIPTS = ("player.js", "card.js", "page.js")


def write_page(report: Report, out: Path, *, players: int = 40) -> None:
    """Write the page; it appears whole or not at all.

    The page includes the first 30 seconds of recordings and decoded files.

    Args:
        report: the results.
        out: the file, such as ``REPORT_DIR/index.html``.
        players: number of recordings to listen to, worst first by the first metric that has a
            direction; the others are listed with their scores.

    Raises:
        ConfigError: ``players`` is negative.
        MissingExtraError: jinja2, matplotlib or scipy is not installed.
        OSError: the file cannot be written.
    """
    if players < 0:
        raise ConfigError(f"players must be 0 or more, not {players}")
    template = _environment().get_template(_TEMPLATE)
    # In pieces, so that the sounds of all players are not in memory together.
    pieces = template.generate(_content(report, players))
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(pieces)


def _environment():
    with needs_extra("eval"):
        from jinja2 import Environment, PackageLoader, StrictUndefined
    environment = Environment(
        loader=PackageLoader(_PACKAGE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["signed"] = lambda value, digits: f"{value:+.{digits}f}"
    environment.filters["p_value"] = lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}"
    environment.filters["clock"] = _clock
    # A number that JSON lacks would stop the page's script.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _content(report: Report, players: int) -> dict[str, Any]:
    recordings = _recordings(report)
    order = worst_first(report, recordings)
    with_players = order[:players]
    uses = {s.name: s.codebook[ALL] for s in report.systems if ALL in s.codebook}
    scripts = [_text(name) for name in _SCRIPTS]
    return {
        "report": report,
        "systems": report.systems,
        "seconds": sum(next(iter(of.values())).duration for of in recordings.values()),
        "recording_count": len(recordings),
        "summary": summary_rows(report),
        "tests": tests(report),
        "metric_sections": [metric_section(report, metric) for metric in report.metrics],
        "codebook_figure": figures.svg(figures.codebook_usage(uses), "codebook") if uses else None,
        "unscorable": unscorable(report),
        "max_seconds": MAX_SECONDS,
        "player_metric": _directed(report),
        "without_players": len(recordings) - len(with_players),
        "data": _data(report, recordings, with_players),
        "media": _media(report, recordings, with_players),
        "style": _text(_STYLE),
        "scripts": scripts,
        "script_hashes": [_hash(script) for script in scripts],
    }


def _recordings(report: Report) -> dict[str, dict[str, FileResult]]:
    """Results by recording and system, sorted by name."""
    recordings: dict[str, dict[str, FileResult]] = {}
    for system in report.systems:
        for file in system.files:
            recordings.setdefault(file.name, {})[system.name] = file
    return dict(sorted(recordings.items()))


def _directed(report: Report) -> MetricInfo | None:
    return next((m for m in report.metrics if m.higher_is_better is not None), None)


def worst_first(report: Report, recordings: dict[str, dict[str, FileResult]]) -> list[str]:
    """Names sorted by the worst score of any system in the first metric with a direction.

    Recordings without a score come last.
    """
    metric = _directed(report)
    if metric is None:
        return list(recordings)
    sign = 1 if metric.higher_is_better else -1

    def badness(name: str) -> float:
        scores = [file.scores.get(metric.name) for file in recordings[name].values()]
        return min((sign * score for score in scores if score is not None), default=math.inf)

    return sorted(recordings, key=badness)


def _data(
    report: Report, recordings: dict[str, dict[str, FileResult]], with_players: list[str]
) -> dict[str, Any]:
    """Data for the page's script; scores by system, then by metric."""
    places = {name: index for index, name in enumerate(with_players)}
    return {
        "metrics": [asdict(metric) for metric in report.metrics],
        "systems": [system.name for system in report.systems],
        "recordings": [
            {
                "name": name,
                "folder": next(iter(of.values())).folder,
                "seconds": round(next(iter(of.values())).duration, 3),
                "media": places.get(name),
                "scores": [
                    [_score(of.get(system.name), metric.name) for metric in report.metrics]
                    for system in report.systems
                ],
                "problems": [
                    dict(of[system.name].problems) if system.name in of else {}
                    for system in report.systems
                ],
                "failures": [system.failures.get(name) for system in report.systems],
            }
            for name, of in recordings.items()
        ],
    }


def _score(file: FileResult | None, metric: str) -> float | None:
    return None if file is None else file.scores.get(metric)


def _media(
    report: Report, recordings: dict[str, dict[str, FileResult]], with_players: list[str]
) -> Iterator[dict[str, Any]]:
    for name in with_players:
        try:
            yield asdict(recording_media(recordings[name], report.systems))
        except AudioError as error:
            yield {"problem": str(error)}


def _text(name: str) -> str:
    return package_files(_PACKAGE).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """The hash of a script in the page's content security policy."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def _clock(seconds: float) -> str:
    """A readable duration."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60, 1)
    return f"{minutes:g} min" if minutes < 120 else f"{seconds / 3600:.1f} h"

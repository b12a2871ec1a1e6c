"""Reports as JSON, complete, and as CSV, for spreadsheets."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import SimvqAudioError
from simvq_audio.evaluation.metric import MetricInfo
from simvq_audio.evaluation.results import CodebookUse, FileResult, Report, SystemResult

FORMAT = 1


class ReportError(SimvqAudioError):
    """A file is not a report, or of another version."""


def report_to_json(report: Report) -> str:
    """The whole report as JSON.

    Has the fields of ``Report``, and statistics: ``summary`` (system, folder or "all", metric:
    mean, its interval, count) and ``paired_tests`` (system, metric: mean difference to the first
    system, its interval, count, Wilcoxon p-value).
    """
    summary = asdict(report.summary)
    content = {
        "format": FORMAT,
        **asdict(report),
        "summary": summary["means"],
        "paired_tests": summary["tests"],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def report_from_json(text: str | bytes) -> Report:
    """The report that ``report_to_json`` wrote.

    Raises:
        ReportError: the text is something else.
    """
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ReportError(
                f"the report has format {content['format']}, this version reads {FORMAT}; "
                "evaluate again"
            )
        return Report(
            tuple(MetricInfo(**metric) for metric in content["metrics"]),
            tuple(_system(system) for system in content["systems"]),
            content["protocol"],
            content["command"],
            content["machine"],
            content["versions"],
            content["created"],
        )
    except ReportError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"this is not a report of an evaluation ({error!r})") from error


def _system(content: dict[str, Any]) -> SystemResult:
    return SystemResult(
        **{
            **content,
            "files": tuple(FileResult(**file) for file in content["files"]),
            "codebook": {
                folder: CodebookUse(**{**use, "counts": tuple(use["counts"])})
                for folder, use in content["codebook"].items()
            },
        }
    )


def write_json(report: Report, path: Path) -> None:
    """Write the report; it appears whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    text = report_to_json(report)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(report: Report, path: Path) -> None:
    """Write a row for each file and system, and a column for each metric.

    Missing scores are empty; ``problems`` says why. A recording that failed has a row with the
    reason and no scores.

    Raises:
        OSError: the file cannot be written.
    """
    names = [metric.name for metric in report.metrics]
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["system", "file", "folder", "duration", *names, "problems", "failure"])
        for system in report.systems:
            for result in system.files:
                problems = "; ".join(f"{name}: {text}" for name, text in result.problems.items())
                writer.writerow(
                    [
                        system.name,
                        result.name,
                        result.folder,
                        result.duration,
                        *(result.scores.get(name, "") for name in names),
                        problems,
                        system.failures.get(result.name, ""),
                    ]
                )
            scored = {result.name for result in system.files}
            for name, reason in system.failures.items():
                if name not in scored:
                    blank = [""] * (len(names) + 3)
                    writer.writerow([system.name, name, *blank, reason])

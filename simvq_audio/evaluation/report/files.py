"""Reports as JSON, complete, and as CSV, for spreadsheets."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

from simvq_audio.atomic import atomic_path
from simvq_audio.evaluation.results import Report

FORMAT = 1


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

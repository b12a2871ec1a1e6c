"""Common to all evaluations: options, scoring of what the ledger lacks, and the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from simvq_audio.errors import ConfigError, failure_text
from simvq_audio.evaluation.ledger import Ledger, content_digest
from simvq_audio.evaluation.metric import Metric
from simvq_audio.evaluation.protocol import ScoringProtocol
from simvq_audio.evaluation.provenance import machine_description, package_versions
from simvq_audio.evaluation.recordings import Recordings
from simvq_audio.evaluation.results import FileResult, Report, SystemResult
from simvq_audio.evaluation.scoring import ScoringJob, job_key, score_all

LEDGER_NAME = "scores.jsonl"

ShowProgress = Callable[[str, float], AbstractContextManager[Callable[[float], None]]]


@contextmanager
def no_progress(label: str, total: float) -> Iterator[Callable[[float], None]]:
    """Show nothing."""
    yield lambda amount: None


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of an evaluation.

    Attributes:
        metrics: their classes, in the order of the report.
        protocol: how signals are prepared.
        jobs: processes for scoring.
        out: a folder, created if missing, for coded and decoded files and results, from which an
            interrupted evaluation is resumed; None keeps nothing.
        half: of the speakers, "choose" or "report"; None: all.
        only: folders below the evaluated one; empty: all.
        limit: number of recordings, spread evenly; None: all.
        command: the command line, for the report.
        progress: (label, total) -> context manager of a function to call with each amount
            done.

    Raises:
        ConfigError: a value is out of range.
    """

    metrics: tuple[type[Metric], ...]
    protocol: ScoringProtocol
    jobs: int = 1
    out: Path | None = None
    only: tuple[str, ...] = ()
    half: str | None = None
    limit: int | None = None
    command: str = ""
    progress: ShowProgress = field(default=no_progress)

    def __post_init__(self) -> None:
        if not self.metrics:
            raise ConfigError("there is no metric to score; name some with --metrics")
        if self.jobs < 1:
            raise ConfigError(f"jobs must be at least 1, not {self.jobs}")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit must be at least 1, not {self.limit}")

    def select(self, recordings: Recordings) -> Recordings:
        """Those to be evaluated, by ``half``, ``only`` and ``limit``.

        Raises:
            AudioError: a folder of ``only``, or the half, holds no recording.
            ConfigError: the speakers are not known.
        """
        return recordings.half(self.half).within(self.only).take(self.limit)

    def check_packages(self) -> None:
        """Check every metric and resample once, before hours of work.

        Raises:
            MissingExtraError: a metric or the protocol needs a package that is not installed.
            ModelError: a metric's weights are neither here nor to be downloaded.
        """
        for metric in self.metrics:
            metric.check()
        self.protocol.resample(np.zeros(160, np.float32), 16_000, 8_000)

    def open_ledger(self) -> Ledger:
        """Open the results of earlier runs.

        Raises:
            OSError: ``out`` cannot be made or written.
        """
        if self.out is None:
            return Ledger(None)
        self.out.mkdir(parents=True, exist_ok=True)
        return Ledger(self.out / LEDGER_NAME)


def digests_of(paths: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Digests of files by name, and why some cannot be read.

    Args:
        paths: by name.
    """
    digests: dict[str, str] = {}
    failures: dict[str, str] = {}
    for name, path in paths.items():
        try:
            digests[name] = content_digest(path)
        except OSError as error:
            failures[name] = failure_text(error, path)
    return digests, failures


@dataclass(frozen=True)
class Scored:
    """The scores of one system.

    Attributes:
        files: sorted by name.
        failures: recordings that could not be read, or on which a metric broke down, and why.
    """

    files: tuple[FileResult, ...]
    failures: dict[str, str]


def score_jobs(
    jobs: Sequence[ScoringJob],
    contents: Mapping[str, str],
    settings: EvaluationOptions,
    ledger: Ledger,
) -> dict[str, Scored]:
    """Score recordings whose scores are not in the ledger.

    Args:
        jobs: each with all metrics that are asked for.
        contents: digests of the audio files, by path.

    Returns:
        scores by system.
    """
    versions = {metric.name: package_versions((metric,)) for metric in settings.metrics}
    classes = {metric.name: metric for metric in settings.metrics}

    def score_key(job: ScoringJob, metric: str) -> dict[str, Any]:
        name = settings.protocol.name
        return job_key(job, classes[metric], contents, name, versions[metric])

    def duration_key(job: ScoringJob) -> dict[str, Any]:
        return {"kind": "duration", "recording": contents[job.reference]}

    to_do = []
    for job in jobs:
        unknown = tuple(name for name in job.metrics if ledger.find(score_key(job, name)) is None)
        if unknown or ledger.find(duration_key(job)) is None:
            to_do.append(replace(job, metrics=unknown))
    # Failures are not recorded: a later run may succeed.
    failed: dict[tuple[str, str], str] = {}
    broken: dict[tuple[str, str], dict[str, str]] = {}
    results = score_all(to_do, settings.metrics, settings.protocol, settings.jobs)
    with settings.progress("scoring", len(to_do)) as advance, closing(results):
        for job, scores in results:
            advance(1)
            if scores.failure is not None:
                failed[job.system, job.name] = scores.failure
                continue
            about = {"system": job.system, "name": job.name}
            broken[job.system, job.name] = scores.errors
            ledger.note(duration_key(job), scores.duration, kind="duration", **about)
            for metric in job.metrics:
                if metric in scores.scores:
                    finding: dict[str, Any] = {"score": scores.scores[metric]}
                elif metric in scores.errors:
                    continue
                else:
                    finding = {"problem": scores.problems[metric]}
                ledger.note(score_key(job, metric), finding, metric=metric, **about)
    files: defaultdict[str, list[FileResult]] = defaultdict(list)
    failures: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for job in sorted(jobs, key=lambda job: job.name):
        place = job.system, job.name
        if place in failed:
            failures[job.system][job.name] = failed[place]
            continue
        errors = broken.get(place, {})
        found = {
            name: ledger.find(score_key(job, name)) or {"problem": errors[name]}
            for name in job.metrics
        }
        files[job.system].append(
            FileResult(
                job.name,
                ledger.find(duration_key(job)),
                {name: row["score"] for name, row in found.items() if "score" in row},
                {name: row["problem"] for name, row in found.items() if "problem" in row},
                job.reference,
                job.decoded if job.keeps_decoded else None,
            )
        )
        if errors:
            failures[job.system][job.name] = "; ".join(
                f"{name} broke down: {text}" for name, text in errors.items()
            )
    systems = dict.fromkeys(job.system for job in jobs)
    return {name: Scored(tuple(files[name]), failures[name]) for name in systems}


def make_report(systems: Sequence[SystemResult], settings: EvaluationOptions) -> Report:
    """Make a report with the time and this machine."""
    return Report(
        tuple(metric.info() for metric in settings.metrics),
        tuple(systems),
        settings.protocol.name,
        settings.command,
        machine_description(),
        package_versions(settings.metrics),
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )

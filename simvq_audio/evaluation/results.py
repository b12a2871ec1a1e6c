"""Results of an evaluation and their statistics, which all reports render."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from simvq_audio.evaluation.metric import MetricInfo
from simvq_audio.evaluation.statistics import Mean, PairedTest, mean_interval, paired_test

# Key of the row over all recordings, beside those of folders.
ALL = "all"


def folder_of(name: str) -> str:
    """The folder that a recording is reported under."""
    folder = name.rpartition("/")[0] or "."
    return f"./{folder}" if folder == ALL else folder


@dataclass(frozen=True)
class FileResult:
    """One recording's scores.

    Attributes:
        name: its path below the evaluated folder, with "/" between folders.
        duration: seconds.
        scores: by metric name.
        problems: why a metric has no score, by metric name; every requested metric is here or in
            ``scores``.
        reference_path, decoded_path: of the audio, for players; decoded_path is None if it was not
            kept.
    """

    name: str
    duration: float
    scores: dict[str, float]
    problems: dict[str, str]
    reference_path: str
    decoded_path: str | None = None

    @property
    def folder(self) -> str:
        """The folder that it is reported under: its path without the name, "." at the top."""
        return folder_of(self.name)


@dataclass(frozen=True)
class CodebookUse:
    """Codes over a set of recordings.

    Attributes:
        codebook_size: number of entries.
        frames: number of codes counted.
        counts: how often each code occurred, most frequent first, without zeros.
        utilisation: share of entries that occurred, 0 to 1.
        perplexity: 2 to the entropy.
        entropy: bits per code.
    """

    codebook_size: int
    frames: int
    counts: tuple[int, ...]
    utilisation: float
    perplexity: float
    entropy: float


@dataclass(frozen=True)
class SystemResult:
    """One codec over all recordings.

    Attributes:
        name: in reports.
        files: sorted by name.
        kbps: of one channel, measured or given by the user; None if unknown.
        codebook: by folder, and under "all"; empty if its codes are not known.
        model_id: of this package's models.
        failures: recordings that could not be coded, read or paired, and why, by name.
        delay: samples of constant delay that were removed, at ``delay_rate`` Hz.
    """

    name: str
    files: tuple[FileResult, ...]
    kbps: float | None
    codebook: dict[str, CodebookUse]
    model_id: str | None
    failures: dict[str, str]
    delay: int = 0
    delay_rate: int | None = None

    def by_folder(self) -> dict[str, list[FileResult]]:
        """The recordings under "all" and under each folder, folders sorted.

        With a single folder there is "all" only.
        """
        groups = {ALL: list(self.files)}
        folders = sorted({file.folder for file in self.files})
        if len(folders) > 1:
            for folder in folders:
                groups[folder] = [file for file in self.files if file.folder == folder]
        return groups

    def scores(self, metric: str) -> dict[str, float]:
        """A metric's scores, by recording."""
        return scores_of(self.files, metric)


def scores_of(files: Sequence[FileResult], metric: str) -> dict[str, float]:
    """A metric's scores, by recording."""
    return {file.name: file.scores[metric] for file in files if metric in file.scores}


@dataclass(frozen=True)
class Summary:
    """The statistics of a report.

    Attributes:
        means: by system, folder ("all" first, then those of ``SystemResult.by_folder``) and metric,
            of metrics with a score there.
        counts: recordings, scored or not, by system and folder.
        tests: of each system but the first against the first, by system and metric, of metrics with
            common recordings.
    """

    means: Mapping[str, Mapping[str, Mapping[str, Mean]]]
    counts: Mapping[str, Mapping[str, int]]
    tests: Mapping[str, Mapping[str, PairedTest]]


def summarise(systems: Sequence[SystemResult], metrics: Sequence[str]) -> Summary:
    """Compute means with intervals, and tests.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    first, *others = systems
    groups = {system.name: system.by_folder() for system in systems}
    return Summary(
        {
            name: {
                folder: {
                    metric: mean_interval(list(values.values()))
                    for metric in metrics
                    if (values := scores_of(files, metric))
                }
                for folder, files in of.items()
            }
            for name, of in groups.items()
        },
        {name: {folder: len(files) for folder, files in of.items()} for name, of in groups.items()},
        {
            other.name: {
                metric: test
                for metric in metrics
                if (test := paired_test(first.scores(metric), other.scores(metric))) is not None
            }
            for other in others
        },
    )


@dataclass(frozen=True)
class Report:
    """An evaluation of one or more systems on the same recordings.

    Attributes:
        metrics: in the order of tables.
        systems: at least one.
        protocol: "default" or "simvq".
        command: the command line, as typed.
        machine: processor, cores, operating system.
        versions: of this package and of every package that computed a score, by name.
        created: ISO 8601, UTC.
    """

    metrics: tuple[MetricInfo, ...]
    systems: tuple[SystemResult, ...]
    protocol: str
    command: str
    machine: str
    versions: dict[str, str]
    created: str

    @cached_property
    def summary(self) -> Summary:
        """Its statistics, computed on first use.

        Raises:
            MissingExtraError: scipy is not installed.
        """
        return summarise(self.systems, [metric.name for metric in self.metrics])

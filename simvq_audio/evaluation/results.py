"""What an evaluation found: plain data, from which every report is made."""

from __future__ import annotations

from dataclasses import dataclass

from simvq_audio.evaluation.metric import MetricInfo

# What is said of all recordings together stands under this name, beside those of folders.
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
        problems: why a metric has no score, by metric name; each requested metric stands either
            here or in ``scores``.
        reference_path, decoded_path: where the audio lies, for players; decoded_path is None if
            it was not kept.
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
        counts: how often each code occurred, most frequent first, zeros left out; enough for a
            histogram, and no longer than the codes that are in use.
        utilisation: share of entries that occurred, 0 to 1.
        perplexity: 2 to the entropy.
        entropy: bits a code.
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
        name: what reports call it.
        files: sorted by name.
        kbps: kilobits a second of one channel, measured or stated by the user; None if unknown.
        codebook: by folder, and under "all"; empty if its codes are not known.
        model_id: of the model, if it is one of ours.
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


@dataclass(frozen=True)
class Report:
    """An evaluation of one or more systems on the same recordings.

    Attributes:
        metrics: in the order in which they are shown.
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

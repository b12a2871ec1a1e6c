"""The interface of metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from simvq_audio.errors import SimvqAudioError
from simvq_audio.evaluation.trial import Trial

# Other packages register metrics under this entry-point group.
ENTRY_POINT_GROUP = "simvq_audio.metrics"


class UnscorableError(SimvqAudioError):
    """A metric is not defined for a recording; the message says why.

    Such recordings are counted and listed, and are not part of means.
    """


@dataclass(frozen=True)
class MetricInfo:
    """A metric as reports describe it.

    Attributes:
        name: in files and on the command line, such as "pesq_wb".
        title: in tables, such as "PESQ-wb".
        unit: such as "dB"; empty for plain numbers.
        higher_is_better: None if neither is better.
        source: the standard, paper or package that defines it.
        sample_rate: of the comparison, in Hz; None: the recording's.
        digits: after the decimal point, in tables.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool | None
    source: str
    sample_rate: int | None
    digits: int


class Metric(ABC):
    """One number for one recording.

    A subclass sets the class attributes (those of ``MetricInfo``), imports what it needs in
    ``__init__`` (raising ``MissingExtraError`` if that is not installed), and defines ``score``.
    Each worker process makes one instance, without arguments.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool | None]
    source: ClassVar[str]
    sample_rate: ClassVar[int | None] = None
    digits: ClassVar[int] = 3
    needs_coding: ClassVar[bool] = False
    """Whether ``score`` reads ``trial.coding``, so that decoded files are not enough."""
    needs_reencoding: ClassVar[bool] = False
    """Whether ``score`` reads ``trial.coding.reencoded``, so that all is coded again."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions reports state, other than this package's dependencies. That of a
    registered class is added automatically."""

    @classmethod
    def check(cls) -> None:
        """Check that an instance can be made, before hours of work.

        By default one is made. Classes with large instances only look for packages and files.

        Raises:
            MissingExtraError: a package is not installed.
            ModelError: weights are missing and cannot be downloaded.
        """
        cls()

    @abstractmethod
    def score(self, trial: Trial) -> float:
        """Score one recording.

        Raises:
            UnscorableError: the metric is not defined for it.
        """

    @classmethod
    def info(cls) -> MetricInfo:
        """Describe the metric."""
        return MetricInfo(
            cls.name,
            cls.title,
            cls.unit,
            cls.higher_is_better,
            cls.source,
            cls.sample_rate,
            cls.digits,
        )

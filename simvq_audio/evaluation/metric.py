"""What a metric is, and where metrics are found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from simvq_audio.errors import SimvqAudioError
from simvq_audio.evaluation.trial import Trial

# Packages that bring metrics of their own name their classes under this entry-point group.
ENTRY_POINT_GROUP = "simvq_audio.metrics"


class UnscorableError(SimvqAudioError):
    """A metric is not defined for a recording; the message says why.

    Such a recording is counted and named. It never enters a mean.
    """


@dataclass(frozen=True)
class MetricInfo:
    """A metric as reports describe it.

    Attributes:
        name: the key in files and on the command line, such as "pesq_wb".
        title: for people, such as "PESQ-wb".
        unit: such as "dB"; empty for plain numbers.
        higher_is_better: None where neither is.
        source: the standard, paper or package that defines it.
        sample_rate: at which signals are compared, in Hz; None for the recording's own.
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
    Instances are made once a worker process, without arguments.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool | None]
    source: ClassVar[str]
    sample_rate: ClassVar[int | None] = None
    digits: ClassVar[int] = 3
    needs_coding: ClassVar[bool] = False
    """Whether ``score`` reads ``trial.coding``, so that decoded files alone are not enough."""
    needs_reencoding: ClassVar[bool] = False
    """Whether ``score`` reads ``trial.coding.reencoded``, so that all is coded once more."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions beyond this package's own dependencies that compute the score, for reports
    to state their versions; that of a third party's class is added by itself."""

    @classmethod
    def check(cls) -> None:
        """See that an instance can be made, before hours of work.

        By default one is made. A class whose instances take time or memory looks for packages and
        files alone.

        Raises:
            MissingExtraError: a package is not installed.
            ModelError: weights are neither here nor to be downloaded.
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

"""Quick metrics of known behaviour; worker processes import them by name."""

from __future__ import annotations

import os

import numpy as np

from simvq_audio.evaluation.metric import Metric, UnscorableError
from simvq_audio.evaluation.trial import Trial

# Recordings of these rates meet a fate of their own.
BREAKING_RATE, DEADLY_RATE, INFINITE_RATE = 11_025, 12_000, 32_000
CALLS = "FAKE_METRIC_CALLS"


class Difference(Metric):
    """Root mean square of the difference; notes its calls in the file that $CALLS names."""

    name = "difference"
    title = "Difference"
    higher_is_better = False
    source = "tests"

    def score(self, trial: Trial) -> float:
        if CALLS in os.environ:
            with open(os.environ[CALLS], "a") as file:
                file.write(f"{os.getpid()} {trial.sample_rate}\n")
        return float(np.sqrt(np.mean((trial.reference - trial.decoded) ** 2)))


class Loudness(Metric):
    """Root mean square of the original, of recordings of at least 0.3 s that are not silent."""

    name = "loudness"
    title = "Loudness"
    unit = "dB"
    higher_is_better = None
    source = "tests"

    def score(self, trial: Trial) -> float:
        if trial.duration < 0.3:
            raise UnscorableError("too short")
        if not trial.reference.any():
            raise UnscorableError("silent")
        return 10 * float(np.log10(np.mean(trial.reference**2)))


class FileBytes(Metric):
    """Size of the file of codes."""

    name = "file_bytes"
    title = "Size"
    unit = "bytes"
    higher_is_better = False
    source = "tests"
    needs_coding = True
    needs_reencoding = True

    def score(self, trial: Trial) -> float:
        assert trial.coding.reencoded.shape == trial.coding.indices.shape
        assert trial.coding.encode_seconds > 0 and trial.coding.decode_seconds > 0
        return trial.coding.file_bytes


class Treacherous(Metric):
    """Breaks down, gives infinity, or ends its process, by the rate of the recording."""

    name = "treacherous"
    title = "Treacherous"
    higher_is_better = True
    source = "tests"

    def score(self, trial: Trial) -> float:
        if trial.sample_rate == BREAKING_RATE:
            raise ZeroDivisionError("by nothing")
        if trial.sample_rate == DEADLY_RATE:
            os._exit(9)
        return float("inf") if trial.sample_rate == INFINITE_RATE else 1.0


class Unavailable(Metric):
    """Needs what is not installed."""

    name = "unavailable"
    title = "Unavailable"
    higher_is_better = True
    source = "tests"

    def __init__(self) -> None:
        from simvq_audio.errors import MissingExtraError

        raise MissingExtraError("nothing is not installed; it comes with: pip install something")

    def score(self, trial: Trial) -> float:
        raise AssertionError

"""What turns a metric's failures into exceptions, so that none passes for a score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from simvq_audio.errors import MissingExtraError
from simvq_audio.evaluation.metric import UnscorableError


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around imports that an extra of this package brings.

    Raises:
        MissingExtraError: one of them fails.
    """
    try:
        yield
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            problem = f"{error.name} is not installed; it comes"
        else:
            problem = f"a package cannot be imported ({error}); what is needed comes"
        raise MissingExtraError(f"{problem} with: pip install 'simvq-audio[{extra}]'") from error


def audible(reference: np.ndarray, decoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both waveforms, if neither is digital silence.

    Raises:
        UnscorableError: one is, or is empty.
    """
    for waveform, name in ((reference, "original"), (decoded, "decoded recording")):
        if not waveform.any():
            raise UnscorableError(f"the {name} is {'silent' if len(waveform) else 'empty'}")
    return reference, decoded


def finite(value: float) -> float:
    """The value, if it is a number.

    Raises:
        UnscorableError: it is infinite or none.
    """
    value = float(value)
    if not np.isfinite(value):
        raise UnscorableError(f"the result is {value}")
    return value

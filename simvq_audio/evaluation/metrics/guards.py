"""Checks that turn a metric's failures into exceptions."""

from __future__ import annotations

import numpy as np

from simvq_audio.evaluation.metric import UnscorableError


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
    """The value, if it is finite.

    Raises:
        UnscorableError: it is infinite or NaN.
    """
    value = float(value)
    if not np.isfinite(value):
        raise UnscorableError(f"the result is {value}")
    return value

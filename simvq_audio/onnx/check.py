"""Compares the graphs with PyTorch; the one module of ``simvq_audio.onnx`` that needs torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simvq_audio.audio import read_audio
from simvq_audio.codec import Codec
from simvq_audio.errors import ModelError
from simvq_audio.onnx import codec as onnx_codec

# Larger differences are not due to rounding: the graphs compute something else.
MOST_CODES = 1e-3
MOST_SAMPLE = 1e-4


@dataclass(frozen=True)
class Comparison:
    """Differences between the graphs and PyTorch.

    Attributes:
        codes: how many were compared.
        differing: how many of them are others.
        sample: the largest difference of a sample, decoded from equal codes; full scale is 1.
    """

    codes: int
    differing: int
    sample: float

    def __str__(self) -> str:
        return (
            f"{self.differing} of {self.codes} codes differ from PyTorch's "
            f"({self.differing / max(1, self.codes):.4%}), samples by at most {self.sample:.1e}"
        )


def compare(
    reference: Codec, exported: onnx_codec.Codec, recordings: Iterable[str | Path] = ()
) -> Comparison:
    """Encode and decode recordings with both; by default ten seconds of pulses and noise.

    Raises:
        ModelError: more than 0.1 % of the codes or a sample by more than 1e-4 differ.
        AudioError: a recording cannot be read.
    """
    waveforms = [read_audio(path) for path in recordings]
    if not waveforms:
        waveforms = [(_pulses_and_noise(reference.sample_rate), reference.sample_rate)]
    total = differing = 0
    sample = 0.0
    for waveform, sample_rate in waveforms:
        expected = reference.encode(waveform, sample_rate)
        found = exported.encode(waveform, sample_rate)
        total += expected.indices.size
        differing += int((expected.indices != found.indices).sum())
        decoded = reference.decode(expected).numpy(), exported.decode(expected)
        sample = max(sample, float(np.abs(decoded[0] - decoded[1]).max(initial=0.0)))
    result = Comparison(total, differing, sample)
    if differing > MOST_CODES * total or not sample <= MOST_SAMPLE:
        raise ModelError(f"the exported graphs do not compute what the model does: {result}")
    return result


def _pulses_and_noise(sample_rate: int) -> np.ndarray:
    """(1, samples): pulses of rising pitch and level, and noise."""
    random = np.random.default_rng(0)
    time = np.arange(10 * sample_rate) / sample_rate
    phase = np.cumsum(90 + 20 * time) / sample_rate
    pulses = np.exp(-40 * (phase % 1)) - 0.025
    level = 0.02 + 0.3 * np.abs(np.sin(2 * np.pi * 0.7 * time))
    return (level * (pulses + 0.05 * random.standard_normal(len(time))))[np.newaxis].astype("f4")

"""A recording and its decoded version, as metrics see them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from simvq_audio.audio import resample

Result = TypeVar("Result")


def resample_mono(waveform: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """(samples,) float32 at ``rate`` Hz -> (samples',) at ``new_rate`` Hz, by this package."""
    return resample(waveform[None], rate, new_rate)[0]


@dataclass(frozen=True)
class CodingRecord:
    """How a recording was coded; unknown for decoded files of other codecs.

    Attributes:
        indices: (channels, frames) int32 codes, or (channels, codebooks, frames).
        codebook_size: number of entries; a tuple for several codebooks.
        payload_bits: bits that carry codes, over all channels.
        file_bytes: the whole file, header included.
        encode_seconds, decode_seconds: wall time, without loading the model.
        reencoded: (channels, frames) codes of the decoded waveform, if it was encoded again, or
            None.
    """

    indices: np.ndarray
    codebook_size: int | tuple[int, ...]
    payload_bits: int
    file_bytes: int
    encode_seconds: float
    decode_seconds: float
    reencoded: np.ndarray | None = None


@dataclass(frozen=True)
class Trial:
    """One channel of a recording, original and decoded, for a metric to score.

    Attributes:
        reference, decoded: (samples,) float32, full scale 1, of one length and without delay.
        sample_rate: of both, in Hz.
        resample: (waveform (samples,), rate, new rate) -> (samples',), the protocol's resampler.
        coding: how the recording was coded, if known.
    """

    reference: np.ndarray
    decoded: np.ndarray
    sample_rate: int
    resample: Callable[[np.ndarray, int, int], np.ndarray] = resample_mono
    coding: CodingRecord | None = None
    _kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.reference) / self.sample_rate

    def at(self, sample_rate: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Reference and decoded waveform at a rate in Hz; None: the recording's."""
        if sample_rate is None or sample_rate == self.sample_rate:
            return self.reference, self.decoded
        return self.once(
            ("at", sample_rate),
            lambda: (
                self.resample(self.reference, self.sample_rate, sample_rate),
                self.resample(self.decoded, self.sample_rate, sample_rate),
            ),
        )

    def once(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """The result of ``compute``, computed once per key, such as pitch tracks for several
        metrics.
        """
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]

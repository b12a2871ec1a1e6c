"""Bit rate, speed and stability of a codec, all per channel."""

from __future__ import annotations

import numpy as np

from simvq_audio.evaluation.metric import Metric, UnscorableError
from simvq_audio.evaluation.metrics.guards import finite
from simvq_audio.evaluation.trial import CodingRecord, Trial


class _CodesMetric(Metric):
    source = "simvq-audio"
    needs_coding = True

    def score(self, trial: Trial) -> float:
        """Computed from how the recording was coded."""
        if trial.coding is None:
            raise UnscorableError("known only of codecs that are run here")
        # Seconds of one channel times channels: what was coded.
        seconds = trial.duration * len(trial.coding.indices)
        if not seconds:
            raise UnscorableError("the original is empty")
        return finite(self._score(trial.coding, seconds))

    def _score(self, coding: CodingRecord, seconds: float) -> float:
        raise NotImplementedError


class _BitRate(_CodesMetric):
    unit = "kbit/s"
    higher_is_better = False


class PayloadRate(_BitRate):
    """Bits of the codes per second of one channel."""

    name = "kbps"
    title = "Bit rate"

    def _score(self, coding: CodingRecord, seconds: float) -> float:
        return coding.payload_bits / seconds / 1000


class FileRate(_BitRate):
    """Bits of the whole file, with its header, per second of one channel."""

    name = "kbps_file"
    title = "Bit rate with header"

    def _score(self, coding: CodingRecord, seconds: float) -> float:
        return 8 * coding.file_bytes / seconds / 1000


class _Speed(_CodesMetric):
    unit = "x real time"
    higher_is_better = True
    digits = 1


class EncodeSpeed(_Speed):
    """Seconds of audio encoded per second."""

    name = "encode_speed"
    title = "Encoding speed"

    def _score(self, coding: CodingRecord, seconds: float) -> float:
        return np.divide(seconds, coding.encode_seconds)


class DecodeSpeed(_Speed):
    """Seconds of audio decoded per second."""

    name = "decode_speed"
    title = "Decoding speed"

    def _score(self, coding: CodingRecord, seconds: float) -> float:
        return np.divide(seconds, coding.decode_seconds)


class Stability(_CodesMetric):
    """Share of codes that are the same after decoding and encoding again.

    Codes beyond the end of a shorter second coding count as different.
    """

    name = "stability"
    title = "Codes kept"
    unit = "%"
    higher_is_better = True
    digits = 1
    needs_reencoding = True

    def _score(self, coding: CodingRecord, seconds: float) -> float:
        if coding.reencoded is None:
            raise UnscorableError("the decoded recording was not encoded again")
        frames = min(coding.indices.shape[-1], coding.reencoded.shape[-1])
        kept = coding.indices[..., :frames] == coding.reencoded[..., :frames]
        if not coding.indices.size:
            raise UnscorableError("there are no codes")
        return 100 * kept.sum() / coding.indices.size

"""Reading, writing and resampling of recordings, block by block in constant memory."""

from __future__ import annotations

from simvq_audio.audio.files import (
    AUDIO_SUFFIXES,
    AudioReader,
    AudioWriter,
    output_format,
    read_audio,
)
from simvq_audio.audio.resample import (
    Resampler,
    resample,
    resampled_length,
    resampling_latency,
)

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioReader",
    "AudioWriter",
    "Resampler",
    "output_format",
    "read_audio",
    "resample",
    "resampled_length",
    "resampling_latency",
]

"""Preparation of signals for scoring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simvq_audio.errors import ConfigError, needs_extra
from simvq_audio.evaluation.trial import resample_mono

RESAMPLERS = ("soxr", "torchaudio")


@dataclass(frozen=True)
class ScoringProtocol:
    """Preparation of decoded audio, and the resampler to a metric's sample rate.

    Both protocols leave originals unchanged, score whole utterances, cut to the shorter of original
    and decoded, and report means over files.

    Attributes:
        name: in reports and on the command line.
        resampler: "soxr" (this package's) or "torchaudio" (``torchaudio.functional.resample`` with
            its defaults).
        limit: decoded samples are clipped to plus and minus this.
        pcm16: whether decoded samples are rounded to 16 bits, as by a file.
    """

    name: str
    resampler: str
    limit: float
    pcm16: bool

    def __post_init__(self) -> None:
        if self.resampler not in RESAMPLERS:
            raise ConfigError(f"resampler must be one of {', '.join(RESAMPLERS)}")
        if not 0 < self.limit <= 1:
            raise ConfigError("limit must be above 0 and at most 1")

    def prepare(self, decoded: np.ndarray) -> np.ndarray:
        """Prepare a decoded waveform, any shape, float32, for scoring."""
        clipped = np.clip(decoded, -self.limit, self.limit)
        if not self.pcm16:
            return clipped
        full_scale = np.float32(2**15)
        return np.minimum(np.rint(clipped * full_scale), full_scale - 1) / full_scale

    def resample(self, waveform: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
        """(samples,) float32 at ``rate`` Hz -> (samples',) at ``new_rate``, for ``Trial.resample``.

        Raises:
            MissingExtraError: torchaudio is needed and not installed.
        """
        if self.resampler == "soxr":
            return resample_mono(waveform, rate, new_rate)
        with needs_extra("crepe"):
            from torchaudio.functional import resample
        import torch

        # torchaudio refuses negative strides and read-only arrays.
        return resample(torch.from_numpy(np.array(waveform)), rate, new_rate).numpy()


DEFAULT = ScoringProtocol("default", resampler="soxr", limit=1.0, pcm16=False)
"""As heard from the decoder: clipped to full scale, as every player does."""

SIMVQ = ScoringProtocol("simvq", resampler="torchaudio", limit=0.99, pcm16=True)
"""As the tables of SimVQ (arXiv 2411.02038) were made.

Source: evaluation_speech.py of github.com/youngsheen/SimVQ. Reconstructions are clipped to 0.99,
written as 16-bit PCM at 24 kHz and read back; ``torchaudio.functional.resample`` converts to 16 kHz
for PESQ-wb, UTMOS and V/UV F1; STOI, not extended, gets the file's rate. WavTokenizer's
(arXiv 2408.16532; metrics/infer.py and infer.py of github.com/jishengpeng/WavTokenizer) differs
in one point: it clips at full scale. For comparison with those papers, use the metrics pesq_wb,
stoi, vuv_f1_crepe and utmos, and recordings at 24 kHz.

One difference is intended: the published code counts failures of PESQ as -1 in the mean; here they
are listed instead. In both, recordings without voicing are not part of the mean of F1.
"""

PROTOCOLS = {protocol.name: protocol for protocol in (DEFAULT, SIMVQ)}


def find_protocol(name: str) -> ScoringProtocol:
    """The protocol of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"there is no protocol {name}; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]

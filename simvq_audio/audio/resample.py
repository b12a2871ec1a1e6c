"""Sample rate conversion of streams and of whole waveforms."""

from __future__ import annotations

from functools import cache

import numpy as np

from simvq_audio.errors import AudioError

# The range covered by tests. Other rates are those of damaged headers; one that claims 2 GHz must
# not make a filter of that size.
MIN_RATE = 1_000
MAX_RATE = 768_000

# Computed in double precision, and as fast as "HQ" on one core.
_QUALITY = "VHQ"


def resampled_length(num_samples: int, in_rate: int, out_rate: int) -> int:
    """Length in samples that ``num_samples`` at ``in_rate`` have at ``out_rate``, rounded up."""
    # Integers: a float quotient is off by one for some lengths of many hours.
    return -(-num_samples * out_rate // in_rate)


@cache
def resampling_latency(in_rate: int, out_rate: int) -> float:
    """Seconds of input that a ``Resampler`` holds back at most; 0 for equal rates.

    soxr works in blocks, so this is more than the delay of its filter. It is measured, since soxr
    does not report it.

    Raises:
        AudioError: a rate is out of range.
    """
    if in_rate == out_rate:
        return 0.0
    resampler = Resampler(in_rate, out_rate, 1)
    step = max(1, in_rate // 1000)
    silence = np.zeros((step, 1), np.float32)
    received = produced = 0
    most = 0.0
    # Filters grow as rates fall; two seconds hold several blocks at any rate.
    while received < 2 * in_rate:
        received += step
        most = max(most, received / in_rate - produced / out_rate)
        produced += len(resampler.push(silence))
    return most


class Resampler:
    """Convert a stream from one sample rate to another, without delay.

    Output sample ``i`` is at the input's time ``i / out_rate``, and the whole output has
    ``resampled_length(total_in, in_rate, out_rate)`` samples. Neither length nor values depend on
    how the input is cut into blocks. The input is preceded and followed by silence. With equal
    rates the blocks are passed on.

    Args:
        in_rate: sample rate of the input, Hz, 1 kHz to 768 kHz.
        out_rate: sample rate of the output, Hz, 1 kHz to 768 kHz.
        channels: number of channels of every block.

    Raises:
        AudioError: a rate is out of range.
    """

    def __init__(self, in_rate: int, out_rate: int, channels: int) -> None:
        for rate in (in_rate, out_rate):
            if not isinstance(rate, (int, np.integer)):
                raise AudioError(f"a sample rate must be a whole number of Hz, not {rate!r}")
            if not MIN_RATE <= rate <= MAX_RATE:
                raise AudioError(
                    f"a sample rate of {rate} Hz cannot be converted; "
                    f"it must be {MIN_RATE} to {MAX_RATE} Hz"
                )
        self.in_rate = int(in_rate)
        self.out_rate = int(out_rate)
        self.channels = channels
        self._received = 0
        self._produced = 0
        self._finished = False
        self._stream = None
        if in_rate != out_rate:
            # Imported here, so that reading a file header does not need it.
            import soxr

            self._stream = soxr.ResampleStream(
                self.in_rate, self.out_rate, channels, dtype="float32", quality=_QUALITY
            )

    def push(self, block: np.ndarray, final: bool = False) -> np.ndarray:
        """Append a block; return the output that is ready.

        Args:
            block: float32, shape (samples, channels); zero samples are allowed.
            final: True with the last block, which may be empty.

        Returns:
            float32, shape (samples, channels); often zero samples, since the filter looks some
            milliseconds ahead.

        Raises:
            AudioError: the shape is wrong, or the stream had ended.
        """
        if self._finished:
            raise AudioError("the resampler had its final block; make a new one")
        if block.ndim != 2 or block.shape[1] != self.channels:
            raise AudioError(
                f"a block must have the shape (samples, {self.channels}), not {block.shape}"
            )
        block = np.ascontiguousarray(block, dtype=np.float32)
        self._received += len(block)
        self._finished = final
        if self._stream is None:
            return block
        if not final:
            output = self._stream.resample_chunk(block)
            self._produced += len(output)
            return output
        # soxr rounds the length of the stream to the nearest sample, so that 50 samples from
        # 44.1 to 24 kHz give 27, and one sample from 384 to 1 kHz gives none. Some silence
        # behind the input makes it produce the samples up to the rounded-up length, with
        # their true values; what goes beyond is cut. The silence stands for four output samples.
        silence = -(-4 * self.in_rate // self.out_rate)
        padded = np.concatenate([block, np.zeros((silence, self.channels), np.float32)])
        output = self._stream.resample_chunk(padded, last=True)
        total = resampled_length(self._received, self.in_rate, self.out_rate)
        output = output[: total - self._produced]
        self._produced += len(output)
        return output


def resample(
    waveform: np.ndarray, in_rate: int, out_rate: int, num_samples: int | None = None
) -> np.ndarray:
    """Convert a whole waveform from one sample rate to another.

    Args:
        waveform: float32, shape (channels, samples).
        in_rate: its sample rate, Hz.
        out_rate: the sample rate wanted, Hz.
        num_samples: cut the result, or extend it with silence, to this length. By default it
            has ``resampled_length(samples, in_rate, out_rate)`` samples.

    Returns:
        float32, shape (channels, samples at ``out_rate``). With equal rates it can share its
        memory with ``waveform``.

    Raises:
        AudioError: a rate is out of range, or the waveform has another number of dimensions.
    """
    if waveform.ndim != 2:
        raise AudioError(
            f"a waveform must have the shape (channels, samples), not {waveform.shape}"
        )
    resampler = Resampler(in_rate, out_rate, channels=waveform.shape[0])
    output = resampler.push(waveform.T, final=True).T
    if num_samples is not None:
        output = output[:, :num_samples]
        output = np.pad(output, ((0, 0), (0, num_samples - output.shape[1])))
    return np.ascontiguousarray(output)

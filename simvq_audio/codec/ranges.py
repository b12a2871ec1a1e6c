"""Decoding of a part of a recording, from only the codes that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, gcd, lcm
from typing import TYPE_CHECKING

import numpy as np

from simvq_audio.audio import Resampler
from simvq_audio.bitstream import Codes, CodesFile
from simvq_audio.errors import ConfigError

if TYPE_CHECKING:
    from simvq_audio.codec.codec import Codec

# What the resampler's filter reaches to either side, in samples of the lower rate: from 200 on the
# result is the same to the bit at all rates but those that share hardly a factor.
_REACH = 256


def samples_between(start: float, end: float | None, rate: int, samples: int) -> tuple[int, int]:
    """The first sample of a part of a recording, and the one after its last.

    Args:
        start, end: in seconds; an end beyond the recording, or None, is its own.
        rate, samples: of the recording.

    Raises:
        ConfigError: the part is empty, or begins outside the recording.
    """
    duration = samples / rate
    if not 0 <= start <= duration:
        raise ConfigError(
            f"the recording is {duration:.3f} s long, so a part of it cannot begin at {start:g} s"
        )
    first, last = round(start * rate), samples if end is None else round(min(end, duration) * rate)
    if last <= first and (samples or end is not None):
        raise ConfigError(
            f"there is nothing from {start:g} s to {duration if end is None else end:g} s"
        )
    return first, last


def decode_part(
    codec: Codec, codes: Codes | CodesFile, first: int, last: int, native_rate: bool
) -> Iterator[np.ndarray]:
    """Decode samples ``first`` to ``last`` of what ``codes`` are decoded to, block by block.

    The samples are those of the whole recording if the decoder's receptive field is finite.

    Yields:
        (samples, channels) float32.
    """
    rate, _ = codec._output(codes, native_rate)
    own_rate, hop = codec.sample_rate, codec.hop_length
    reach = 0 if rate == own_rate else ceil(_REACH * own_rate / min(own_rate, rate))
    # The resampler begins where a frame begins and samples of both rates coincide.
    period = lcm(hop, own_rate // gcd(own_rate, rate))
    begin = max(0, first * own_rate // rate - reach) // period * period
    finish = min(codec._native_samples(codes), -(-last * own_rate // rate) + reach)
    context = codec._model.decoder.context_frames
    start_frame = max(0, begin // hop - context)
    end_frame = min(codes.num_frames, -(-finish // hop) + context)
    indices = (
        codes.read(start_frame, end_frame)
        if isinstance(codes, CodesFile)
        else codes.indices[..., start_frame:end_frame]
    )
    decoder = codec._decoder(own_rate, codes.channels, wait=True)
    resampler = Resampler(own_rate, rate, codes.channels)
    native = _Window(begin - start_frame * hop, finish - begin)
    output = _Window(first - begin * rate // own_rate, last - first)
    step = codec._chunk_frames(codes.channels)
    for start in range(0, indices.shape[-1], step):
        samples = native.take(decoder.push(indices[..., start : start + step]).T)
        block = output.take(resampler.push(samples))
        if block.size:
            yield block
    samples = native.take(decoder.finish().T)
    block = output.take(resampler.push(samples, final=True))
    if block.size:
        yield block


class _Window:
    """Cuts ``length`` rows out of a stream of blocks, behind ``skip`` rows."""

    def __init__(self, skip: int, length: int) -> None:
        self._skip = skip
        self._length = length

    def take(self, block: np.ndarray) -> np.ndarray:
        """The part of the next block that lies in the window."""
        skipped = min(self._skip, len(block))
        self._skip -= skipped
        block = block[skipped : skipped + self._length]
        self._length -= len(block)
        return block

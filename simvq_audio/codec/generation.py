"""Codes that were never spoken: speech made up, continued, or put into a gap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simvq_audio.bitstream import Codes
from simvq_audio.codec.ranges import samples_between
from simvq_audio.errors import CodesError, ConfigError
from simvq_audio.prior.masked import masked_prior_for_codes

if TYPE_CHECKING:
    from simvq_audio.codec.codec import Codec
    from simvq_audio.prior.masked.sampling import Sampling

MAX_SECONDS = 600.0


def generate(codec: Codec, seconds: float, *, seed: int = 0, how: Sampling | None = None) -> Codes:
    """Make up speech: babble without words.

    Args:
        seconds: of one channel, rounded up to whole frames; at most 600.
        seed: equal seeds give equal codes on one machine.
        how: None: the default ``Sampling``.

    Raises:
        ConfigError: there is no masked prior for the codec, or no such length.
    """
    frames = _frames(codec, seconds)
    nothing = np.zeros((1, frames), np.int64)
    return codec.codes_from_indices(_drawn(codec, nothing, nothing == 0, seed, how))


def continue_codes(
    codec: Codec, prompt: Codes, seconds: float, *, seed: int = 0, how: Sampling | None = None
) -> Codes:
    """Append made-up speech to a recording; the result has the model's sample rate.

    Args:
        seconds: to append.
        seed, how: as for ``generate``.

    Raises:
        CodesError: the codes are of another model.
        ConfigError: as for ``generate``.
    """
    _check(codec, prompt)
    added = np.zeros((prompt.channels, _frames(codec, seconds)), np.int64)
    indices = np.concatenate([prompt.indices, added], axis=1)
    hidden = np.zeros(indices.shape, bool)
    hidden[:, prompt.num_frames :] = True
    return codec.codes_from_indices(_drawn(codec, indices, hidden, seed, how))


def infill(
    codec: Codec,
    codes: Codes,
    start: float,
    end: float,
    *,
    seed: int = 0,
    how: Sampling | None = None,
) -> Codes:
    """Replace a part of a recording by made-up speech that joins both sides.

    Args:
        start, end: in seconds.
        seed, how: as for ``generate``.

    Raises:
        CodesError: the codes are of another model.
        ConfigError: as for ``generate``, or there is no such part.
    """
    _check(codec, codes)
    first, last = samples_between(start, end, *codec._output(codes, native_rate=True))
    hidden = np.zeros(codes.indices.shape, bool)
    hidden[:, first // codec.hop_length : -(-last // codec.hop_length)] = True
    indices = _drawn(codec, codes.indices, hidden, seed, how)
    return Codes(indices, codes.codebook_size, codes.codes_id, codes.sample_rate, codes.num_samples)


def _check(codec: Codec, codes: Codes) -> None:
    codec.check(codes)
    if codes.codes_id != codec.codes_id or len(codes.codebook_sizes) > 1:
        raise CodesError("speech is generated with the codes of the full codebook only")


def _frames(codec: Codec, seconds: float) -> int:
    if not 0 < seconds <= MAX_SECONDS:
        raise ConfigError(f"{seconds:g} s cannot be generated; give 0 to {MAX_SECONDS:g} s")
    return int(np.ceil(seconds * codec.frame_rate))


def _drawn(
    codec: Codec, indices: np.ndarray, hidden: np.ndarray, seed: int, how: Sampling | None
) -> np.ndarray:
    from simvq_audio.prior.masked.sampling import Sampling, sample

    prior = masked_prior_for_codes(codec.codes_id, str(codec.device))
    if prior is None:
        raise ConfigError(
            f"there is no masked prior for the codes of {codec.name}; use the embedded model"
        )
    how = how or Sampling()
    rows = [
        sample(prior, codes, gone, how, seed + channel)
        for channel, (codes, gone) in enumerate(zip(indices, hidden))
    ]
    return np.stack(rows)

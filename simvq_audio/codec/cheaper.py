"""Encoding at a lower bit rate: codes near the latents that the prior makes cheap."""

from __future__ import annotations

import math

import numpy as np

from simvq_audio.bitstream import Codes
from simvq_audio.bitstream.blocks import BLOCK_FRAMES, encode_blocks
from simvq_audio.errors import ConfigError
from simvq_audio.prior import CausalPrior, prior_for_codes
from simvq_audio.prior.search import cheaper_codes

# What a bit is worth at least and at most, as a share of the codebook's variance.
_LEAST, _MOST = 1e-4, 1.0
# A rate this little below the one asked for is good enough.
_TOLERANCE = 0.02
_TRIALS = 8


def prior_for_rate(codes_id: str) -> CausalPrior:
    """The prior that says which codes are cheap.

    Raises:
        ConfigError: there is none for this model.
    """
    prior = prior_for_codes(codes_id)
    if prior is None:
        raise ConfigError("this model has no prior, so that its bit rate cannot be chosen")
    return prior


def joined(pieces: list[np.ndarray]) -> np.ndarray:
    """Latents in pieces of (channels, dim, frames) as (channels, frames, dim)."""
    return np.ascontiguousarray(np.concatenate(pieces, axis=2).transpose(0, 2, 1))


def at_weight(
    latents: np.ndarray, codebook: np.ndarray, prior: CausalPrior, weight: float
) -> np.ndarray:
    """Indices (channels, frames) for latents (channels, frames, dim); see ``cheaper_codes``."""
    spans = range(0, latents.shape[1], BLOCK_FRAMES)
    blocks = [channel[start : start + BLOCK_FRAMES] for channel in latents for start in spans]
    if not blocks:
        return np.empty(latents.shape[:2], np.int64)
    return np.concatenate(cheaper_codes(blocks, codebook, prior, weight)).reshape(latents.shape[:2])


def at_rate(
    codes: Codes, latents: np.ndarray, codebook: np.ndarray, prior: CausalPrior, kbps: float
) -> np.ndarray:
    """Indices that entropy coding brings to a bit rate, or just below it.

    Args:
        codes: the nearest ones, which are taken if they are cheap enough.
        latents: (channels, frames, dim) float32, before quantisation.
        codebook: (codes, dim) float32.
        kbps: of the payload, all channels together.

    Returns:
        (channels, frames).

    Raises:
        ConfigError: the recording cannot be coded at so low a rate.
    """

    def rate(indices: np.ndarray) -> float:
        return 8 * len(encode_blocks(indices, prior)) / codes.duration / 1000

    if not codes.num_frames or rate(codes.indices) <= kbps:
        return codes.indices
    scale = float(codebook.var(axis=0).sum())
    low, high = math.log(_LEAST * scale), math.log(_MOST * scale)
    best = at_weight(latents, codebook, prior, math.exp(high))
    best_rate = rate(best)
    if best_rate > kbps:
        raise ConfigError(
            f"this recording cannot be coded at {kbps:g} kbit/s; "
            f"the least is {math.ceil(1000 * best_rate) / 1000:.3f}"
        )
    for _ in range(_TRIALS):
        if best_rate >= kbps * (1 - _TOLERANCE):
            break
        middle = (low + high) / 2
        found = at_weight(latents, codebook, prior, math.exp(middle))
        found_rate = rate(found)
        if found_rate > kbps:
            low = middle
            continue
        high = middle
        if found_rate > best_rate:
            best, best_rate = found, found_rate
    return best

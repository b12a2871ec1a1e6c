"""Lost codes: repaired from the codes on both sides, and decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from simvq_audio.bitstream import Codes
from simvq_audio.codec.streams import StreamDecoder
from simvq_audio.errors import CodesError, ConfigError
from simvq_audio.nested import book_by_id
from simvq_audio.prior.masked import masked_prior_for_codes

if TYPE_CHECKING:
    from simvq_audio.codec.codec import Codec
    from simvq_audio.prior.masked.filling import Filled


class Repairer:
    """Predicts the lost codes of one kind.

    Args:
        codec: whose codes they are.
        codes_id: of the codes; those of a nested codebook are repaired by its entries.

    Attributes:
        vectors: float32 (codes, dim), what each code stands for.

    Raises:
        ConfigError: there is no masked prior for such codes.
    """

    def __init__(self, codec: Codec, codes_id: str) -> None:
        book = book_by_id(codes_id)
        full = codec.for_codes(codes_id)
        of_full = codec.codes_id if book is None else book.full_codes_id
        prior = masked_prior_for_codes(of_full, str(codec.device))
        if prior is None:
            raise ConfigError(
                f"there is no masked prior for the codes of {codec.name}, so lost codes cannot be "
                "repaired; use the embedded model"
            )
        self.prior = prior
        self.vectors = full.codebook()
        self._entries = None if book is None else torch.from_numpy(book.entries)
        origin = codec if codec._full is None else codec._full
        self._codebook = torch.from_numpy(origin.codebook()).to(prior.bias.device)

    def fill(self, indices: np.ndarray, lost: np.ndarray) -> Filled:
        """What stands at the lost places.

        Args:
            indices: integers (channels, frames).
            lost: bool (channels, frames).
        """
        from simvq_audio.prior.masked.filling import fill

        if self._entries is None:
            return fill(self.prior, self._codebook, indices, lost)
        entries = self._entries
        full = entries.numpy()[np.where(lost, 0, indices)]
        return fill(self.prior, self._codebook, full, lost, entries.to(self._codebook.device))

    def latents(self, indices: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """(channels, frames) -> float32 (channels, dim, frames): vectors of the codes, and the
        expected vectors at the lost places."""
        vectors = self.vectors[np.where(lost, 0, indices)]
        if lost.any():
            vectors[lost] = self.fill(indices, lost).latents
        return vectors.transpose(0, 2, 1)


class LatentDecoder(StreamDecoder):
    """A ``StreamDecoder`` that is given latents, float32 (channels, dim, frames).

    Args:
        codec: whose latents they are.
        sample_rate, channels: of the output.
        wait: whether to decode as many frames at once as ``codec`` does of whole recordings.
    """

    def __init__(self, codec: Codec, sample_rate: int, channels: int, *, wait: bool) -> None:
        chunk = codec._chunk_frames(channels)
        super().__init__(codec._model, sample_rate, channels, chunk, wait)
        self._dim = codec.config.quantizer.latent_dim

    def _checked(self, codes: Any) -> np.ndarray:
        latents: np.ndarray = codes
        return latents

    @property
    def _nothing(self) -> np.ndarray:
        return np.empty((self.channels, self._dim, 0), np.float32)

    def _latent(self, codes: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(codes)).to(self._device)


def checked_lost(lost: Any, codes: Codes) -> np.ndarray:
    """``lost`` as bool (channels, frames).

    Args:
        lost: bool (frames,), for every channel, or (channels, frames).

    Raises:
        CodesError: another type or shape, or several codes per frame.
    """
    if len(codes.codebook_sizes) > 1:
        raise CodesError("codes of several codebooks cannot be repaired")
    array = np.asarray(lost)
    wanted = codes.indices.shape
    if array.dtype != bool or array.shape not in (wanted, wanted[1:]):
        raise CodesError(
            f"lost must be bool of the shape ({wanted[1]},) or {wanted}, not {array.dtype} of "
            f"{array.shape}"
        )
    return np.ascontiguousarray(np.broadcast_to(array, wanted))


def simulated_loss(frames: int, share: float, burst: int = 1, seed: int = 0) -> np.ndarray:
    """Which frames a channel loses that drops bursts at random, bool (frames,).

    Bursts begin at multiples of their length, as packets do, and are lost independently.

    Args:
        share: of frames that are lost, on average.
        burst: frames in a burst.

    Raises:
        ConfigError: a share outside 0 to 1, or an empty burst.
    """
    if not 0 <= share <= 1 or burst < 1:
        raise ConfigError(f"a share of 0 to 1 in bursts of at least 1, not {share} and {burst}")
    packets = np.random.default_rng(seed).random(-(-frames // burst)) < share
    return np.repeat(packets, burst)[:frames]


def repair(codec: Codec, codes: Codes, lost: Any) -> Codes:
    """See ``Codec.repair``."""
    codec.check(codes)
    mask = checked_lost(lost, codes)
    indices = codes.indices.copy()
    if mask.any():
        indices[mask] = Repairer(codec, codes.codes_id).fill(indices, mask).codes
    return Codes(indices, codes.codebook_size, codes.codes_id, codes.sample_rate, codes.num_samples)


def decode_repaired(
    codec: Codec, codes: Codes, lost: Any, native_rate: bool
) -> Iterator[np.ndarray]:
    """Blocks (samples, channels) of codes with lost ones among them.

    Raises:
        CodesError, ConfigError: as for ``Codec.decode``; at once, not with the first block.
    """
    codec.check(codes)
    mask = checked_lost(lost, codes)
    repairer = Repairer(codec, codes.codes_id)
    return _decoded(codec, codes, repairer.latents(codes.indices, mask), native_rate)


def _decoded(
    codec: Codec, codes: Codes, latents: np.ndarray, native_rate: bool
) -> Iterator[np.ndarray]:
    rate, samples = codec._output(codes, native_rate)
    decoder = LatentDecoder(codec, rate, codes.channels, wait=True)
    step = codec._chunk_frames(codes.channels)
    for start in range(0, codes.num_frames, step):
        yield decoder.push(latents[..., start : start + step]).T
    yield decoder.finish(samples).T

"""The properties of a loaded model, and the codes that it decodes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from simvq_audio.audio import resampled_length
from simvq_audio.audio.resample import MAX_RATE, MIN_RATE
from simvq_audio.bitstream import Codes, CodesFile
from simvq_audio.codec.nested import with_book
from simvq_audio.codec.streams import inference
from simvq_audio.codec.ties import TieBreaker
from simvq_audio.embedded import old_codes_ids
from simvq_audio.errors import CodesError, ConfigError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.config import ModelConfig
from simvq_audio.model.frames import frame_count
from simvq_audio.model.storage import ModelHeader
from simvq_audio.nested import book_by_id, nested_book

if TYPE_CHECKING:
    from typing_extensions import Self


class LoadedModel:
    """A model in memory; the part of ``Codec`` that does not run it.

    Attributes:
        name: of the embedded model, or from the model file.
        config: the model's configuration.
        codes_id: 12 hexadecimal digits that ``.codes`` files name: what the indices mean.
        model_id: 12 hexadecimal digits for this model's weights and configuration.
        device: where the model runs.
        batch_seconds: seconds of audio, over all channels or items, in one forward pass.
    """

    def __init__(
        self,
        model: Autoencoder,
        header: ModelHeader,
        batch_seconds: float = 30.0,
        name: str | None = None,
    ) -> None:
        self._model = model
        self._ties = TieBreaker(model)
        self.config: ModelConfig = header.config
        self.name = name or header.config.name
        self.codes_id = header.codes_id
        self.model_id = header.model_id
        self._decodes = {header.codes_id, *header.old_codes_ids, *old_codes_ids(header.codes_id)}
        self.batch_seconds = checked_batch_seconds(batch_seconds)
        self.device = next(model.parameters()).device
        self._full: Self | None = None

    @property
    def sample_rate(self) -> int:
        """The model's sample rate in Hz."""
        return self.config.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples per frame, at the model's rate."""
        return self.config.hop_length

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.config.frame_rate

    @property
    def codebook_size(self) -> int | tuple[int, ...]:
        """Entries in the codebook, or of each codebook if a frame has several codes."""
        sizes = self.config.quantizer.codebook_sizes
        return sizes[0] if len(sizes) == 1 else sizes

    @property
    def bitrate(self) -> float:
        """Payload bits per second of one channel."""
        return self.config.bitrate

    def codebook(self) -> np.ndarray:
        """The vectors that the codes stand for, (codebook_size, dim) float32."""
        with inference():
            quantizer: Any = self._model.quantizer
            return quantizer.codebook().float().cpu().numpy()

    def with_batch_seconds(self, batch_seconds: float) -> Self:
        """The same codec and model with other ``batch_seconds``.

        Raises:
            ConfigError: they are not above 0.
        """
        other = copy.copy(self)
        other.batch_seconds = checked_batch_seconds(batch_seconds)
        return other

    def with_codebook(self, size: int) -> Self:
        """The same codec with a codebook of fewer entries, taken from the model's.

        Its codes take fewer bits in fixed width, and the same decoder decodes them.
        ``simvq_audio.nested.nested_books(codec.codes_id)`` has the sizes.

        Raises:
            ConfigError: the model has no nested codebook of this size.
        """
        if self._full is not None:
            return self._full.with_codebook(size)
        if size == self.codebook_size:
            return self
        book = nested_book(self.codes_id, size)
        other = copy.copy(self)
        other._full = self
        other._model = with_book(self._model, book)
        other._ties = TieBreaker(other._model)
        other.config = other._model.config
        other.codes_id = book.codes_id
        other._decodes = {book.codes_id}
        return other

    def for_codes(self, codes_id: str) -> Self:
        """This codec, with the nested codebook of these codes, if they have one.

        Args:
            codes_id: of the codes; if this model does not decode them, the codec stays as it is.
        """
        book = book_by_id(codes_id)
        if codes_id in self._decodes or book is None or book.full_codes_id != self.codes_id:
            return self
        return self.with_codebook(book.size)

    def check(self, codes: Codes | CodesFile) -> None:
        """Check that this model can decode ``codes``.

        Raises:
            CodesError: they are of another model, or are inconsistent.
        """
        fitting = self.for_codes(codes.codes_id)
        if codes.codes_id not in fitting._decodes:
            raise CodesError(
                f"these codes are {codes.codes_id}, the model {self.name} decodes {self.codes_id}; "
                "name the right one with --model"
            )
        if codes.codebook_size != fitting.codebook_size:
            raise CodesError(
                f"these codes are of a codebook of {codes.codebook_size} entries, the model has "
                f"{fitting.codebook_size}; the file was written wrongly"
            )
        if not MIN_RATE <= codes.sample_rate <= MAX_RATE:
            raise CodesError(f"the codes claim a sample rate of {codes.sample_rate} Hz")
        expected = frame_count(self._native_samples(codes), self.hop_length)
        if codes.num_frames != expected:
            raise CodesError(
                f"{codes.num_samples} samples at {codes.sample_rate} Hz make {expected} frames, "
                f"the codes have {codes.num_frames}; the file was written wrongly"
            )

    def codes_from_indices(self, indices: Any) -> Codes:
        """Codes from bare indices, for language models; length and rate are the model's.

        Args:
            indices: integers (frames,) or (channels, frames); with several codes per frame
                (codebooks, frames) or (channels, codebooks, frames).

        Raises:
            CodesError: wrong shape, or an index outside the codebook.
        """
        array = np.asarray(indices)
        frames = array.shape[-1] if array.ndim else 0
        return self._codes(array, self.sample_rate, frames * self.hop_length)

    def _codes(self, indices: np.ndarray, sample_rate: int, num_samples: int) -> Codes:
        return Codes(indices, self.codebook_size, self.codes_id, sample_rate, num_samples)

    def _own(self, codes: Codes) -> Codes:
        """Codes of a nested codebook as codes of this one; others as they are."""
        book = book_by_id(codes.codes_id)
        if codes.codes_id in self._decodes or book is None:
            return codes
        return self._codes(book.entries[codes.indices], codes.sample_rate, codes.num_samples)

    def _native_samples(self, codes: Codes | CodesFile) -> int:
        """Samples per channel at the model's rate."""
        return resampled_length(codes.num_samples, codes.sample_rate, self.sample_rate)

    def _output(self, codes: Codes | CodesFile, native_rate: bool) -> tuple[int, int]:
        """Sample rate and samples per channel of what ``codes`` are decoded to."""
        if native_rate:
            return self.sample_rate, self._native_samples(codes)
        return codes.sample_rate, codes.num_samples

    def _chunk_frames(self, channels: int) -> int:
        """Frames in one pass of the model."""
        return max(1, int(self.batch_seconds * self.frame_rate / channels))


def checked_batch_seconds(seconds: float) -> float:
    """``seconds``.

    Raises:
        ConfigError: they are not above 0.
    """
    if not seconds > 0:
        raise ConfigError(f"batch_seconds must be above 0, not {seconds}")
    return seconds

"""``Codec``: recordings to codes and back, in flat memory."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from simvq_audio.audio import AudioReader, AudioWriter, resample, resampled_length
from simvq_audio.audio.resample import MAX_RATE, MIN_RATE
from simvq_audio.audio.waveform import as_waveform
from simvq_audio.bitstream import Codes
from simvq_audio.codec.batches import Item, grouped
from simvq_audio.codec.cheaper import Cheaper, CheaperStream, bring_all, prior_for_rate
from simvq_audio.codec.model_source import locate_model
from simvq_audio.codec.nested import with_book
from simvq_audio.codec.streams import (
    StreamDecoder,
    StreamEncoder,
    channel_count,
    inference,
    inner_shape,
)
from simvq_audio.device import find_device
from simvq_audio.embedded import embedded_name, old_codes_ids
from simvq_audio.errors import AudioError, CodesError, ConfigError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.config import ModelConfig
from simvq_audio.model.frames import frame_count
from simvq_audio.model.storage import ModelHeader, load_model
from simvq_audio.nested import book_by_id, nested_book


class Codec:
    """Codes recordings with one model.

    >>> codec = Codec.load()
    >>> codes = codec.encode(waveform, sample_rate)
    >>> waveform = codec.decode(codes)

    Channels are coded each on its own. Recordings longer than ``batch_seconds`` are coded in
    pieces; the codes, and for models with a finite receptive field the samples, are those of
    coding in one piece. Other models are decoded in pieces of ``batch_seconds`` with overlap.

    Attributes:
        name: of an embedded model, or what the model calls itself.
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
        self.config: ModelConfig = header.config
        self.name = name or header.config.name
        self.codes_id = header.codes_id
        self.model_id = header.model_id
        self._decodes = {header.codes_id, *header.old_codes_ids, *old_codes_ids(header.codes_id)}
        self.batch_seconds = _checked_batch_seconds(batch_seconds)
        self.device = next(model.parameters()).device
        self._full: Codec | None = None

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device = "auto",
        batch_seconds: float = 30.0,
    ) -> Codec:
        """Load a model.

        Args:
            model: None for the embedded one, a model file, an embedded model's name, or the
                ``owner/name`` of a Hugging Face repository.
            device: "auto" (CUDA if there is one, else the CPU), "cpu", "cuda", "cuda:1", "mps".

        Raises:
            ModelError: the model cannot be found or is damaged.
            ConfigError: the device is unknown or not there.
        """
        place = find_device(device)
        path = locate_model(model)
        network, header = load_model(path, place)
        return cls(network, header, batch_seconds, embedded_name(path))

    @property
    def sample_rate(self) -> int:
        """The model's sample rate in Hz."""
        return self.config.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples a frame, at the model's rate."""
        return self.config.hop_length

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.config.frame_rate

    @property
    def codebook_size(self) -> int | tuple[int, ...]:
        """Entries in the codebook; indices lie below it. One each, where a frame has several."""
        sizes = self.config.quantizer.codebook_sizes
        return sizes[0] if len(sizes) == 1 else sizes

    @property
    def bitrate(self) -> float:
        """Payload bits a second of one channel."""
        return self.config.bitrate

    def with_batch_seconds(self, batch_seconds: float) -> Codec:
        """The same codec, sharing the model, with other ``batch_seconds``.

        Raises:
            ConfigError: they are not above 0.
        """
        other = copy.copy(self)
        other.batch_seconds = _checked_batch_seconds(batch_seconds)
        return other

    def with_codebook(self, size: int) -> Codec:
        """The same codec with a codebook of fewer entries, which are some of the model's own.

        Its codes take fewer bits in fixed width, and decode with the same decoder. Sizes that there
        are: ``simvq_audio.nested.nested_books(codec.codes_id)``.

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
        other.config = other._model.config
        other.codes_id = book.codes_id
        other._decodes = {book.codes_id}
        return other

    def for_codes(self, codes_id: str) -> Codec:
        """This codec, with the nested codebook that codes of this name belong to, if there is one.

        Args:
            codes_id: as ``Codes`` has it; one that this model does not decode changes nothing.
        """
        book = book_by_id(codes_id)
        if codes_id in self._decodes or book is None or book.full_codes_id != self.codes_id:
            return self
        return self.with_codebook(book.size)

    # -- encoding ------------------------------------------------------------------------------

    def encoder(self, sample_rate: int, channels: int = 1) -> StreamEncoder:
        """An encoder for a recording that arrives in pieces, as from a microphone.

        >>> encoder = codec.encoder(48_000)
        >>> for samples in microphone:
        ...     send(encoder.push(samples))
        >>> send(encoder.finish())

        Codes come out as soon as they are settled, ``encoder.latency_ms`` behind the samples. All
        together they are those of ``encode``, whatever the pieces are. Every push runs the model
        over what it looks back on as well, so pushes of 100 ms cost much less than those of 10.

        Args:
            sample_rate: of the samples, in Hz.

        Raises:
            AudioError: a rate outside 1 kHz to 768 kHz, or no channel or more than 255.
        """
        return self._encoder(sample_rate, channels, wait=False)

    def encode(
        self, waveform: Tensor | np.ndarray, sample_rate: int, *, kbps: float | None = None
    ) -> Codes:
        """Code a recording.

        Args:
            waveform: (samples,) or (channels, samples), full scale 1.
            sample_rate: of the waveform, in Hz.
            kbps: bit rate that entropy coding should reach, without header, over all channels.
                Codes near the best ones are taken that cost fewer bits. None: the best codes.

        Raises:
            AudioError: another shape, NaN or infinity, no channel or more than 255, or a rate
                outside 1 kHz to 768 kHz.
            ConfigError: the model has no prior, or the recording needs a higher bit rate.
        """
        array = as_waveform(waveform)
        return self.encode_stream([array.T], sample_rate, len(array), kbps=kbps)

    def encode_stream(
        self,
        blocks: Iterable[np.ndarray],
        sample_rate: int,
        channels: int,
        *,
        kbps: float | None = None,
    ) -> Codes:
        """Code a recording that arrives in blocks, in memory that does not grow with its length.

        Args:
            blocks: (samples, channels) float32 arrays, of any length each.
            kbps: as for ``encode``. Some minutes at a time share what a bit is worth.

        Raises:
            AudioError, ConfigError: as for ``encode``.
        """
        pieces = (np.transpose(block) for block in blocks)
        if kbps is None:
            return self._encode_all(self._encoder(sample_rate, channels, wait=True), pieces)
        cheaper = self._cheaper(kbps)
        encoder = self._encoder(sample_rate, channels, wait=True, keep_latents=True)
        stream = CheaperStream(cheaper, encoder.channels, self.frame_rate)
        for piece in pieces:
            codes = encoder.push(piece)
            stream.push(encoder.latents, codes)
            encoder.latents.clear()
        codes = encoder.finish()
        stream.push(encoder.latents, codes)
        indices = stream.finish(encoder.num_samples / encoder.sample_rate)
        return self._codes(indices, sample_rate, encoder.num_samples)

    def _cheaper(self, kbps: float) -> Cheaper:
        prior = prior_for_rate(self.codes_id)
        return Cheaper(self.codebook(), prior, kbps)

    def codebook(self) -> np.ndarray:
        """The vectors that the codes stand for, (codebook_size, dim) float32."""
        with inference():
            return self._model.quantizer.codebook().float().cpu().numpy()

    def encode_file(
        self,
        source: str | os.PathLike[str] | BinaryIO | AudioReader,
        *,
        kbps: float | None = None,
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> Codes:
        """Code an audio file in flat memory.

        Args:
            source: a path, a seekable binary file, or a reader, which is read to its end.
            kbps: as for ``encode``.
            progress: told the seconds of each block that is done.

        Raises:
            ConfigError: as for ``encode``.
            AudioError: the file cannot be read or coded.
        """
        if not isinstance(source, AudioReader):
            with AudioReader(source) as reader:
                return self.encode_file(reader, kbps=kbps, progress=progress)

        def blocks() -> Iterator[np.ndarray]:
            for block in source.blocks():
                yield block
                progress(len(block) / source.sample_rate)

        return self.encode_stream(blocks(), source.sample_rate, source.channels, kbps=kbps)

    def encode_batch(
        self,
        waveforms: Sequence[Tensor | np.ndarray],
        sample_rates: int | Sequence[int],
        *,
        kbps: float | None = None,
    ) -> list[Codes]:
        """Code several recordings together; each gets the codes that ``encode`` gives it.

        Args:
            waveforms: each (samples,) or (channels, samples).
            sample_rates: one for all, or one each.
            kbps: as for ``encode``, of each recording. The search may then find other codes than
                ``encode`` does, as the last bits of the latents differ.

        Raises:
            AudioError, ConfigError: as for ``encode``.
        """
        if np.ndim(sample_rates) == 0:
            sample_rates = [sample_rates] * len(waveforms)  # type: ignore[list-item]
        if len(sample_rates) != len(waveforms):  # type: ignore[arg-type]
            raise AudioError(f"{len(waveforms)} waveforms with {len(sample_rates)} sample rates")
        arrays = [as_waveform(waveform) for waveform in waveforms]
        # Made for every one of them, so that all are checked before any is coded.
        streams = [
            self._encoder(rate, len(array), wait=True) for rate, array in zip(sample_rates, arrays)
        ]
        items = [
            Item(i, array.shape[1] / stream.sample_rate, stream.channels)
            for i, (array, stream) in enumerate(zip(arrays, streams))
        ]
        results: list[Codes | None] = [None] * len(arrays)
        cheaper = None if kbps is None else self._cheaper(kbps)
        for group in grouped(items, self.batch_seconds):
            if len(group) == 1:
                (i,) = group
                results[i] = self.encode(arrays[i], streams[i].sample_rate, kbps=kbps)
                continue
            ready = [resample(arrays[i], streams[i].sample_rate, self.sample_rate) for i in group]
            latents, indices = self._encode_padded([row for item in ready for row in item])
            rows = np.cumsum([0, *map(len, ready)])
            own = [np.stack(indices[a:b]) for a, b in pairwise(rows)]
            if cheaper is not None:
                kept = [np.stack(latents[a:b]) for a, b in pairwise(rows)]
                seconds = [arrays[i].shape[1] / streams[i].sample_rate for i in group]
                own = bring_all(cheaper, kept, own, seconds)
            for i, codes in zip(group, own):
                results[i] = self._codes(codes, sample_rates[i], arrays[i].shape[1])
        return [codes for codes in results if codes is not None]

    # -- decoding ------------------------------------------------------------------------------

    def decoder(self, sample_rate: int | None = None, channels: int = 1) -> StreamDecoder:
        """A decoder for codes that arrive in pieces.

        Samples come out as soon as they are settled, ``decoder.latency_ms`` behind their codes. All
        together they are those of ``decode``, whatever the pieces are, if the decoder's receptive
        field is finite, as the embedded model's is.

        Args:
            sample_rate: of what comes out, in Hz; None: the model's.

        Raises:
            AudioError: a rate outside 1 kHz to 768 kHz, or no channel or more than 255.
        """
        return self._decoder(sample_rate or self.sample_rate, channels, wait=False)

    def decode(self, codes: Codes, *, native_rate: bool = False) -> Tensor:
        """Decode to (channels, samples) float32 on the CPU.

        Args:
            native_rate: at the model's sample rate instead of the original's.

        Raises:
            CodesError: the codes are of another model, or do not add up.
        """
        blocks = [np.empty((0, codes.channels), np.float32)]
        blocks += self.decode_stream(codes, native_rate=native_rate)
        return torch.from_numpy(np.ascontiguousarray(np.concatenate(blocks).T))

    def decode_stream(self, codes: Codes, *, native_rate: bool = False) -> Iterator[np.ndarray]:
        """Decode block by block, in memory that does not grow with the length.

        Returns:
            an iterator over (samples, channels) float32 arrays.

        Raises:
            CodesError: as for ``decode``; at once, not with the first block.
        """
        self.check(codes)
        return self.for_codes(codes.codes_id)._decode_blocks(codes, native_rate)

    def decode_file(
        self,
        codes: Codes,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        native_rate: bool = False,
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> int:
        """Decode into a .wav or .flac file (PCM 16 bit) that appears whole or not at all.

        Args:
            target: a path, or a binary stream, which gets WAV.
            progress: told the seconds of each block that is written.

        Returns:
            how many samples went beyond full scale and were set to it.

        Raises:
            CodesError: as for ``decode``.
            AudioError: the file cannot be of that kind.
            OSError: it cannot be written.
        """
        rate, samples = self._output(codes, native_rate)
        blocks = self.decode_stream(codes, native_rate=native_rate)
        with AudioWriter(target, rate, codes.channels, expected_samples=samples) as writer:
            for block in blocks:
                writer.write(block)
                progress(len(block) / rate)
        return writer.clipped

    def decode_batch(self, codes: Sequence[Codes], *, native_rate: bool = False) -> list[Tensor]:
        """Decode several recordings together, each as ``decode`` would.

        Raises:
            CodesError: as for ``decode``.
        """
        for item in codes:
            self.check(item)
        codes = [self._own(item) for item in codes]
        items = [
            Item(i, item.num_frames / self.frame_rate, item.channels)
            for i, item in enumerate(codes)
        ]
        results: list[Tensor | None] = [None] * len(codes)
        for group in grouped(items, self.batch_seconds):
            if len(group) == 1:
                results[group[0]] = self.decode(codes[group[0]], native_rate=native_rate)
                continue
            audio = self._decode_padded([row for i in group for row in codes[i].indices])
            for i in group:
                own, audio = audio[: codes[i].channels], audio[codes[i].channels :]
                own = own[:, : self._native_samples(codes[i])]
                rate, samples = self._output(codes[i], native_rate)
                own = resample(own, self.sample_rate, rate, samples)
                results[i] = torch.from_numpy(np.ascontiguousarray(own))
        return [waveform for waveform in results if waveform is not None]

    def check(self, codes: Codes) -> None:
        """Make sure that this model can decode ``codes``.

        Raises:
            CodesError: they are of another model, or their numbers do not fit together.
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
        """Codes from bare indices, for language models: original length and rate are the model's.

        Args:
            indices: integers (frames,) or (channels, frames); with several codes a frame
                (codebooks, frames) or (channels, codebooks, frames).

        Raises:
            CodesError: the shape is another, or an index lies outside the codebook.
        """
        array = np.asarray(indices)
        frames = array.shape[-1] if array.ndim else 0
        return self._codes(array, self.sample_rate, frames * self.hop_length)

    # -- inside --------------------------------------------------------------------------------

    def _codes(self, indices: np.ndarray, sample_rate: int, num_samples: int) -> Codes:
        return Codes(indices, self.codebook_size, self.codes_id, sample_rate, num_samples)

    def _own(self, codes: Codes) -> Codes:
        """Codes of a nested codebook as codes of this one; others as they are."""
        book = book_by_id(codes.codes_id)
        if codes.codes_id in self._decodes or book is None:
            return codes
        return self._codes(book.entries[codes.indices], codes.sample_rate, codes.num_samples)

    def _native_samples(self, codes: Codes) -> int:
        """Samples a channel at the model's rate."""
        return resampled_length(codes.num_samples, codes.sample_rate, self.sample_rate)

    def _output(self, codes: Codes, native_rate: bool) -> tuple[int, int]:
        """Sample rate and samples a channel of what ``codes`` are decoded to."""
        if native_rate:
            return self.sample_rate, self._native_samples(codes)
        return codes.sample_rate, codes.num_samples

    def _chunk_frames(self, channels: int) -> int:
        """Frames in one pass of the model."""
        return max(1, int(self.batch_seconds * self.frame_rate / channels))

    def _encoder(
        self, sample_rate: int, channels: int, *, wait: bool, keep_latents: bool = False
    ) -> StreamEncoder:
        channels = channel_count(channels)
        chunk = self._chunk_frames(channels)
        return StreamEncoder(self._model, sample_rate, channels, chunk, wait, keep_latents)

    def _decoder(self, sample_rate: int, channels: int, *, wait: bool) -> StreamDecoder:
        channels = channel_count(channels)
        chunk = self._chunk_frames(channels)
        return StreamDecoder(self._model, sample_rate, channels, chunk, wait)

    def _encode_all(self, encoder: StreamEncoder, pieces: Iterable[np.ndarray]) -> Codes:
        """Push (channels, samples) pieces and gather the codes."""
        # One growing buffer: an array a piece, each left between the large temporaries, would keep
        # the heap from shrinking.
        inner = inner_shape(self.config.quantizer.codebook_sizes)
        shape = (encoder.channels, *inner)
        rows = [bytearray() for _ in range(prod(shape))]

        def gather(codes: np.ndarray) -> None:
            for row, added in zip(rows, codes.reshape(len(rows), -1)):
                row += added.tobytes()

        for piece in pieces:
            gather(encoder.push(piece))
        gather(encoder.finish())
        indices = np.stack([np.frombuffer(row, np.int32) for row in rows])
        indices = indices.reshape(*shape, -1)
        return self._codes(indices, encoder.sample_rate, encoder.num_samples)

    def _decode_blocks(self, codes: Codes, native_rate: bool) -> Iterator[np.ndarray]:
        rate, samples = self._output(codes, native_rate)
        decoder = self._decoder(rate, codes.channels, wait=True)
        step = self._chunk_frames(codes.channels)
        for start in range(0, codes.num_frames, step):
            block = decoder.push(codes.indices[..., start : start + step])
            if block.size:
                yield block.T
        block = decoder.finish(samples)
        if block.size:
            yield block.T

    def _encode_padded(
        self, waveforms: list[np.ndarray]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Latents and indices of several mono waveforms at the model's rate, in one pass."""
        lengths = torch.tensor([len(waveform) for waveform in waveforms])
        padded = torch.zeros(len(waveforms), int(lengths.max()))
        for row, waveform in zip(padded, waveforms):
            row[: len(waveform)] = torch.from_numpy(waveform)
        with inference():
            latent = self._model.encode_latent(padded.to(self.device), lengths.to(self.device))
            indices = self._model.quantizer.encode(latent)
        frames = [frame_count(length, self.hop_length) for length in lengths.tolist()]
        latents, rows = latent.float().cpu().numpy(), indices.int().cpu().numpy()
        return (
            [row[:, :count] for row, count in zip(latents, frames)],
            [row[..., :count] for row, count in zip(rows, frames)],
        )

    def _decode_padded(self, rows: list[np.ndarray]) -> np.ndarray:
        """(rows, samples) of several rows of indices, in one forward pass."""
        frames = torch.tensor([row.shape[-1] for row in rows])
        inner = inner_shape(self.config.quantizer.codebook_sizes)
        padded = torch.zeros(len(rows), *inner, int(frames.max()), dtype=torch.long)
        for target, row in zip(padded, rows):
            target[..., : row.shape[-1]] = torch.tensor(row)
        with inference():
            audio = self._model.decode(padded.to(self.device), frames.to(self.device))
        return audio.float().cpu().numpy()


def _checked_batch_seconds(seconds: float) -> float:
    if not seconds > 0:
        raise ConfigError(f"batch_seconds must be above 0, not {seconds}")
    return seconds

"""``Codec``: recordings to codes and back, in flat memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from simvq_audio.audio import AudioReader, AudioWriter, resample
from simvq_audio.audio.waveform import as_waveform
from simvq_audio.bitstream import Codes, CodesFile
from simvq_audio.codec.batches import decode_padded, encode_padded, in_groups
from simvq_audio.codec.cheaper import Cheaper, CheaperStream, bring_all, prior_for_rate
from simvq_audio.codec.loaded_model import LoadedModel
from simvq_audio.codec.model_source import locate_model
from simvq_audio.codec.ranges import decode_part, samples_between
from simvq_audio.codec.repair import decode_repaired, repair
from simvq_audio.codec.streams import (
    StreamDecoder,
    StreamEncoder,
    channel_count,
)
from simvq_audio.device import find_device
from simvq_audio.embedded import embedded_name
from simvq_audio.errors import AudioError, ConfigError
from simvq_audio.model.storage import load_model


class Codec(LoadedModel):
    """Encodes and decodes recordings with one model.

    >>> codec = Codec.load()
    >>> codes = codec.encode(waveform, sample_rate)
    >>> waveform = codec.decode(codes)

    Channels are coded independently. Recordings longer than ``batch_seconds`` are coded in pieces;
    the codes are those of coding in one piece, and so are the samples if the decoder's receptive
    field is finite. Other models are decoded in overlapping pieces of ``batch_seconds``.
    """

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
            ConfigError: the device is unknown or missing.
        """
        place = find_device(device)
        path = locate_model(model)
        network, header = load_model(path, place)
        network.fold_weight_norm()
        return cls(network, header, batch_seconds, embedded_name(path))

    # -- encoding ------------------------------------------------------------------------------

    def encoder(self, sample_rate: int, channels: int = 1) -> StreamEncoder:
        """An encoder for a recording that arrives in pieces, as from a microphone.

        >>> encoder = codec.encoder(48_000)
        >>> for samples in microphone:
        ...     send(encoder.push(samples))
        >>> send(encoder.finish())

        Codes are returned as soon as they are final, ``encoder.latency_ms`` after the samples. They
        are those of ``encode``, whatever the pieces. Every push also runs the model over the past
        that it needs, so pushes of 100 ms cost much less per second than pushes of 10 ms.

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
            kbps: bit rate to reach with entropy coding, without header, over all channels, by
                codes near the best ones that cost fewer bits. None: the best codes.

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
            kbps: as for ``encode``; bits are shared out over some minutes at a time.

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

    def encode_file(
        self,
        source: str | os.PathLike[str] | BinaryIO | AudioReader,
        *,
        kbps: float | None = None,
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> Codes:
        """Code an audio file, in memory that does not grow with its length.

        Args:
            source: a path, a seekable binary file, or a reader, which is read to its end.
            kbps: as for ``encode``.
            progress: called with the seconds of each block.

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
            kbps: as for ``encode``, of each recording. The search may find other codes than
                ``encode``, since the latents differ in the last bits.

        Raises:
            AudioError, ConfigError: as for ``encode``.
        """
        rates: Any = sample_rates
        if np.ndim(rates) == 0:
            rates = [rates] * len(waveforms)
        if len(rates) != len(waveforms):
            raise AudioError(f"{len(waveforms)} waveforms with {len(rates)} sample rates")
        arrays = [as_waveform(waveform) for waveform in waveforms]
        # Made for all first, which checks their arguments before any is coded.
        streams = [self._encoder(rate, len(array), wait=True) for rate, array in zip(rates, arrays)]

        def alone(i: int) -> Codes:
            return self.encode(arrays[i], streams[i].sample_rate, kbps=kbps)

        def together(group: list[int]) -> Iterator[Codes]:
            ready = [resample(arrays[i], streams[i].sample_rate, self.sample_rate) for i in group]
            rows = [row for item in ready for row in item]
            latents, indices = encode_padded(self._model, rows, self._ties)
            ends = np.cumsum([0, *map(len, ready)])
            own = [np.stack(indices[a:b]) for a, b in pairwise(ends)]
            if cheaper is not None:
                kept = [np.stack(latents[a:b]) for a, b in pairwise(ends)]
                seconds = [arrays[i].shape[1] / streams[i].sample_rate for i in group]
                own = bring_all(cheaper, kept, own, seconds)
            for i, codes in zip(group, own):
                yield self._codes(codes, streams[i].sample_rate, arrays[i].shape[1])

        cheaper = None if kbps is None else self._cheaper(kbps)
        sizes = [
            (array.shape[1] / stream.sample_rate, stream.channels)
            for array, stream in zip(arrays, streams)
        ]
        return in_groups(sizes, self.batch_seconds, alone, together)

    # -- decoding ------------------------------------------------------------------------------

    def decoder(self, sample_rate: int | None = None, channels: int = 1) -> StreamDecoder:
        """A decoder for codes that arrive in pieces.

        Samples are returned as soon as they are final, ``decoder.latency_ms`` after their codes.
        They are those of ``decode``, whatever the pieces, if the decoder's receptive field is
        finite, as the embedded model's is.

        Args:
            sample_rate: of the output, in Hz; None: the model's.

        Raises:
            AudioError: a rate outside 1 kHz to 768 kHz, or no channel or more than 255.
        """
        return self._decoder(sample_rate or self.sample_rate, channels, wait=False)

    def decode(
        self,
        codes: Codes | CodesFile,
        *,
        native_rate: bool = False,
        start: float = 0.0,
        end: float | None = None,
        lost: np.ndarray | None = None,
    ) -> Tensor:
        """Decode to (channels, samples) float32 on the CPU.

        Args:
            codes: of a ``CodesFile``, no more is read than the part takes.
            native_rate: at the model's sample rate instead of the original's.
            start, end: in seconds, a part of the recording; it has the samples of the whole if the
                decoder's receptive field is finite, as the embedded model's is.
            lost: as for ``repair``; lost frames are decoded from the mean of what may have stood
                there, which is nearer to it than the codes of ``repair``. Of whole ``Codes`` only.

        Raises:
            CodesError: the codes are of another model, or are inconsistent.
            ConfigError: there is no such part, or no masked prior for ``lost`` codes.
        """
        blocks = [np.empty((0, codes.channels), np.float32)]
        blocks += self.decode_stream(
            codes, native_rate=native_rate, start=start, end=end, lost=lost
        )
        return torch.from_numpy(np.ascontiguousarray(np.concatenate(blocks).T))

    def repair(self, codes: Codes, lost: np.ndarray) -> Codes:
        """Replace lost codes by the most probable ones, given the codes on both sides.

        Args:
            codes: any index in the codebook may stand at the lost places.
            lost: bool, (frames,) for every channel, or (channels, frames).

        Raises:
            CodesError: the codes are of another model, or ``lost`` has another type or shape.
            ConfigError: there is no masked prior for such codes, as there is for the embedded
                model's.
        """
        return repair(self, codes, lost)

    def decode_stream(
        self,
        codes: Codes | CodesFile,
        *,
        native_rate: bool = False,
        start: float = 0.0,
        end: float | None = None,
        lost: np.ndarray | None = None,
    ) -> Iterator[np.ndarray]:
        """Decode block by block, in memory that does not grow with the length.

        Args:
            start, end, lost: as for ``decode``; with ``lost``, memory grows with the length.

        Returns:
            an iterator over (samples, channels) float32 arrays.

        Raises:
            CodesError, ConfigError: as for ``decode``; at once, not with the first block.
        """
        self.check(codes)
        codec = self.for_codes(codes.codes_id)
        if isinstance(codes, Codes) and (start, end) == (0, None):
            if lost is not None:
                return decode_repaired(self, codes, lost, native_rate)
            return codec._decode_blocks(codes, native_rate)
        if lost is not None:
            raise ConfigError("lost codes are repaired in whole recordings, held as Codes")
        first, last = samples_between(start, end, *codec._output(codes, native_rate))
        return decode_part(codec, codes, first, last, native_rate)

    def decode_file(
        self,
        codes: Codes | CodesFile,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        native_rate: bool = False,
        start: float = 0.0,
        end: float | None = None,
        lost: np.ndarray | None = None,
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> int:
        """Decode into a .wav or .flac file (PCM 16 bit) that appears whole or not at all.

        Args:
            target: a path, or a binary stream, which gets WAV.
            start, end, lost: as for ``decode``.
            progress: called with the seconds of each block.

        Returns:
            how many samples were clipped to full scale.

        Raises:
            CodesError, ConfigError: as for ``decode``.
            AudioError: the format cannot hold it.
            OSError: it cannot be written.
        """
        blocks = self.decode_stream(codes, native_rate=native_rate, start=start, end=end, lost=lost)
        rate, samples = self._output(codes, native_rate)
        first, last = samples_between(start, end, rate, samples)
        with AudioWriter(target, rate, codes.channels, expected_samples=last - first) as writer:
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

        def alone(i: int) -> Tensor:
            return self.decode(codes[i], native_rate=native_rate)

        def together(group: list[int]) -> Iterator[Tensor]:
            rows = [row for i in group for row in codes[i].indices]
            audio = iter(decode_padded(self._model, rows))
            for i in group:
                own = np.stack([next(audio) for _ in range(codes[i].channels)])
                own = own[:, : self._native_samples(codes[i])]
                rate, samples = self._output(codes[i], native_rate)
                own = resample(own, self.sample_rate, rate, samples)
                yield torch.from_numpy(np.ascontiguousarray(own))

        sizes = [(item.num_frames / self.frame_rate, item.channels) for item in codes]
        return in_groups(sizes, self.batch_seconds, alone, together)

    # -- inside --------------------------------------------------------------------------------

    def _encoder(
        self, sample_rate: int, channels: int, *, wait: bool, keep_latents: bool = False
    ) -> StreamEncoder:
        channels = channel_count(channels)
        chunk = self._chunk_frames(channels)
        return StreamEncoder(
            self._model, sample_rate, channels, chunk, wait, self._ties, keep_latents
        )

    def _decoder(self, sample_rate: int, channels: int, *, wait: bool) -> StreamDecoder:
        channels = channel_count(channels)
        chunk = self._chunk_frames(channels)
        return StreamDecoder(self._model, sample_rate, channels, chunk, wait)

    def _encode_all(self, encoder: StreamEncoder, pieces: Iterable[np.ndarray]) -> Codes:
        """Push (channels, samples) pieces and gather the codes."""
        return self._codes(encoder.encode_all(pieces), encoder.sample_rate, encoder.num_samples)

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

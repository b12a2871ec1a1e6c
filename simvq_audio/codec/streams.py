"""Encoding and decoding of recordings that arrive in pieces.

A stream returns codes or samples as soon as they are final, and they are those of the whole
recording, whatever the pieces. ``Codec`` also codes whole recordings with streams.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
import torch

from simvq_audio.audio import Resampler, resampled_length, resampling_latency
from simvq_audio.audio.waveform import as_waveform
from simvq_audio.bitstream import MAX_CHANNELS
from simvq_audio.codec.ties import TieBreaker
from simvq_audio.errors import AudioError, CodesError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.frames import frame_count
from simvq_audio.model.streaming import Stream


@contextmanager
def inference() -> Iterator[None]:
    """No gradients, and float32 without TF32 on GPUs, so that codes do not change."""
    with (
        torch.inference_mode(),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
    ):
        yield


def channel_count(channels: Any) -> int:
    """The number of channels as a plain integer.

    Raises:
        AudioError: not an integer from 1 to 255.
    """
    try:
        count = operator.index(channels)
    except TypeError as error:
        raise AudioError(f"channels must be a whole number, not {channels!r}") from error
    if not 1 <= count <= MAX_CHANNELS:
        raise AudioError(f"{count} channels; 1 to {MAX_CHANNELS} can be coded")
    return count


def inner_shape(codebook_sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Axes between channels and frames in an array of codes: several codebooks, or none."""
    return () if len(codebook_sizes) == 1 else (len(codebook_sizes),)


class _Pieces:
    """Cuts input into pieces of at most ``size`` along the last axis.

    Args:
        size: of a piece, for one pass of the model.
        unit: pieces before the end are multiples of it.
        wait: give pieces of exactly ``size`` and keep at least one element for the end, so that a
            recording that fits is one piece. Otherwise give all whole units at once.
    """

    def __init__(self, size: int, unit: int, wait: bool) -> None:
        self._size = size
        self._unit = unit
        self._wait = wait
        self._held: list[np.ndarray] = []
        self._length = 0

    def add(self, array: np.ndarray, final: bool = False) -> Iterator[tuple[np.ndarray, bool]]:
        """Append (rows, ..., length); yield (piece, whether it is the last)."""
        self._length += array.shape[-1]
        enough = self._length > self._size if self._wait else self._length >= self._unit
        if not (enough or final):
            # A copy, since callers may fill the same buffer again.
            self._held.append(array.copy())
            return
        self._held.append(array)
        held = self._held[0] if len(self._held) == 1 else np.concatenate(self._held, axis=-1)
        while held.shape[-1] > self._size:
            yield held[..., : self._size], False
            held = held[..., self._size :]
        if final:
            yield held, True
            held = held[..., :0]
        elif not self._wait and held.shape[-1] >= self._unit:
            count = held.shape[-1] // self._unit * self._unit
            yield held[..., :count], False
            held = held[..., count:]
        # A copy for the same reason, and to free the large array.
        self._held, self._length = [held.copy()], held.shape[-1]


class StreamEncoder:
    """Encodes a recording that arrives in pieces; made by ``Codec.encoder``.

    Attributes:
        sample_rate: of the input, in Hz.
        channels: of the input.
        num_samples: samples per channel pushed so far.
        num_frames: frames given so far.
        latents: if kept, those of all frames so far in pieces (channels, dim, frames); callers may
            clear the list.
    """

    def __init__(
        self,
        model: Autoencoder,
        sample_rate: int,
        channels: int,
        chunk_frames: int,
        wait: bool,
        ties: TieBreaker,
        keep_latents: bool = False,
    ) -> None:
        config = model.config
        self.latents: list[np.ndarray] = []
        self._keep_latents = keep_latents
        self.channels = channel_count(channels)
        self._resampler = Resampler(sample_rate, config.sample_rate, self.channels)
        self.sample_rate = self._resampler.in_rate
        self.num_samples = 0
        self.num_frames = 0
        self._ties = ties
        self._inner = inner_shape(config.quantizer.codebook_sizes)
        self._device = next(model.parameters()).device
        encoder: Any = model.encoder
        self._stream: Stream = encoder.stream()
        self._hop = hop = config.hop_length
        # Samples from frame _start on, from which codes may be computed again.
        self._recent = torch.zeros(self.channels, 0)
        self._start = 0
        self._pieces = _Pieces(chunk_frames * hop, hop, wait)
        self._frame_seconds = hop / config.sample_rate
        self._finished = False

    @property
    def latency_ms(self) -> float:
        """How long a sample waits for its code at most, in ms of audio.

        That is its frame, the encoder's look-ahead and that of the resampler, if any, without the
        time for computing.
        """
        frames = 1 + self._stream.look_ahead_frames
        resampling = resampling_latency(self.sample_rate, self._resampler.out_rate)
        return 1000 * (frames * self._frame_seconds + resampling)

    def push(self, samples: Any) -> np.ndarray:
        """Append samples; return the codes that are now final.

        Args:
            samples: floating point with full scale 1, (channels, samples), or (samples,) of one
                channel; any number of them.

        Returns:
            (channels, frames) int32, often without frames; (channels, codebooks, frames) of a model
            with several codes per frame.

        Raises:
            AudioError: another type or shape, NaN or infinity, or the stream was finished.
        """
        if self._finished:
            raise AudioError("the encoder was finished; make a new one")
        array = as_waveform(samples, self.channels)
        self.num_samples += array.shape[1]
        return self._codes(self._resampler.push(array.T).T)

    def finish(self) -> np.ndarray:
        """End the recording; return the remaining codes as ``push`` does.

        Raises:
            AudioError: the stream was finished.
        """
        if self._finished:
            raise AudioError("the encoder was finished; make a new one")
        self._finished = True
        rest = self._resampler.push(np.empty((0, self.channels), np.float32), final=True)
        return self._codes(rest.T, final=True)

    def encode_all(self, pieces: Iterable[np.ndarray]) -> np.ndarray:
        """Push (channels, samples) pieces and finish; all codes, in the shape of ``push``."""
        # One growing buffer: small arrays between large temporaries would keep the heap from
        # shrinking.
        shape = (self.channels, *self._inner)
        rows = [bytearray() for _ in range(prod(shape))]

        def gather(codes: np.ndarray) -> None:
            for row, added in zip(rows, codes.reshape(len(rows), -1)):
                row += added.tobytes()

        for piece in pieces:
            gather(self.push(piece))
        gather(self.finish())
        indices = np.stack([np.frombuffer(row, np.int32) for row in rows])
        return indices.reshape(*shape, -1)

    def _codes(self, samples: np.ndarray, final: bool = False) -> np.ndarray:
        found = [np.empty((self.channels, *self._inner, 0), np.int32)]
        for piece, last in self._pieces.add(samples, final):
            with inference():
                waveform = torch.from_numpy(np.ascontiguousarray(piece)).to(self._device)
                latent = self._stream.push(waveform, last)
                found.append(self._of_latent(latent, waveform))
            if self._keep_latents:
                self.latents.append(latent.float().cpu().numpy())
        return np.concatenate(found, axis=-1)

    def _of_latent(self, latent: torch.Tensor, waveform: torch.Tensor) -> np.ndarray:
        """The codes of the next frames, which ``waveform``, the latest samples, has settled."""
        self._recent = torch.cat([self._recent.to(waveform.device), waveform], dim=-1)
        codes = self._ties.encode(latent, list(self._recent), self.num_frames - self._start)
        self.num_frames += codes.shape[-1]
        start = max(0, self.num_frames - self._stream.look_ahead_frames)
        self._recent = self._recent[:, (start - self._start) * self._hop :].clone()
        self._start = start
        return codes.int().cpu().numpy()


class StreamDecoder:
    """Decodes codes that arrive in pieces; made by ``Codec.decoder``.

    Attributes:
        sample_rate: of the output, in Hz.
        channels: of the output.
        num_frames: frames pushed so far.
        num_samples: samples per channel given so far.
    """

    def __init__(
        self, model: Autoencoder, sample_rate: int, channels: int, chunk_frames: int, wait: bool
    ) -> None:
        config = model.config
        self.channels = channel_count(channels)
        self._resampler = Resampler(config.sample_rate, sample_rate, self.channels)
        self.sample_rate = self._resampler.out_rate
        self.num_frames = 0
        self.num_samples = 0
        self._quantizer = model.quantizer
        self._device = next(model.parameters()).device
        self._sizes = config.quantizer.codebook_sizes
        self._inner = inner_shape(self._sizes)
        self._stream = model.decoder.stream()
        self._pieces = _Pieces(chunk_frames, 1, wait)
        self._hop = config.hop_length
        self._native_samples = 0  # decoded so far, at the model's rate
        self._finished = False

    @property
    def latency_ms(self) -> float:
        """How long a code waits for its samples at most, in ms of audio.

        That is the decoder's look-ahead and that of the resampler, if any.
        """
        rate = self._resampler.in_rate
        seconds = self._stream.look_ahead_frames * self._hop / rate
        return 1000 * (seconds + resampling_latency(rate, self.sample_rate))

    def push(self, codes: Any) -> np.ndarray:
        """Append codes; return the samples that are now final.

        Args:
            codes: integers (channels, frames), or (frames,) of one channel; any number of them.
                With several codes per frame (channels, codebooks, frames) or (codebooks, frames).

        Returns:
            (channels, samples) float32, often without samples.

        Raises:
            CodesError: another type or shape, an index outside the codebook, or the stream was
                finished.
        """
        self._check_open()
        array = self._checked(codes)
        self.num_frames += array.shape[-1]
        return self._samples(array)

    def finish(self, num_samples: int | None = None) -> np.ndarray:
        """End the recording; return the remaining samples as ``push`` does.

        Args:
            num_samples: length of the whole recording at ``sample_rate``, which cuts the last
                frame; None: whole frames.

        Raises:
            CodesError: a recording of that length has another number of frames, or the stream was
                finished.
        """
        self._check_open()
        native_rate = self._resampler.in_rate
        native = self.num_frames * self._hop
        if num_samples is None:
            num_samples = resampled_length(native, native_rate, self.sample_rate)
        else:
            native = resampled_length(num_samples, self.sample_rate, native_rate)
            frames = frame_count(native, self._hop)
            if frames != self.num_frames:
                raise CodesError(
                    f"{num_samples} samples at {self.sample_rate} Hz make {frames} frames, "
                    f"{self.num_frames} were decoded"
                )
        self._finished = True
        return self._samples(self._nothing, native, num_samples)

    @property
    def _nothing(self) -> np.ndarray:
        """Input of no frames."""
        return np.empty((self.channels, *self._inner, 0), np.int32)

    def _check_open(self) -> None:
        if self._finished:
            raise CodesError("the decoder was finished; make a new one")

    def _checked(self, codes: Any) -> np.ndarray:
        array = np.asarray(codes)
        if array.ndim == 1 + len(self._inner):
            array = array[np.newaxis]
        wanted = (self.channels, *self._inner)
        if array.dtype.kind not in "iu" or array.shape[:-1] != wanted:
            shape = ", ".join(map(str, wanted))
            raise CodesError(
                f"codes must be integers of the shape ({shape}, frames), not {array.dtype} "
                f"of {array.shape}"
            )
        for number, size in enumerate(self._sizes):
            of_one = array[:, number] if self._inner else array
            if of_one.size and not 0 <= of_one.min() <= of_one.max() < size:
                raise CodesError(
                    f"codes run from {of_one.min()} to {of_one.max()}, but the codebook has "
                    f"{size} entries"
                )
        return array

    def _latent(self, codes: np.ndarray) -> torch.Tensor:
        """(channels, dim, frames), what the decoder is given for codes as ``push`` takes them."""
        indices = torch.from_numpy(codes.astype(np.int64)).to(self._device)
        latent: torch.Tensor = self._quantizer.decode(indices)
        return latent

    def _samples(
        self, codes: np.ndarray, native: int | None = None, total: int | None = None
    ) -> np.ndarray:
        """Samples that are final after ``codes``.

        Args:
            native, total: length of the recording at the model's rate and at the output's; given
                with the last codes.
        """
        found = [np.empty((self.channels, 0), np.float32)]
        for piece, last in self._pieces.add(codes, final=total is not None):
            with inference():
                waveform = self._stream.push(self._latent(piece), last)
                samples = waveform.float().cpu().numpy()
            if native is not None:
                samples = samples[:, : native - self._native_samples]
            self._native_samples += samples.shape[1]
            block = self._resampler.push(samples.T, last).T
            if total is not None:
                block = block[:, : total - self.num_samples]
            self.num_samples += block.shape[1]
            found.append(block)
        return np.concatenate(found, axis=1)

"""The codec: recordings to codes and back, in flat memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simvq_audio.audio import AudioReader, AudioWriter, Resampler, resample, resampled_length
from simvq_audio.audio.resample import MAX_RATE, MIN_RATE
from simvq_audio.bitstream import MAX_CHANNELS, Codes
from simvq_audio.blocks import append_indices, as_array, grouped, regroup
from simvq_audio.device import find_device
from simvq_audio.embedded import embedded_name, old_codes_ids
from simvq_audio.errors import AudioError, CodesError, ConfigError
from simvq_audio.model.autoencoder import Autoencoder
from simvq_audio.model.config import ModelConfig
from simvq_audio.model.frames import frame_count
from simvq_audio.model.storage import ModelHeader, load_model
from simvq_audio.model_source import locate_model


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
        if not batch_seconds > 0:
            raise ConfigError(f"batch_seconds must be above 0, not {batch_seconds}")
        self._model = model
        self.config: ModelConfig = header.config
        self.name = name or header.config.name
        self.codes_id = header.codes_id
        self.model_id = header.model_id
        self._decodes = {header.codes_id, *header.old_codes_ids, *old_codes_ids(header.codes_id)}
        self.batch_seconds = batch_seconds
        self.device = next(model.parameters()).device

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
    def codebook_size(self) -> int:
        """Entries in the codebook; indices lie below it."""
        return self.config.quantizer.codebook_size

    @property
    def bitrate(self) -> float:
        """Payload bits a second of one channel."""
        return self.config.bitrate

    # -- encoding ------------------------------------------------------------------------------

    def encode(self, waveform: Tensor | np.ndarray, sample_rate: int) -> Codes:
        """Code a recording.

        Args:
            waveform: (samples,) or (channels, samples), full scale 1.
            sample_rate: of the waveform, in Hz.

        Raises:
            AudioError: another shape, NaN or infinity, no channel or more than 255, or a rate
                outside 1 kHz to 768 kHz.
        """
        array = as_array(waveform)
        step = max(1, int(self.batch_seconds * sample_rate))
        blocks = (array[:, i : i + step].T for i in range(0, array.shape[1], step))
        return self.encode_stream(blocks, sample_rate, array.shape[0])

    def encode_batch(
        self, waveforms: Sequence[Tensor | np.ndarray], sample_rates: int | Sequence[int]
    ) -> list[Codes]:
        """Code several recordings together; each gets the codes that ``encode`` gives it.

        Args:
            waveforms: each (samples,) or (channels, samples).
            sample_rates: one for all, or one each.

        Raises:
            AudioError: as for ``encode``.
        """
        if isinstance(sample_rates, int):
            sample_rates = [sample_rates] * len(waveforms)
        if len(sample_rates) != len(waveforms):
            raise AudioError(f"{len(waveforms)} waveforms with {len(sample_rates)} sample rates")
        arrays = [as_array(waveform) for waveform in waveforms]
        results: list[Codes | None] = [None] * len(arrays)
        short: list[int] = []
        for index, (array, rate) in enumerate(zip(arrays, sample_rates)):
            if array.size == 0 or array.size / rate > self.batch_seconds:
                results[index] = self.encode(array, rate)
            else:
                short.append(index)
        short.sort(key=lambda i: arrays[i].shape[1] / sample_rates[i])
        for group in grouped(
            short,
            [a.shape[1] / r for a, r in zip(arrays, sample_rates)],
            [a.shape[0] for a in arrays],
            self.batch_seconds,
        ):
            ready = [resample(arrays[i], sample_rates[i], self.sample_rate) for i in group]
            indices = self._encode_padded([channel for item in ready for channel in item])
            for i, item in zip(group, ready):
                own, indices = indices[: len(item)], indices[len(item) :]
                results[i] = self._codes(np.stack(own), sample_rates[i], arrays[i].shape[1])
        return [codes for codes in results if codes is not None]

    def encode_stream(self, blocks: Iterable[np.ndarray], sample_rate: int, channels: int) -> Codes:
        """Code a recording that arrives in blocks, in memory that does not grow with its length.

        Args:
            blocks: (samples, channels) float32 arrays, of any length each.

        Raises:
            AudioError: as for ``encode``.
        """
        if not 1 <= channels <= MAX_CHANNELS:
            raise AudioError(f"{channels} channels; 1 to {MAX_CHANNELS} can be coded")
        resampler = Resampler(sample_rate, self.sample_rate, channels)
        stream = self._model.encoder.stream()
        num_samples = 0

        def settled(piece: np.ndarray, final: bool = False) -> np.ndarray:
            with self._inference():
                waveform = torch.from_numpy(np.ascontiguousarray(piece.T)).to(self.device)
                latent = stream.push(waveform, final)
                return self._model.quantizer.encode(latent).int().cpu().numpy()

        def resampled() -> Iterator[np.ndarray]:
            nonlocal num_samples
            for block in blocks:
                num_samples += len(block)
                yield resampler.push(block)
            yield resampler.push(np.empty((0, channels), np.float32), final=True)

        # One growing buffer: an array a piece, each left between the large temporaries, would keep
        # the heap from shrinking.
        indices = [bytearray() for _ in range(channels)]
        for piece in regroup(resampled(), self._chunk(channels)):
            append_indices(indices, settled(piece))
        append_indices(indices, settled(np.empty((0, channels), np.float32), final=True))
        rows = np.stack([np.frombuffer(row, np.int32) for row in indices])
        return self._codes(rows, sample_rate, num_samples)

    def encode_file(self, path: str | os.PathLike[str]) -> Codes:
        """Code an audio file in flat memory.

        Raises:
            AudioError: the file cannot be read or coded.
        """
        with AudioReader(path) as reader:
            return self.encode_stream(reader.blocks(), reader.sample_rate, reader.channels)

    # -- decoding ------------------------------------------------------------------------------

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

    def decode_batch(self, codes: Sequence[Codes], *, native_rate: bool = False) -> list[Tensor]:
        """Decode several recordings together, each as ``decode`` would.

        Raises:
            CodesError: as for ``decode``.
        """
        for item in codes:
            self.check(item)
        results: list[Tensor | None] = [None] * len(codes)
        seconds = [item.num_frames / self.frame_rate for item in codes]
        short: list[int] = []
        for index, item in enumerate(codes):
            if item.num_frames == 0 or seconds[index] * item.channels > self.batch_seconds:
                results[index] = self.decode(item, native_rate=native_rate)
            else:
                short.append(index)
        short.sort(key=lambda i: seconds[i])
        channels = [item.channels for item in codes]
        for group in grouped(short, seconds, channels, self.batch_seconds):
            rows = [row for i in group for row in codes[i].indices]
            frames = torch.tensor([len(row) for row in rows])
            padded = torch.zeros(len(rows), int(frames.max()), dtype=torch.long)
            for target, row in zip(padded, rows):
                target[: len(row)] = torch.tensor(row)
            with self._inference():
                audio = self._model.decode(padded.to(self.device), frames.to(self.device))
                audio = audio.float().cpu().numpy()
            for i in group:
                own, audio = audio[: codes[i].channels], audio[codes[i].channels :]
                own = own[:, : self._native_samples(codes[i])]
                if not native_rate:
                    own = resample(
                        own, self.sample_rate, codes[i].sample_rate, codes[i].num_samples
                    )
                results[i] = torch.from_numpy(np.ascontiguousarray(own))
        return [waveform for waveform in results if waveform is not None]

    def decode_stream(self, codes: Codes, *, native_rate: bool = False) -> Iterator[np.ndarray]:
        """Decode block by block, in memory that does not grow with the length.

        Yields:
            (samples, channels) float32 arrays.

        Raises:
            CodesError: as for ``decode``.
        """
        self.check(codes)
        rate = self.sample_rate if native_rate else codes.sample_rate
        resampler = Resampler(self.sample_rate, rate, codes.channels)
        stream = self._model.decoder.stream()
        step = max(1, self._chunk(codes.channels) // self.hop_length)
        missing = self._native_samples(codes)
        wanted = missing if native_rate else codes.num_samples
        for start in range(0, codes.num_frames, step):
            final = start + step >= codes.num_frames
            with self._inference():
                indices = torch.tensor(codes.indices[:, start : start + step], device=self.device)
                waveform = stream.push(self._model.quantizer.decode(indices.long()), final)
                piece = waveform[:, :missing].float().cpu().numpy().T
            missing -= len(piece)
            block = resampler.push(piece, final)[:wanted]
            wanted -= len(block)
            if len(block):
                yield block

    def decode_file(
        self, codes: Codes, path: str | os.PathLike[str], *, native_rate: bool = False
    ) -> None:
        """Decode into a .wav or .flac file (PCM 16 bit) that appears whole or not at all.

        Raises:
            CodesError: as for ``decode``.
            AudioError: the file cannot be of that kind.
            OSError: it cannot be written.
        """
        rate = self.sample_rate if native_rate else codes.sample_rate
        samples = self._native_samples(codes) if native_rate else codes.num_samples
        with AudioWriter(Path(path), rate, codes.channels, num_samples=samples) as writer:
            for block in self.decode_stream(codes, native_rate=native_rate):
                writer.write(block)

    def check(self, codes: Codes) -> None:
        """Make sure that this model can decode ``codes``.

        Raises:
            CodesError: they are of another model, or their numbers do not fit together.
        """
        if codes.codes_id not in self._decodes:
            raise CodesError(
                f"these codes are {codes.codes_id}, the model {self.name} decodes {self.codes_id}; "
                "name the right one with --model"
            )
        if codes.codebook_size != self.codebook_size:
            raise CodesError(
                f"these codes are of a codebook of {codes.codebook_size} entries, the model has "
                f"{self.codebook_size}; the file was written wrongly"
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
            indices: integers (frames,) or (channels, frames).

        Raises:
            CodesError: the shape is another, or an index lies outside the codebook.
        """
        array = np.asarray(indices)
        frames = array.shape[-1] if array.ndim else 0
        return self._codes(array, self.sample_rate, frames * self.hop_length)

    # -- inside --------------------------------------------------------------------------------

    def _codes(self, indices: np.ndarray, sample_rate: int, num_samples: int) -> Codes:
        return Codes(indices, self.codebook_size, self.codes_id, sample_rate, num_samples)

    def _native_samples(self, codes: Codes) -> int:
        """Samples a channel at the model's rate."""
        return resampled_length(codes.num_samples, codes.sample_rate, self.sample_rate)

    def _chunk(self, channels: int) -> int:
        """Samples a channel in one forward pass, a whole number of frames."""
        frames = int(self.batch_seconds * self.frame_rate / channels)
        return max(1, frames) * self.hop_length

    def _encode_padded(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Indices of several mono waveforms at the model's rate, in one forward pass."""
        lengths = torch.tensor([len(waveform) for waveform in waveforms])
        padded = torch.zeros(len(waveforms), int(lengths.max()))
        for row, waveform in zip(padded, waveforms):
            row[: len(waveform)] = torch.from_numpy(waveform)
        with self._inference():
            indices = self._model.encode(padded.to(self.device), lengths.to(self.device))
        rows = indices.int().cpu().numpy()
        return [
            row[: frame_count(length, self.hop_length)]
            for row, length in zip(rows, lengths.tolist())
        ]

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """No gradients, and full float32 also where a GPU would round to TF32: the same codes."""
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            yield

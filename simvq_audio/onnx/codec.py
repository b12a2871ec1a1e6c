"""``Codec`` on ONNX Runtime: recordings to codes and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from simvq_audio.audio import AudioWriter, read_audio, resample, resampled_length
from simvq_audio.audio.resample import MAX_RATE, MIN_RATE
from simvq_audio.audio.waveform import as_waveform
from simvq_audio.bitstream import MAX_CHANNELS, Codes
from simvq_audio.errors import AudioError, CodesError, needs_extra
from simvq_audio.nested import NestedBook, book_by_id
from simvq_audio.onnx.model import DECODER, ENCODER, Description, load


class Codec:
    """Encodes and decodes with one model; the codes are those of ``simvq_audio.Codec``.

    The same but for rounding: where a latent lies halfway between two entries of the codebook, a
    code can differ (see docs/onnx.md for how often).

    Attributes:
        description: what the model says about itself.
    """

    def __init__(
        self,
        description: Description,
        graphs: Mapping[str, bytes],
        *,
        threads: int = 0,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        batch_seconds: float = 30.0,
    ) -> None:
        with needs_extra("onnx"):
            import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.description = description
        self._sessions = {
            name: onnxruntime.InferenceSession(graph, options, providers=list(providers))
            for name, graph in graphs.items()
        }
        self._batch_seconds = batch_seconds

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        threads: int = 0,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        batch_seconds: float = 30.0,
    ) -> Codec:
        """Load a model.

        Args:
            model: None for the embedded one, a model file, or a folder of
                ``simvq-audio export MODEL FOLDER --onnx``.
            threads: of ONNX Runtime; 0: one per core.
            providers: ONNX Runtime's execution providers, the preferred one first.
            batch_seconds: seconds of audio, over all channels, in one run of a graph.

        Raises:
            ModelError: the model cannot be found, is damaged, or is of a kind without a graph.
            MissingExtraError: onnxruntime is not installed.
        """
        return cls(*load(model), threads=threads, providers=providers, batch_seconds=batch_seconds)

    @property
    def sample_rate(self) -> int:
        """The model's sample rate in Hz."""
        return self.description.sample_rate

    @property
    def codes_id(self) -> str:
        """12 hexadecimal digits that ``.codes`` files name."""
        return self.description.codes_id

    def encode(self, waveform: Any, sample_rate: int) -> Codes:
        """Code a recording.

        Args:
            waveform: (samples,) or (channels, samples), floating point with full scale 1.
            sample_rate: of the waveform, in Hz.

        Raises:
            AudioError: another shape, NaN or infinity, no channel or more than 255, or a rate
                outside 1 kHz to 768 kHz.
        """
        array = as_waveform(waveform)
        if not 1 <= len(array) <= MAX_CHANNELS:
            raise AudioError(f"{len(array)} channels; 1 to {MAX_CHANNELS} can be coded")
        model, hop = self.description, self.description.hop_length
        native = resample(array, sample_rate, model.sample_rate)
        frames = -(-native.shape[1] // hop)

        def run(first: int, last: int) -> np.ndarray:
            window = np.ascontiguousarray(native[:, first * hop : last * hop])
            return self._sessions[ENCODER].run(["codes"], {"waveform": window})[0]

        indices = self._in_windows(run, len(array), frames, model.encoder_context, 1)
        return Codes(
            indices.astype(np.int32),
            model.codebook_size,
            model.codes_id,
            int(sample_rate),
            array.shape[1],
        )

    def decode(self, codes: Codes, *, native_rate: bool = False) -> np.ndarray:
        """Decode to (channels, samples) float32.

        Args:
            native_rate: at the model's sample rate instead of the original's.

        Raises:
            CodesError: the codes are of another model, or do not add up.
        """
        self.check(codes)
        model = self.description
        book = self._nested_book(codes)
        indices = codes.indices.astype(np.int64)
        if book is not None:
            indices = book.entries[indices]

        def run(first: int, last: int) -> np.ndarray:
            window = np.ascontiguousarray(indices[:, first:last])
            return self._sessions[DECODER].run(None, {"codes": window})[0]

        waveform = self._in_windows(
            run, codes.channels, codes.num_frames, model.decoder_context, model.hop_length
        ).astype(np.float32)
        waveform = waveform[:, : self._native_samples(codes)]
        if native_rate:
            return waveform
        return resample(waveform, model.sample_rate, codes.sample_rate, codes.num_samples)

    def encode_file(self, source: str | os.PathLike[str]) -> Codes:
        """Code an audio file.

        Raises:
            AudioError: it cannot be read or coded.
        """
        return self.encode(*read_audio(source))

    def decode_file(self, codes: Codes, target: str | os.PathLike[str]) -> None:
        """Decode into a .wav or .flac file (PCM 16 bit) that appears whole or not at all.

        Raises:
            CodesError: as for ``decode``.
            AudioError: the file cannot be of that kind.
            OSError: it cannot be written.
        """
        waveform = self.decode(codes)
        with AudioWriter(target, codes.sample_rate, codes.channels, codes.num_samples) as writer:
            writer.write(waveform.T)

    def check(self, codes: Codes) -> None:
        """Make sure that this model can decode ``codes``.

        Raises:
            CodesError: they are of another model, or their numbers do not fit together.
        """
        model = self.description
        book = self._nested_book(codes)
        if book is None and codes.codes_id not in (model.codes_id, *model.old_codes_ids):
            raise CodesError(
                f"these codes are {codes.codes_id}, the model {model.name} decodes {model.codes_id}"
            )
        size = model.codebook_size if book is None else book.size
        if codes.codebook_size != size:
            raise CodesError(
                f"these codes are of a codebook of {codes.codebook_size} entries, the model has "
                f"{size}; the file was written wrongly"
            )
        if not MIN_RATE <= codes.sample_rate <= MAX_RATE:
            raise CodesError(f"the codes claim a sample rate of {codes.sample_rate} Hz")
        frames = -(-self._native_samples(codes) // model.hop_length)
        if codes.num_frames != frames:
            raise CodesError(
                f"{codes.num_samples} samples at {codes.sample_rate} Hz make {frames} frames, "
                f"the codes have {codes.num_frames}; the file was written wrongly"
            )

    def _nested_book(self, codes: Codes) -> NestedBook | None:
        """The model's nested codebook that the codes belong to, or None."""
        book = book_by_id(codes.codes_id)
        return book if book and book.full_codes_id == self.codes_id else None

    def _native_samples(self, codes: Codes) -> int:
        return resampled_length(codes.num_samples, codes.sample_rate, self.sample_rate)

    def _in_windows(
        self,
        run: Callable[[int, int], np.ndarray],
        channels: int,
        frames: int,
        context: int,
        scale: int,
    ) -> np.ndarray:
        """The output for all frames, from windows that overlap by what an output depends on.

        Args:
            run: (first frame, behind the last) -> (channels, frames * scale).
        """
        model = self.description
        size = max(1, int(self._batch_seconds * model.sample_rate / model.hop_length / channels))
        parts = [np.empty((channels, 0), np.float32)]
        for start in range(0, frames, size):
            end = min(start + size, frames)
            first = max(0, start - context)
            window = run(first, min(end + context, frames))
            parts.append(window[:, (start - first) * scale : (end - first) * scale])
        return np.concatenate(parts, axis=1)

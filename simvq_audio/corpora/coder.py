"""Encodes recordings to rows of codes: short ones in batches, long ones in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from simvq_audio.audio import AudioReader
from simvq_audio.codec import Codec
from simvq_audio.codec.memory import WithinMemory
from simvq_audio.corpora.loading import Loaded, LongRecording, failed
from simvq_audio.corpora.records import Failure, Row, code_dtype
from simvq_audio.errors import FILE_ERRORS


class RowCoder:
    """Encodes loaded recordings.

    Attributes:
        dtype: of the codes.
    """

    def __init__(self, codec: Codec) -> None:
        self._memory = WithinMemory(codec)
        self.dtype = code_dtype(codec.codebook_size)

    @property
    def codec(self) -> Codec:
        """The given codec, or one with smaller ``batch_seconds`` after memory ran out."""
        return self._memory.codec

    def code(self, batch: Sequence[Loaded]) -> Iterator[Row | Failure]:
        """Encode recordings, in batches or pieces by their length; results keep the order."""
        short = [loaded for loaded in batch if loaded.waveform is not None]
        coded = iter(self._together(short))
        for loaded in batch:
            yield self._alone(loaded) if loaded.waveform is None else next(coded)

    def _together(self, batch: list[Loaded]) -> list[Row | Failure]:
        waveforms = [loaded.waveform for loaded in batch if loaded.waveform is not None]
        try:
            coded = self._memory.run(lambda codec: codec.encode_batch(waveforms, codec.sample_rate))
        except FILE_ERRORS as error:
            if len(batch) == 1:
                return [failed(batch[0].recording, error)]
            # One recording is at fault: encode them one by one, so that only it fails.
            return [self._together([loaded])[0] for loaded in batch]
        return [
            self._row(loaded, codes.indices, loaded.samples)
            for loaded, codes in zip(batch, coded, strict=True)
        ]

    def _alone(self, loaded: Loaded) -> Row | Failure:
        try:
            indices, samples = self._memory.run(lambda codec: self._stream(codec, loaded))
        except FILE_ERRORS as error:
            return failed(loaded.recording, error)
        return self._row(loaded, indices, samples)

    def _stream(self, codec: Codec, loaded: Loaded) -> tuple[np.ndarray, int]:
        recording = loaded.recording
        with AudioReader(recording.open(), name=recording.id) as reader:
            long = LongRecording(reader, recording, codec.sample_rate)
            codes = codec.encode_stream(long.blocks(), codec.sample_rate, long.channels)
        return codes.indices, long.samples

    def _row(self, loaded: Loaded, indices: np.ndarray, samples: int) -> Row:
        recording = loaded.recording
        codes = indices.astype(self.dtype)
        return Row(recording.id, codes, samples, loaded.rate, recording.columns)

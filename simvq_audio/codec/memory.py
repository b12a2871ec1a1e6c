"""Retries work with less audio in each pass of the model when memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from simvq_audio.codec.codec import Codec
from simvq_audio.errors import is_out_of_memory

_T = TypeVar("_T")

_LEAST_BATCH_SECONDS = 1.0


class WithinMemory:
    """Halves a codec's ``batch_seconds`` until work fits, down to a second.

    Attributes:
        codec: as it was given, or with less ``batch_seconds`` after memory ran out.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def run(self, work: Callable[[Codec], _T]) -> _T:
        """Do ``work``; if memory runs out, repeat it with half the audio in each pass."""
        while True:
            try:
                return work(self.codec)
            except Exception as error:
                seconds = self.codec.batch_seconds
                if not is_out_of_memory(error) or seconds <= _LEAST_BATCH_SECONDS:
                    raise
            # Outside the handler the exception, whose frames hold the tensors, has been freed.
            self.codec = self.codec.with_batch_seconds(max(_LEAST_BATCH_SECONDS, seconds / 2))
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

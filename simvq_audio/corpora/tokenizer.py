"""The codec as one callable class, for ``map_batches`` of Ray Data and ``map`` of datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from simvq_audio.audio import resample
from simvq_audio.audio.waveform import as_waveform
from simvq_audio.codec import Codec
from simvq_audio.corpora.coder import RowCoder
from simvq_audio.corpora.loading import Loaded, failed, load
from simvq_audio.corpora.records import Failure, Recording, Row
from simvq_audio.errors import FILE_ERRORS, AudioError, ConfigError


class Tokenizer:
    """Adds codes to a batch of recordings.

    >>> dataset.map(Tokenizer(), batched=True, batch_size=64)                # Hugging Face datasets
    >>> dataset.map_batches(Tokenizer, batch_format="pyarrow", concurrency=2)  # Ray Data

    The recordings are in one of these columns: ``audio``, each a dictionary with ``array`` and
    ``sampling_rate``, or with ``bytes`` or ``path``, as datasets has them; ``bytes``, the content
    of files; ``path``. The codes are those of ``Codec.encode``, whatever the batches are.

    What is added: ``codes``, of each recording an array of uint16 or uint32 (of several channels or
    codebooks one after the other); ``channels``; ``samples`` and ``rate`` of the original;
    ``codes_id``; ``error``, the reason if a recording gave nothing, or an empty text.

    Args:
        model, device, batch_seconds: as for ``Codec.load``.
        threads: that read and resample.
        drop: columns that the result shall not have; by default the content of the recordings.
    """

    def __init__(
        self,
        model: str | None = None,
        device: str = "auto",
        batch_seconds: float = 30.0,
        threads: int = 4,
        drop: Sequence[str] = ("audio", "bytes"),
    ) -> None:
        self._arguments = (model, device, batch_seconds, threads, tuple(drop))
        self._drop = frozenset(drop)
        self._threads = threads
        self._coder = RowCoder(Codec.load(model, device=device, batch_seconds=batch_seconds))

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[Any, ...]]:
        # Processes that receive a copy load the model themselves. datasets caches results by the
        # pickled function, which must not change.
        return type(self), self._arguments

    def __call__(self, batch: Any) -> Any:
        """Add the columns.

        Args:
            batch: columns by name, or a pyarrow table. Of Ray Data take tables: it makes tensors of
                an extension type of the arrays in columns by name.

        Returns:
            the same kind.

        Raises:
            ConfigError: none of the columns is there.
        """
        if isinstance(batch, Mapping):
            return self._columns(batch)
        return type(batch).from_pydict(self._columns(batch.to_pydict()))

    def _columns(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        results = self._coded(_sources(batch))
        codec = self._coder.codec
        rows = [result if isinstance(result, Row) else None for result in results]
        nothing = np.empty(0, self._coder.dtype)
        kept = {name: value for name, value in batch.items() if name not in self._drop}
        codes: list[np.ndarray] = [row.codes.reshape(-1) if row else nothing for row in rows]
        return {
            **kept,
            "codes": codes,
            "channels": np.array([len(row.codes) if row else 0 for row in rows], np.int32),
            "samples": np.array([row.samples if row else 0 for row in rows], np.int64),
            "rate": np.array([row.rate if row else 0 for row in rows], np.int32),
            "codes_id": [codec.codes_id] * len(rows),
            "error": [each.reason if isinstance(each, Failure) else "" for each in results],
        }

    def _coded(self, sources: Sequence[Any]) -> list[Row | Failure]:
        codec = self._coder.codec

        def read(source: Any) -> Loaded | Failure:
            return _loaded(source, codec.sample_rate, codec.batch_seconds)

        with ThreadPoolExecutor(self._threads) as pool:
            loaded = list(pool.map(read, sources))
        coded = iter(self._coder.code([each for each in loaded if isinstance(each, Loaded)]))
        return [next(coded) if isinstance(each, Loaded) else each for each in loaded]


def _sources(batch: Mapping[str, Any]) -> Sequence[Any]:
    for name in ("audio", "bytes", "path"):
        if name in batch:
            return batch[name]
    raise ConfigError(
        f"a column audio, bytes or path must be there; these are: {', '.join(batch) or 'none'}"
    )


def _loaded(source: Any, model_rate: int, limit: float) -> Loaded | Failure:
    """The recording in whichever column holds it."""
    if not isinstance(source, Mapping):
        if isinstance(source, bytes):
            return load(Recording("", source), model_rate, limit)
        return load(Recording(str(source), str(source)), model_rate, limit)
    name = str(source.get("path") or "")
    if source.get("array") is None:
        content = source.get("bytes") or name
        return load(Recording(name, content), model_rate, limit)
    recording = Recording(name, name)
    try:
        rate = source.get("sampling_rate")
        if rate is None:
            raise AudioError("an array needs a sampling_rate beside it")
        waveform = as_waveform(np.asarray(source["array"]))
        at_rate = resample(waveform, int(rate), model_rate)
        return Loaded(recording, at_rate, waveform.shape[1], int(rate))
    except FILE_ERRORS as error:
        return failed(recording, error)

"""Coding of many files, in batches that adapt to the memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from simvq_audio.audio import AudioReader, AudioWriter
from simvq_audio.bitstream import Codes
from simvq_audio.codec.codec import Codec
from simvq_audio.codec.files import read_codes, write_codes
from simvq_audio.codec.memory import WithinMemory
from simvq_audio.errors import FILE_ERRORS, failure_text

_T = TypeVar("_T")

# Short recordings are read ahead for this many batches, to group them by length.
_PASSES_AHEAD = 4


class FileJob(NamedTuple):
    """A file to be coded, and its output."""

    source: Path
    target: Path


@dataclass(frozen=True)
class JobResult:
    """The result of a job.

    Attributes:
        codes: what was coded; None if it failed.
        elapsed: seconds, with reading and writing; recordings coded together share the time.
        clipped: samples beyond full scale in what was decoded.
        failure: why it failed, in one line without the path of its source; None if it did not.
    """

    job: FileJob
    codes: Codes | None = None
    elapsed: float = 0.0
    clipped: int = 0
    failure: str | None = None


@dataclass
class _Loaded(Generic[_T]):
    """A loaded job that waits for its batch."""

    job: FileJob
    content: _T
    seconds: float  # over all channels
    elapsed: float


class FolderCoder:
    """Encodes or decodes files, short ones together.

    A file that fails gives a result with the reason, and the others are coded. If memory runs out,
    the batch is halved, down to a second of audio.

    Args:
        coding: of ``.codes`` files, see ``Codes.to_bytes``.
        kbps: bit rate to bring each recording to, see ``Codec.encode``.
    """

    def __init__(self, codec: Codec, coding: str = "entropy", kbps: float | None = None) -> None:
        self._kbps = kbps
        self._memory = WithinMemory(codec)
        self._coding = coding

    @property
    def codec(self) -> Codec:
        """The given codec, or one with smaller ``batch_seconds`` after memory ran out."""
        return self._memory.codec

    def encode(self, jobs: Iterable[tuple[Path, Path]]) -> Iterator[JobResult]:
        """Encode recordings to ``.codes``, or to ``.npy`` for bare indices.

        Args:
            jobs: source and target of each; folders of targets are made.

        Yields:
            a result for each job; not always in the order of the jobs.
        """

        def load(job: FileJob) -> tuple[tuple[np.ndarray, int] | None, float]:
            with AudioReader(job.source) as reader:
                # Each channel is a row of the batch.
                seconds = None if reader.duration is None else reader.duration * reader.channels
                if seconds is None or seconds >= self.codec.batch_seconds:
                    return None, 0.0
                return (reader.read(), reader.sample_rate), seconds

        def code(recordings: list[tuple[np.ndarray, int]]) -> list[Codes]:
            waveforms, rates = zip(*recordings)
            return self._memory.run(
                lambda codec: codec.encode_batch(waveforms, rates, kbps=self._kbps)
            )

        def write(job: FileJob, _: Any, codes: Codes) -> JobResult:
            write_codes(codes, job.target, self._coding)
            return JobResult(job, codes)

        def stream(job: FileJob) -> JobResult:
            codes = self._memory.run(lambda codec: codec.encode_file(job.source, kbps=self._kbps))
            return write(job, None, codes)

        return self._run(jobs, load, code, write, stream)

    def decode(
        self, jobs: Iterable[tuple[Path, Path]], *, native_rate: bool = False
    ) -> Iterator[JobResult]:
        """Decode ``.codes`` and ``.npy`` files to ``.wav`` or ``.flac``.

        Args:
            jobs: as for ``encode``.
            native_rate: write at the model's sample rate instead of the original's.

        Yields:
            results as ``encode`` does.
        """

        def load(job: FileJob) -> tuple[Codes | None, float]:
            codes = read_codes(job.source, self.codec)
            seconds = codes.num_frames / self.codec.frame_rate * codes.channels
            return (codes if seconds < self.codec.batch_seconds else None), seconds

        def code(batch: list[Codes]) -> list[torch.Tensor]:
            return self._memory.run(
                lambda codec: codec.decode_batch(batch, native_rate=native_rate)
            )

        def write(job: FileJob, codes: Codes, waveform: torch.Tensor) -> JobResult:
            rate = self.codec.sample_rate if native_rate else codes.sample_rate
            with AudioWriter(job.target, rate, codes.channels) as writer:
                writer.write(waveform.numpy().T)
            return JobResult(job, codes, clipped=writer.clipped)

        def stream(job: FileJob) -> JobResult:
            codes = read_codes(job.source, self.codec)
            clipped = self._memory.run(
                lambda codec: codec.decode_file(codes, job.target, native_rate=native_rate)
            )
            return JobResult(job, codes, clipped=clipped)

        return self._run(jobs, load, code, write, stream)

    def _run(
        self,
        jobs: Iterable[tuple[Path, Path]],
        load: Callable[[FileJob], tuple[_T | None, float]],
        code: Callable[[list[_T]], list[Any]],
        write: Callable[[FileJob, _T, Any], JobResult],
        stream: Callable[[FileJob], JobResult],
    ) -> Iterator[JobResult]:
        """Load short files and code them together; stream the others.

        Args:
            load: content and seconds of a short file; no content of a long one.
        """
        waiting: list[_Loaded[_T]] = []
        for source, target in jobs:
            job = FileJob(source, target)
            start = time.perf_counter()
            try:
                content, seconds = load(job)
                if content is None:
                    job.target.parent.mkdir(parents=True, exist_ok=True)
                    yield _timed(stream(job), time.perf_counter() - start)
                    continue
            except FILE_ERRORS as error:
                yield _failed(job, error)
                continue
            waiting.append(_Loaded(job, content, seconds, time.perf_counter() - start))
            if sum(item.seconds for item in waiting) >= _PASSES_AHEAD * self.codec.batch_seconds:
                yield from self._finish(waiting, code, write)
                waiting = []
        yield from self._finish(waiting, code, write)

    def _finish(
        self,
        batch: list[_Loaded[_T]],
        code: Callable[[list[_T]], list[Any]],
        write: Callable[[FileJob, _T, Any], JobResult],
    ) -> Iterator[JobResult]:
        """Code files together and write the results."""
        if not batch:
            return
        start = time.perf_counter()
        try:
            coded = code([item.content for item in batch])
        except FILE_ERRORS as error:
            if len(batch) == 1:
                yield _failed(batch[0].job, error)
                return
            coded = None
        if coded is None:
            # One of them is at fault: code them one by one, so that only it fails.
            for item in batch:
                yield from self._finish([item], code, write)
            return
        elapsed = time.perf_counter() - start
        total = sum(item.seconds for item in batch)
        for item, made in zip(batch, coded, strict=True):
            share = elapsed * item.seconds / total if total else elapsed / len(batch)
            start = time.perf_counter()
            try:
                item.job.target.parent.mkdir(parents=True, exist_ok=True)
                result = write(item.job, item.content, made)
            except FILE_ERRORS as error:
                yield _failed(item.job, error)
                continue
            yield _timed(result, item.elapsed + share + time.perf_counter() - start)


def _timed(result: JobResult, elapsed: float) -> JobResult:
    return JobResult(result.job, result.codes, elapsed, result.clipped)


def _failed(job: FileJob, error: BaseException) -> JobResult:
    return JobResult(job, failure=failure_text(error, str(job.source)))

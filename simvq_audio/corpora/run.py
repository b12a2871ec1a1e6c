"""Encodes a corpus to shards, in a run that can be killed and resumed at any point."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from simvq_audio.codec import Codec
from simvq_audio.corpora.coder import RowCoder
from simvq_audio.corpora.corpus import Corpus, CorpusError
from simvq_audio.corpora.journal import Journal, PartDone
from simvq_audio.corpora.loading import Loaded, ReadAhead, load
from simvq_audio.corpora.records import Failure, Recording, Row
from simvq_audio.corpora.writers import WRITERS

# Recordings that fill this many passes of the model are read ahead, to batch them by length.
_PASSES_AHEAD = 16
_MOST_WAITING = 4096


@dataclass(frozen=True)
class Worker:
    """One of several processes; each does every ``world_size``-th part.

    Raises:
        CorpusError: the rank is not one of them.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise CorpusError(
                f"rank {self.rank} of {self.world_size}: ranks are 0 to {self.world_size - 1}"
            )

    @classmethod
    def of_environment(cls) -> Worker:
        """From RANK and WORLD_SIZE, as torchrun sets them; a single worker without them."""
        try:
            return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
        except ValueError as error:
            if isinstance(error, CorpusError):
                raise
            raise CorpusError("RANK and WORLD_SIZE of the environment must be numbers") from error


@dataclass
class Summary:
    """Results over the parts of one worker, or of all.

    Attributes:
        parts: done, those of earlier runs included.
        parts_in_all: there are; of a worker its own.
        rows: recordings coded.
        seconds: their length.
        frames: codes of one channel each.
        failures: those that gave nothing.
    """

    parts_in_all: int = 0
    parts: int = 0
    rows: int = 0
    seconds: float = 0.0
    frames: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, done: PartDone) -> None:
        """Add a part."""
        self.parts += 1
        self.rows += done.rows
        self.seconds += done.seconds
        self.frames += done.frames
        self.failures += [Failure(*each) for each in done.failures]

    @property
    def recordings(self) -> int:
        """Recordings processed, failures included."""
        return self.rows + len(self.failures)

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Reasons of failure with their counts, most frequent first."""
        return Counter(failure.reason for failure in self.failures).most_common()


@dataclass
class _Part:
    """A part in progress; ``total`` is known once the part has been read."""

    results: dict[int, Row | Failure] = field(default_factory=dict)
    total: int | None = None
    trouble: list[Failure] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return self.total is not None and len(self.results) == self.total


@dataclass(frozen=True)
class _Item:
    part: int
    position: int
    recording: Recording


class TokenizeRun:
    """Encodes a corpus into a folder.

    Attributes:
        parts_left: of this worker, to be done.
        recordings_left: in them, when the run begins; None if that is not known.

    Args:
        format: "parquet", "webdataset" or "shar".
        threads: that read and resample.
        retry_failed: do parts again of which recordings failed.

    Raises:
        CorpusError: the folder cannot be used.
        MissingExtraError: a package is missing.
    """

    def __init__(
        self,
        codec: Codec,
        corpus: Corpus,
        out: Path,
        *,
        format: str = "parquet",
        worker: Worker | None = None,
        threads: int = 2,
        retry_failed: bool = False,
        shard_size: int = 1000,
    ) -> None:
        self._corpus = corpus
        self._worker = worker or Worker()
        self._threads = threads
        self._coder = RowCoder(codec)
        # Checked before the folder is created: a package may be missing.
        self._writer = WRITERS[format](out, codec, corpus.columns)
        plan = {
            "format": format,
            "codes_id": codec.codes_id,
            "kind": corpus.kind,
            "shard_size": None if corpus.count is None else shard_size,
            "fingerprint": corpus.fingerprint,
            "count": corpus.count,
            "parts": corpus.num_parts,
        }
        self._journal = Journal(out, plan)
        self._own = range(self._worker.rank, corpus.num_parts, self._worker.world_size)
        self._to_do = {part for part in self._own if self._open(part, retry_failed)}
        self.parts_left = len(self._to_do)
        self.recordings_left: int | None = None
        if corpus.count is not None:
            count = corpus.count
            self.recordings_left = sum(
                min(shard_size, count - part * shard_size) for part in self._to_do
            )

    def _open(self, part: int, retry_failed: bool) -> bool:
        done = self._journal.done(part)
        return done is None or (retry_failed and bool(done.failures))

    def done_before(self) -> Summary:
        """The parts of this worker that earlier runs did."""
        return self._sum(part for part in self._own if part not in self._to_do)

    def done_by_all(self) -> Summary:
        """The parts of all workers that are done by now."""
        return self._sum(iter(range(self._corpus.num_parts)), self._corpus.num_parts)

    def _sum(self, parts: Iterator[int], in_all: int | None = None) -> Summary:
        summary = Summary(len(self._own) if in_all is None else in_all)
        for part in parts:
            done = self._journal.done(part)
            if done is not None:
                summary.add(done)
        return summary

    def run(
        self, progress: Callable[[int, float], None] = lambda recordings, seconds: None
    ) -> None:
        """Do this worker's remaining parts.

        Args:
            progress: told of recordings that are done, and the seconds of audio among them.

        Raises:
            CorpusError: another process is at work on the same parts.
            OSError: a shard cannot be written.
        """
        with self._journal.locked(self._worker.rank, self._worker.world_size):
            if self._to_do:
                for part in sorted(self._to_do):
                    self._journal.clear(part)
                self._run(progress)

    def _run(self, progress: Callable[[int, float], None]) -> None:
        codec = self._coder.codec
        window = _PASSES_AHEAD * codec.batch_seconds
        parts: dict[int, _Part] = {}
        ready = ReadAhead(
            self._items(parts),
            lambda item: (item, load(item.recording, codec.sample_rate, codec.batch_seconds)),
            self._threads,
            cost=lambda loaded: _seconds(loaded[1], codec.sample_rate),
            budget=window,
        )
        waiting: list[tuple[_Item, Loaded]] = []
        held = 0.0
        for item, loaded in ready:
            if isinstance(loaded, Failure):
                self._note(parts, [(item, loaded)], progress)
                continue
            if loaded.waveform is None:
                self._code(parts, [(item, loaded)], progress)
                continue
            waiting.append((item, loaded))
            held += _seconds(loaded, codec.sample_rate)
            if held >= window or len(waiting) >= _MOST_WAITING:
                self._code(parts, waiting, progress)
                waiting, held = [], 0.0
        self._code(parts, waiting, progress)
        self._close_complete(parts)

    def _items(self, parts: dict[int, _Part]) -> Iterator[_Item]:
        """The recordings to do; each part that is begun is added to ``parts``."""
        for number, recordings in self._corpus.parts(self._to_do.__contains__):
            part = parts[number] = _Part()
            position = 0
            try:
                for recording in recordings:
                    yield _Item(number, position, recording)
                    position += 1
            except CorpusError as error:
                text = str(error)
                part.trouble.append(Failure(text.partition(": ")[0], text.partition(": ")[2]))
            part.total = position

    def _code(
        self,
        parts: dict[int, _Part],
        batch: list[tuple[_Item, Loaded]],
        progress: Callable[[int, float], None],
    ) -> None:
        results = self._coder.code([loaded for _, loaded in batch])
        self._note(parts, [(item, next(results)) for item, _ in batch], progress)

    def _note(
        self,
        parts: dict[int, _Part],
        results: list[tuple[_Item, Row | Failure]],
        progress: Callable[[int, float], None],
    ) -> None:
        for item, result in results:
            parts[item.part].results[item.position] = result
        seconds = sum(result.seconds for _, result in results if isinstance(result, Row))
        self._close_complete(parts)
        progress(len(results), seconds)

    def _close_complete(self, parts: dict[int, _Part]) -> None:
        # All of them, since a part's last result can come before its end is known; a copy, since
        # readers begin parts meanwhile.
        for number in sorted(list(parts)):
            if parts[number].complete:
                self._close(number, parts.pop(number))

    def _close(self, number: int, part: _Part) -> None:
        """Write and record the shard of a part."""
        results = [part.results[position] for position in sorted(part.results)]
        rows = [result for result in results if isinstance(result, Row)]
        failures = [result for result in results if isinstance(result, Failure)] + part.trouble
        self._writer.write(number, rows)
        done = PartDone(
            part=number,
            rows=len(rows),
            seconds=sum(row.seconds for row in rows),
            frames=sum(row.codes.shape[-1] for row in rows),
            failures=[(failure.id, failure.reason) for failure in failures],
        )
        self._journal.note(done)
        self.parts_left -= 1


def _seconds(loaded: Loaded | Failure, rate: int) -> float:
    """A recording's share of the read-ahead memory, in seconds of one channel."""
    if isinstance(loaded, Failure):
        return 0.0
    if loaded.waveform is None:
        # A path, or the bytes of the file.
        return len(loaded.recording.source) / 4 / rate
    return loaded.waveform.size / rate

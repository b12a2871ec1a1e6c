"""Recordings read and resampled in threads, while the model computes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import Full, Queue
from typing import Any, Generic, TypeVar

import numpy as np

from simvq_audio.audio import AudioReader, Resampler, resample
from simvq_audio.corpora.records import Failure, Recording
from simvq_audio.errors import FILE_ERRORS, AudioError, failure_text

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Loaded:
    """A loaded recording.

    Attributes:
        waveform: at the model's rate, (channels, samples) float32; None of a long recording, which
            is read while it is coded.
        samples: a channel of the original, if it was read.
        rate: of the original, Hz.
    """

    recording: Recording
    waveform: np.ndarray | None
    samples: int
    rate: int


def load(recording: Recording, model_rate: int, limit: float) -> Loaded | Failure:
    """Read a recording and bring it to the model's rate.

    Args:
        limit: seconds over all channels from which on a recording is not loaded whole.
    """
    try:
        with AudioReader(recording.open(), name=recording.id) as reader:
            length = reader.duration if recording.duration is None else recording.duration
            if length is None or length * reader.channels >= limit:
                return Loaded(recording, None, 0, reader.sample_rate)
            blocks = [np.empty((0, reader.channels), np.float32), *segment(reader, recording)]
            waveform = np.ascontiguousarray(np.concatenate(blocks).T)
            at_rate = resample(waveform, reader.sample_rate, model_rate)
            return Loaded(recording, at_rate, waveform.shape[1], reader.sample_rate)
    except FILE_ERRORS as error:
        return failed(recording, error)


def failed(recording: Recording, error: BaseException) -> Failure:
    """An exception as a ``Failure``."""
    name = recording.source if isinstance(recording.source, str) else recording.id
    text = failure_text(error, recording.id)
    return Failure(recording.id, text.removeprefix(f"{name}: "))


def segment(reader: AudioReader, recording: Recording) -> Iterator[np.ndarray]:
    """The recording, which may be a part of a file, in blocks.

    Raises:
        AudioError: the file is damaged, or ends before the recording begins.
    """
    first = round(recording.offset * reader.sample_rate)
    last = None
    if recording.duration is not None:
        last = first + round(recording.duration * reader.sample_rate)
    position = 0
    for block in reader.blocks():
        start = position
        position += len(block)
        if last is not None and start >= last:
            return
        part = block[max(0, first - start) : None if last is None else last - start]
        if len(part):
            yield part
    if first and position <= first:
        raise AudioError(
            f"ends at {position / reader.sample_rate:.2f} s, before the offset of "
            f"{recording.offset:g} s"
        )


class LongRecording:
    """Blocks of a long recording at the model's rate, read and resampled ahead in a thread.

    Attributes:
        channels: of the recording.
        samples: a channel of the original, once all blocks were taken.
    """

    _BLOCKS_AHEAD = 4

    def __init__(self, reader: AudioReader, recording: Recording, model_rate: int) -> None:
        self._resampler = Resampler(reader.sample_rate, model_rate, reader.channels)
        self._blocks = segment(reader, recording)
        self.channels = reader.channels
        self.samples = 0

    def blocks(self) -> Iterator[np.ndarray]:
        """(samples, channels) float32 arrays.

        Raises:
            AudioError: the file is damaged.
        """
        yield from _ahead(self._resampled(), self._BLOCKS_AHEAD)

    def _resampled(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self.samples += len(block)
            yield self._resampler.push(block)
        yield self._resampler.push(np.empty((0, self.channels), np.float32), final=True)


def _ahead(items: Iterator[_T], count: int) -> Iterator[_T]:
    """Take from ``items`` in a thread, up to ``count`` ahead."""
    queue: Queue[tuple[_T | None, BaseException | None]] = Queue(count)
    stopped = threading.Event()

    def put(entry: tuple[_T | None, BaseException | None]) -> None:
        while not stopped.is_set():
            try:
                queue.put(entry, timeout=0.1)
                return
            except Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put((item, None))
                if stopped.is_set():
                    return
            put((None, None))
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stopped.set()
        thread.join()


class ReadAhead(Generic[_T, _R]):
    """Maps a function over items in threads; results come in the order of completion.

    Items are taken from the iterable by one thread at a time. While results that nobody took make
    up the budget, no further item is begun.

    Args:
        items: an exception while they are made ends the iteration with it.
        function: raises nothing.
        cost: of a result, in units of the budget.
        budget: how much may wait.
    """

    def __init__(
        self,
        items: Iterable[_T],
        function: Callable[[_T], _R],
        threads: int,
        cost: Callable[[_R], float],
        budget: float,
    ) -> None:
        self._items = iter(items)
        self._function = function
        self._cost = cost
        self._budget = budget
        self._waiting = 0.0
        self._source = threading.Lock()
        self._room = threading.Condition()
        self._results: Queue[tuple[str, Any]] = Queue()
        self._stopped = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]

    def _work(self) -> None:
        while True:
            # Wait before taking an item, so that every item taken is finished.
            with self._room:
                self._room.wait_for(lambda: self._stopped or self._waiting < self._budget)
            with self._source:
                if self._stopped:
                    break
                try:
                    item = next(self._items)
                except StopIteration:
                    break
                except BaseException as error:
                    self._stopped = True
                    self._results.put(("error", error))
                    break
            try:
                result = self._function(item)
            except BaseException as error:
                self._results.put(("error", error))
                break
            with self._room:
                self._waiting += self._cost(result)
            self._results.put(("result", result))
        self._results.put(("end", None))

    def __iter__(self) -> Iterator[_R]:
        """Start the threads and yield results; they end with the iteration."""
        for thread in self._threads:
            thread.start()
        running = len(self._threads)
        try:
            while running:
                kind, value = self._results.get()
                if kind == "end":
                    running -= 1
                elif kind == "error":
                    raise value
                else:
                    with self._room:
                        self._waiting -= self._cost(value)
                        self._room.notify_all()
                    yield value
        finally:
            with self._room:
                self._stopped = True
                self._room.notify_all()
            for thread in self._threads:
                thread.join()

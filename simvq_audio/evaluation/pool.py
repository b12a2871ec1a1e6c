"""Worker processes that score, one file at a time each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from simvq_audio.evaluation.metric import Metric
from simvq_audio.evaluation.protocol import Protocol
from simvq_audio.evaluation.scoring import FileScores, Scorer, ScoringJob

# Each process computes with one thread: as many processes as cores are busy already.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)
_DIED = "the process that scored it died; out of memory, or a metric crashed"

_scorer: Scorer


def score_all(
    jobs: Sequence[ScoringJob],
    metrics: Sequence[type[Metric]],
    protocol: Protocol,
    processes: int,
) -> Generator[tuple[ScoringJob, FileScores], None, None]:
    """Score recordings in processes of their own, in no particular order.

    A process that dies takes the pool with it. The files that were in work are then tried again
    alone; the one that does it again has failed, and the rest goes on.
    """
    left = deque(jobs)
    while left:
        suspects: list[ScoringJob] = []
        with _executor(metrics, protocol, min(processes, len(left))) as pool:
            in_work: dict[Future[FileScores], ScoringJob] = {}
            try:
                while left or in_work:
                    # No more than there are processes, so that a death has few suspects.
                    while left and len(in_work) < processes:
                        future = pool.submit(_score, left[0])
                        in_work[future] = left.popleft()
                    done, _ = wait(in_work, return_when=FIRST_COMPLETED)
                    for future in done:
                        scores = future.result()
                        yield in_work.pop(future), scores
            except BrokenProcessPool:
                suspects = list(in_work.values())
        for job in suspects:
            yield job, _score_alone(job, metrics, protocol)


def _score_alone(
    job: ScoringJob, metrics: Sequence[type[Metric]], protocol: Protocol
) -> FileScores:
    with _executor(metrics, protocol, 1) as pool:
        try:
            return pool.submit(_score, job).result()
        except BrokenProcessPool:
            return FileScores(failure=_DIED)


@contextmanager
def _executor(
    metrics: Sequence[type[Metric]], protocol: Protocol, processes: int
) -> Iterator[ProcessPoolExecutor]:
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    # The libraries read these when they are imported; the processes start with the first jobs.
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        # spawn: torch's threads do not survive a fork.
        with ProcessPoolExecutor(
            processes,
            multiprocessing.get_context("spawn"),
            _start,
            (tuple(metrics), protocol),
        ) as pool:
            yield pool
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start(metrics: Sequence[type[Metric]], protocol: Protocol) -> None:
    global _scorer
    # Ctrl-C reaches every process of a terminal: these end at once, the parent reports it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _scorer = Scorer(metrics, protocol)


def _end_with_parent() -> None:
    """A parent that was killed leaves its processes waiting for jobs, for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _score(job: ScoringJob) -> FileScores:
    return _scorer.score(job)

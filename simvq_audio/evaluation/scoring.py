"""Scoring recordings, one after the other in each of several processes."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from simvq_audio.audio import read_audio
from simvq_audio.bitstream import Codes
from simvq_audio.errors import FILE_ERRORS, AudioError, failure_text
from simvq_audio.evaluation.alignment import align
from simvq_audio.evaluation.metric import Metric, UnscorableError
from simvq_audio.evaluation.protocol import ScoringProtocol
from simvq_audio.evaluation.round_trip import CodedFile
from simvq_audio.evaluation.trial import CodingRecord, Trial

# One thread per process, since there are as many processes as cores.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)
_DIED = "the process that scored it died; out of memory, or a metric crashed"


@dataclass(frozen=True)
class ScoringJob:
    """One recording of one system, to be scored.

    Attributes:
        system: name of the system.
        name: of the recording.
        reference, decoded: absolute paths.
        metrics: names of those to compute.
        delay: samples to remove from the front of the decoded file, at ``delay_rate`` Hz.
        coded: how it was coded, if that is known.
        keeps_decoded: whether the decoded file is kept for the report.
    """

    system: str
    name: str
    reference: str
    decoded: str
    metrics: tuple[str, ...]
    delay: int = 0
    delay_rate: int | None = None
    coded: CodedFile | None = None
    keeps_decoded: bool = True


@dataclass(frozen=True)
class FileScores:
    """The scores of one recording.

    Attributes:
        duration: seconds.
        scores: by metric.
        problems: why a metric has no score, by metric.
        errors: those of ``problems`` in which a metric raised an unexpected exception; by metric.
        failure: why nothing could be scored, or None.
    """

    duration: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    failure: str | None = None


class Scorer:
    """Scores recordings by instances of metrics that are made once.

    Args:
        metrics: the classes.
        protocol: how signals are prepared.

    Raises:
        MissingExtraError: a metric needs a package that is not installed.
    """

    def __init__(self, metrics: Sequence[type[Metric]], protocol: ScoringProtocol) -> None:
        self._metrics = {metric.name: metric() for metric in metrics}
        self._protocol = protocol

    def score(self, job: ScoringJob) -> FileScores:
        """Score a recording; a score is the mean over channels.

        A metric that cannot score one of the channels has no score for the recording.
        """
        try:
            trials = load_trials(job, self._protocol)
        except FILE_ERRORS as error:
            return FileScores(failure=failure_text(error, job.reference))
        scores: dict[str, float] = {}
        problems: dict[str, str] = {}
        errors: dict[str, str] = {}
        for name in job.metrics:
            try:
                value = _channel_mean(self._metrics[name], trials)
            except UnscorableError as error:
                problems[name] = str(error)
            # A metric may raise anything, which must not affect the other scores.
            except Exception as error:
                problems[name] = errors[name] = f"{type(error).__name__}: {error}"
            else:
                if math.isfinite(value):
                    scores[name] = value
                else:
                    problems[name] = f"the score is {value}, which has no mean"
        return FileScores(trials[0].duration, scores, problems, errors)


def load_pair(job: ScoringJob, protocol: ScoringProtocol) -> tuple[np.ndarray, np.ndarray, int]:
    """A recording and its decoded file, (channels, samples) each, and their rate in Hz.

    The decoded file is brought to the rate of the recording; their lengths can differ.

    Raises:
        AudioError: one of them cannot be read, is empty, or has another number of channels.
    """
    reference, rate = read_audio(job.reference)
    if not reference.size:
        raise AudioError(f"{job.reference}: holds no samples")
    decoded, decoded_rate = read_audio(job.decoded)
    if len(decoded) != len(reference):
        raise AudioError(
            f"{job.decoded}: {len(decoded)} channels, and {len(reference)} in the original"
        )
    decoded = protocol.prepare(decoded)
    if decoded_rate != rate:
        decoded = np.stack([protocol.resample(row, decoded_rate, rate) for row in decoded])
    return reference, decoded, rate


def load_trials(job: ScoringJob, protocol: ScoringProtocol) -> list[Trial]:
    """A recording and its decoded file as trials, one per channel, without delay.

    Raises:
        AudioError: as for ``load_pair``.
        AlignmentError: the decoded file is much shorter.
    """
    reference, decoded, rate = load_pair(job, protocol)
    delay = 0 if job.delay_rate is None else round(job.delay * rate / job.delay_rate)
    coding = None if job.coded is None else _coding(job.coded)
    return [
        Trial(*align(original, result, delay, rate), rate, protocol.resample, coding)
        for original, result in zip(reference, decoded)
    ]


def _coding(coded: CodedFile) -> CodingRecord:
    codes = Codes.load(coded.codes)
    again = None if coded.reencoded is None else Codes.load(coded.reencoded).indices
    return CodingRecord(
        codes.indices,
        codes.codebook_size,
        codes.payload_bits,
        os.path.getsize(coded.codes),
        coded.encode_seconds,
        coded.decode_seconds,
        again,
    )


def _channel_mean(metric: Metric, trials: Sequence[Trial]) -> float:
    values = []
    for number, trial in enumerate(trials, start=1):
        try:
            values.append(float(metric.score(trial)))
        except UnscorableError as error:
            if len(trials) == 1:
                raise
            raise UnscorableError(f"channel {number}: {error}") from error
    return float(np.mean(values))


def job_key(
    job: ScoringJob,
    metric: type[Metric],
    digests: Mapping[str, str],
    protocol: str,
    versions: Mapping[str, str],
) -> dict[str, object]:
    """Everything that a score depends on, as the ledger's key.

    Args:
        digests: of the contents of the job's audio files, by path.
        versions: of the packages that compute this metric.
    """
    key: dict[str, object] = {
        "kind": "score",
        "metric": metric.name,
        "reference": digests[job.reference],
        "decoded": digests[job.decoded],
        "protocol": protocol,
        "delay": [job.delay, job.delay_rate],
        "versions": dict(versions),
    }
    if metric.needs_coding and job.coded is not None:
        coded = job.coded
        key["coding"] = [
            coded.codes_digest,
            coded.reencoded_digest if metric.needs_reencoding else None,
            coded.encode_seconds,
            coded.decode_seconds,
        ]
    return key


_scorer: Scorer


def score_all(
    jobs: Sequence[ScoringJob],
    metrics: Sequence[type[Metric]],
    protocol: ScoringProtocol,
    processes: int,
) -> Generator[tuple[ScoringJob, FileScores], None, None]:
    """Score recordings in several processes, in no particular order.

    If a process dies, the pool breaks. The files in work are then tried again one by one; one that
    breaks the pool again has failed, and the others continue.
    """
    left = deque(jobs)
    while left:
        suspects: list[ScoringJob] = []
        with _executor(metrics, protocol, min(processes, len(left))) as pool:
            in_work: dict[Future[FileScores], ScoringJob] = {}
            try:
                while left or in_work:
                    # No more than the processes, so that few files are tried again.
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
    job: ScoringJob, metrics: Sequence[type[Metric]], protocol: ScoringProtocol
) -> FileScores:
    with _executor(metrics, protocol, 1) as pool:
        try:
            return pool.submit(_score, job).result()
        except BrokenProcessPool:
            return FileScores(failure=_DIED)


@contextmanager
def _executor(
    metrics: Sequence[type[Metric]], protocol: ScoringProtocol, processes: int
) -> Iterator[ProcessPoolExecutor]:
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    # Libraries read these on import, in processes that start with the first jobs.
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


def _start(metrics: Sequence[type[Metric]], protocol: ScoringProtocol) -> None:
    global _scorer
    # Ctrl-C reaches all processes of a terminal: these end at once, and the parent reports it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _scorer = Scorer(metrics, protocol)


def _end_with_parent() -> None:
    """End this process when its parent is killed, instead of waiting for jobs for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _score(job: ScoringJob) -> FileScores:
    return _scorer.score(job)

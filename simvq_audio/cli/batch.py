"""Encoding and decoding of whole folders."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simvq_audio.cli.coding import (
    Outcome,
    checked_codes,
    decode_stream,
    encode_stream,
    open_codes,
    write_codes,
)
from simvq_audio.cli.console import (
    STANDARD_STREAM,
    CommandError,
    describe_duration,
    describe_size,
    print_json,
    print_message,
    print_problem,
    progress,
)
from simvq_audio.cli.options import Settings
from simvq_audio.cli.paths import (
    CODES_SUFFIX,
    INDICES_SUFFIX,
    Failure,
    Job,
    find_jobs,
    refuse_same,
    refuse_target_folder,
)
from simvq_audio.errors import SimvqAudioError, os_error_text

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np

    from simvq_audio.bitstream import Codes
    from simvq_audio.codec import Codec


class FolderRun:
    """One folder being encoded or decoded: what there is to do, and what came of it.

    A file that fails is noted, and the rest is done.

    Raises:
        CommandError: the paths cannot be used, or the folder holds nothing to do.
    """

    def __init__(
        self,
        source: str,
        target: str,
        suffixes: Collection[str],
        target_suffix: str,
        settings: Settings,
    ) -> None:
        if target == STANDARD_STREAM:
            raise CommandError(f"{source}: is a folder, so OUT must be a folder and not -")
        refuse_same(source, target)
        refuse_target_folder(Path(target))
        self._source = source
        self._target = target
        self._settings = settings
        self.coding = settings.coding
        found, self.failures = find_jobs(Path(source), Path(target), suffixes, target_suffix)
        self.jobs = [job for job in found if settings.force or not job.target.exists()]
        self._skipped = len(found) - len(self.jobs)
        self._outcomes: list[Outcome] = []
        self._start = time.perf_counter()
        self.advance: Callable[[float], None] = lambda files: None

    def run(self, code_all: Callable[[Codec, FolderRun], None], label: str) -> None:
        """Load the model if there is work, let ``code_all`` do it, and report.

        Raises:
            ModelError, ConfigError: the model cannot be loaded.
            CommandError: some files failed; raised after the rest is done and reported.
        """
        if self.jobs:
            codec = self._settings.load_codec()
            self._start = time.perf_counter()
            with progress(label, len(self.jobs), quiet=self._settings.quiet) as advance:
                self.advance = advance
                code_all(codec, self)
        self._report(time.perf_counter() - self._start)

    def done(self, outcome: Outcome) -> None:
        """Note a file that was written."""
        self._outcomes.append(outcome)
        self.advance(1)

    def failed(self, job: Job, error: SimvqAudioError | OSError) -> None:
        """Note a file that gave nothing."""
        reason = os_error_text(error) if isinstance(error, OSError) else str(error)
        self.failures.append(Failure(job.source, reason))
        self.advance(1)

    def _report(self, elapsed: float) -> None:
        seconds = sum(outcome.codes.duration for outcome in self._outcomes)
        bits = sum(outcome.codes.payload_bits for outcome in self._outcomes)
        sizes = sum(outcome.codes_bytes for outcome in self._outcomes)
        totals = {
            "files": len(self._outcomes),
            "seconds": seconds,
            "bytes": sum(outcome.target_bytes or 0 for outcome in self._outcomes),
            "nominal_kbps": bits / seconds / 1000 if seconds else 0.0,
            "file_kbps": 8 * sizes / seconds / 1000 if seconds else 0.0,
            "elapsed_seconds": elapsed,
            "times_real_time": seconds / max(elapsed, 1e-9),
        }
        failures = sorted(self.failures, key=lambda failure: failure.source)
        if self._settings.as_json:
            print_json(
                {
                    "input": self._source,
                    "output": self._target,
                    "files": [outcome.as_json() for outcome in self._outcomes],
                    "skipped": self._skipped,
                    "failures": [
                        {"input": str(failure.source), "error": failure.reason}
                        for failure in failures
                    ],
                    "totals": totals,
                }
            )
        elif not self._settings.quiet:
            print_message(self._summary(totals))
        for failure in failures:
            # Most reasons begin with the path already; those of collisions do not.
            path = str(failure.source)
            named = failure.reason.startswith(path)
            print_problem("failed", failure.reason if named else f"{path}: {failure.reason}")
        if failures:
            count = len(failures) + len(self._outcomes) + self._skipped
            raise CommandError(f"{len(failures)} of {count} files failed")

    def _summary(self, totals: dict[str, Any]) -> str:
        text = f"{self._target}: {totals['files']} files"
        if totals["files"]:
            text += (
                f", {describe_duration(totals['seconds'])}, {describe_size(totals['bytes'])}; "
                f"{totals['file_kbps']:.3f} kbit/s with headers ({totals['nominal_kbps']:.3f} "
                f"nominal), "
                f"{totals['times_real_time']:.1f} times real time"
            )
        clipped = sum(bool(outcome.clipped) for outcome in self._outcomes)
        if clipped:
            text += f"\nin {clipped} files samples were clipped"
        if self._skipped:
            text += f"\n{self._skipped} files exist and were skipped; --force overwrites them"
        return text


@dataclass(frozen=True)
class _Recording:
    """A short recording that waits for its batch."""

    job: Job
    waveform: np.ndarray
    sample_rate: int
    seconds: float


class _BatchEncoder:
    """Encodes short recordings together and long ones block by block."""

    def __init__(self, codec: Codec, run: FolderRun, batch_seconds: float) -> None:
        self._codec = codec
        self._run = run
        self._batch_seconds = batch_seconds
        self._waiting: list[_Recording] = []

    def encode_all(self) -> None:
        for job in self._run.jobs:
            try:
                self._encode(job)
            except (SimvqAudioError, OSError) as error:
                self._run.failed(job, error)
        self._flush()

    def _encode(self, job: Job) -> None:
        from simvq_audio.audio import AudioReader

        with AudioReader(job.source) as reader:
            duration = reader.duration
            # Channels are coded one by one, so each takes its place in the batch.
            seconds = None if duration is None else duration * reader.channels
            if seconds is None or seconds >= self._batch_seconds:
                start = time.perf_counter()
                codes = encode_stream(self._codec, reader)
                self._write(job, codes, time.perf_counter() - start)
                return
            recording = _Recording(job, reader.read(), reader.sample_rate, seconds)
        if sum(other.seconds for other in self._waiting) + seconds > self._batch_seconds:
            self._flush()
        self._waiting.append(recording)

    def _flush(self) -> None:
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        start = time.perf_counter()
        try:
            all_codes = self._codec.encode_batch(
                [recording.waveform for recording in batch],
                [recording.sample_rate for recording in batch],
            )
        except SimvqAudioError as error:
            if len(batch) == 1:
                self._run.failed(batch[0].job, error)
                return
            # One of them is at fault; alone, it does not take the others with it.
            for recording in batch:
                self._waiting = [recording]
                self._flush()
            return
        elapsed = time.perf_counter() - start
        total = sum(recording.seconds for recording in batch)
        for recording, codes in zip(batch, all_codes, strict=True):
            share = elapsed * recording.seconds / total if total else elapsed / len(batch)
            try:
                self._write(recording.job, codes, share)
            except (SimvqAudioError, OSError) as error:
                self._run.failed(recording.job, error)

    def _write(self, job: Job, codes: Codes, elapsed: float) -> None:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        size = write_codes(codes, job.target, self._run.coding)
        self._run.done(Outcome(str(job.source), str(job.target), codes, size, size, elapsed))


def encode_folder(source: str, target: str, settings: Settings) -> None:
    """Carry out ``encode`` for every recording of a folder.

    Raises:
        CommandError: the paths cannot be used, or some files failed.
        ModelError, ConfigError: the model cannot be loaded.
    """
    from simvq_audio.audio import AUDIO_SUFFIXES

    def encode_all(codec: Codec, run: FolderRun) -> None:
        _BatchEncoder(codec, run, settings.batch_seconds).encode_all()

    run = FolderRun(source, target, AUDIO_SUFFIXES, CODES_SUFFIX, settings)
    run.run(encode_all, "encoding")


def decode_folder(
    source: str, target: str, native_rate: bool, suffix: str, settings: Settings
) -> None:
    """Carry out ``decode`` for every file of codes in a folder.

    Args:
        source: the folder of ``.codes`` and ``.npy`` files.
        target: the folder for the recordings.
        native_rate: write at the rate of the model.
        suffix: of the recordings, ``.wav`` or ``.flac``.
        settings: the common options.

    Raises:
        CommandError: the paths cannot be used, or some files failed.
        ModelError, ConfigError: the model cannot be loaded.
    """

    def decode_all(codec: Codec, run: FolderRun) -> None:
        for job in run.jobs:
            start = time.perf_counter()
            try:
                loaded, codes_bytes = open_codes(str(job.source))
                codes = checked_codes(codec, loaded)
                job.target.parent.mkdir(parents=True, exist_ok=True)
                clipped = decode_stream(codec, codes, job.target, native_rate)
            except (SimvqAudioError, OSError) as error:
                run.failed(job, error)
                continue
            size = job.target.stat().st_size
            elapsed = time.perf_counter() - start
            paths = str(job.source), str(job.target)
            run.done(Outcome(*paths, codes, codes_bytes, size, elapsed, clipped))

    run = FolderRun(source, target, {CODES_SUFFIX, INDICES_SUFFIX}, suffix, settings)
    run.run(decode_all, "decoding")

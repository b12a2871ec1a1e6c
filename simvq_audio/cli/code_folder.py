"""Encoding and decoding of whole folders."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simvq_audio.cli.code_file import FileReport
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
from simvq_audio.cli.options import CodingOptions
from simvq_audio.cli.paths import (
    CODES_SUFFIX,
    INDICES_SUFFIX,
    Failure,
    find_jobs,
    refuse_same,
    refuse_target_folder,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from simvq_audio.codec.folders import FolderCoder, JobResult


class FolderRun:
    """Encodes or decodes one folder.

    A file that fails is reported at the end; the others are coded.

    Raises:
        CommandError: the paths cannot be used, or the folder holds nothing to do.
    """

    def __init__(
        self,
        source: str,
        target: str,
        suffixes: Collection[str],
        target_suffix: str,
        settings: CodingOptions,
    ) -> None:
        if target == STANDARD_STREAM:
            raise CommandError(f"{source}: is a folder, so OUT must be a folder and not -")
        refuse_same(source, target)
        refuse_target_folder(Path(target))
        self._source = source
        self._target = target
        self._settings = settings
        found, self.failures = find_jobs(Path(source), Path(target), suffixes, target_suffix)
        self.jobs = [job for job in found if settings.force or not job.target.exists()]
        self._skipped = len(found) - len(self.jobs)
        self._outcomes: list[FileReport] = []

    def run(
        self,
        label: str,
        code: Callable[[FolderCoder, list[tuple[Path, Path]]], Iterable[JobResult]],
    ) -> None:
        """Load the model if there is anything to do, code the files, and report.

        Raises:
            ModelError, ConfigError: the model cannot be loaded.
            CommandError: some files failed; raised after the report.
        """
        start = time.perf_counter()
        if self.jobs:
            codec = self._settings.load_codec()
            from simvq_audio.codec.folders import FolderCoder

            jobs = [(job.source, job.target) for job in self.jobs]
            start = time.perf_counter()
            with progress(label, len(jobs), quiet=self._settings.quiet) as advance:
                for result in code(
                    FolderCoder(codec, self._settings.coding, self._settings.kbps), jobs
                ):
                    self._note(result, decoded=label == "decoding")
                    advance(1)
        self._report(time.perf_counter() - start)

    def _note(self, result: JobResult, decoded: bool) -> None:
        job = result.job
        if result.codes is None:
            self.failures.append(Failure(job.source, result.failure or ""))
            return
        size = job.target.stat().st_size
        codes_bytes = job.source.stat().st_size if decoded else size
        clipped = result.clipped if decoded else None
        paths = str(job.source), str(job.target)
        self._outcomes.append(
            FileReport(*paths, result.codes, codes_bytes, size, result.elapsed, clipped)
        )

    def _report(self, elapsed: float) -> None:
        seconds = sum(outcome.codes.duration for outcome in self._outcomes)
        # Bit rates are those of one channel.
        channel_seconds = sum(o.codes.duration * o.codes.channels for o in self._outcomes)
        bits = sum(outcome.codes.payload_bits for outcome in self._outcomes)
        sizes = sum(outcome.codes_bytes for outcome in self._outcomes)
        totals = {
            "files": len(self._outcomes),
            "seconds": seconds,
            "bytes": sum(outcome.target_bytes or 0 for outcome in self._outcomes),
            "nominal_kbps": bits / channel_seconds / 1000 if channel_seconds else 0.0,
            "file_kbps": 8 * sizes / channel_seconds / 1000 if channel_seconds else 0.0,
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
            print_problem("failed", f"{failure.source}: {failure.reason}")
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
            text += f"\nsamples were clipped in {clipped} files"
        if self._skipped:
            text += f"\n{self._skipped} files exist and were skipped; --force overwrites them"
        return text


def encode_folder(source: str, target: str, settings: CodingOptions) -> None:
    """Carry out ``encode`` for every recording of a folder.

    Raises:
        CommandError: the paths cannot be used, or some files failed.
        ModelError, ConfigError: the model cannot be loaded.
    """
    from simvq_audio.audio import AUDIO_SUFFIXES

    run = FolderRun(source, target, AUDIO_SUFFIXES, CODES_SUFFIX, settings)
    run.run("encoding", lambda coder, jobs: coder.encode(jobs))


def decode_folder(
    source: str, target: str, native_rate: bool, suffix: str, settings: CodingOptions
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
    run = FolderRun(source, target, {CODES_SUFFIX, INDICES_SUFFIX}, suffix, settings)
    run.run("decoding", lambda coder, jobs: coder.decode(jobs, native_rate=native_rate))

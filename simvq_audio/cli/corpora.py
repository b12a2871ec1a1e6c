"""``tokenize``: whole corpora as codes."""

from __future__ import annotations

import os
import sys
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simvq_audio.cli.console import (
    CommandError,
    describe_duration,
    print_json,
    print_message,
    print_problem,
)
from simvq_audio.cli.options import (
    BatchSecondsOption,
    CodebookOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    QuietOption,
)

if TYPE_CHECKING:
    from simvq_audio.corpora import Summary, TokenizeRun

EXAMPLES = """
[bold]Examples[/bold]

simvq-audio tokenize recordings/ codes/

simvq-audio tokenize data/train/wav.scp codes/ --format shar

simvq-audio tokenize manifest.jsonl codes/ --root /data/speech

simvq-audio tokenize 'shards/train-{000..099}.tar' codes/ --format webdataset

torchrun --nproc-per-node 8 --no-python simvq-audio tokenize recordings/ codes/
"""

# Of failures, so many are printed one by one.
_SHOWN = 10
_SECONDS_BETWEEN_LINES = 10.0


class ShardFormat(str, Enum):
    """What ``tokenize`` writes."""

    parquet = "parquet"
    webdataset = "webdataset"
    shar = "shar"


def tokenize(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A folder of recordings, wav.scp, a manifest (.jsonl: an object a line), or "
            "WebDataset tars: one, several by * or {000..099}, or a folder of them.",
        ),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="A folder, new or begun by the same command.")
    ],
    model: ModelOption = None,
    device: DeviceOption = "auto",
    shard_format: Annotated[
        ShardFormat, typer.Option("--format", help="What to write: one file or two a shard.")
    ] = ShardFormat.parquet,
    shard_size: Annotated[
        int,
        typer.Option("--shard-size", min=1, help="Recordings in a shard; of tars, each is one."),
    ] = 1000,
    root: Annotated[
        str | None,
        typer.Option(
            "--root",
            help="What relative paths of a list begin with. Default: the folder of the manifest; "
            "for wav.scp the working folder.",
            show_default=False,
        ),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option("--rank", help="Which worker this is. Default: RANK of torchrun, or 0."),
    ] = None,
    world_size: Annotated[
        int | None,
        typer.Option("--world-size", help="How many workers there are. Default: WORLD_SIZE, or 1."),
    ] = None,
    readers: Annotated[
        int, typer.Option("--readers", min=1, help="Threads that read and resample.")
    ] = 4,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Do shards again that miss recordings.")
    ] = False,
    codebook: CodebookOption = None,
    batch_seconds: BatchSecondsOption = 30.0,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Encode a corpus into shards of codes, for language models.

    A run that was killed goes on when the same command is given again: nothing is lost and nothing
    is there twice. The codes are those of encode, whatever the batches and workers are.
    """
    # The slow imports come after the options were read.
    from simvq_audio.corpora import TokenizeRun, Worker, open_corpus

    worker = Worker.of_environment()
    if (rank is None) != (world_size is None):
        raise CommandError("--rank and --world-size belong together; give both")
    if rank is not None and world_size is not None:
        worker = Worker(rank, world_size)
    if os.path.realpath(source) == os.path.realpath(target):
        raise CommandError(f"{target}: IN and OUT are the same path")
    corpus = open_corpus(source, shard_size, root)

    from simvq_audio.codec import Codec

    codec = Codec.load(model, device=_own_device(device), batch_seconds=batch_seconds)
    if codebook is not None:
        codec = codec.with_codebook(codebook)
    run = TokenizeRun(
        codec,
        corpus,
        target,
        format=shard_format.value,
        worker=worker,
        threads=readers,
        retry_failed=retry_failed,
        shard_size=shard_size,
    )
    before = run.done_before()
    name = f"worker {worker.rank} of {worker.world_size}: " if worker.world_size > 1 else ""
    meter = _Meter(run, name, quiet)
    run.run(meter.advance)
    _report(run, before, meter, str(target), name, quiet, as_json)


def _own_device(device: str) -> str:
    """The GPU of this process among those of its machine."""
    local = os.environ.get("LOCAL_RANK", "")
    if device == "auto" and local.isdigit():
        import torch

        if torch.cuda.is_available():
            return f"cuda:{int(local) % torch.cuda.device_count()}"
    return device


class _Meter:
    """Tells on standard error how far a run is: a line that changes; in logs, one now and then."""

    def __init__(self, run: TokenizeRun, name: str, quiet: bool) -> None:
        self._run = run
        self._name = name
        self._quiet = quiet
        self._parts = run.parts_left
        self._start = self._told = time.perf_counter()
        self._terminal = sys.stderr.isatty()
        self.recordings = 0
        self.seconds = 0.0

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    def advance(self, recordings: int, seconds: float) -> None:
        self.recordings += recordings
        self.seconds += seconds
        now = time.perf_counter()
        if self._quiet or now - self._told < (0.2 if self._terminal else _SECONDS_BETWEEN_LINES):
            return
        self._told = now
        total = self._run.recordings_left
        done = f"{self.recordings:,}" if total is None else f"{self.recordings:,} of {total:,}"
        if total is None:
            share = 1 - self._run.parts_left / self._parts
            done += f" recordings, {self._parts - self._run.parts_left} of {self._parts} tars"
        else:
            share = self.recordings / total
            done += " recordings"
        left = ""
        if share > 0:
            left = f", {describe_duration(self.elapsed * (1 - share) / share)} left"
        text = (
            f"{self._name}{done}, {self.recordings / self.elapsed:.1f} a second, "
            f"{self.seconds / self.elapsed:.1f} times real time{left}"
        )
        end = "\r" if self._terminal else "\n"
        print(f"{text}\x1b[K" if self._terminal else text, end=end, file=sys.stderr, flush=True)


def _report(
    run: TokenizeRun,
    before: Summary,
    meter: _Meter,
    target: str,
    name: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Print what became of everything in OUT so far, by all workers.

    Raises:
        CommandError: recordings failed.
    """
    total = run.done_by_all()
    if as_json:
        print_json(
            {
                "output": target,
                "in": total.recordings,
                "out": total.rows,
                "failed": len(total.failures),
                "reasons": [{"reason": text, "count": count} for text, count in total.reasons],
                "failures": [{"id": each.id, "error": each.reason} for each in total.failures],
                "shards": total.parts,
                "shards_in_all": total.parts_in_all,
                "seconds": total.seconds,
                "frames": total.frames,
                "this_run": {
                    "recordings": meter.recordings,
                    "seconds": meter.seconds,
                    "elapsed_seconds": meter.elapsed,
                    "times_real_time": meter.seconds / max(meter.elapsed, 1e-9),
                    "done_before": before.recordings,
                },
            }
        )
    elif not quiet:
        text = (
            f"{target}: {total.recordings:,} in, {total.rows:,} out, "
            f"{len(total.failures):,} failed; "
            f"{describe_duration(total.seconds)}, {total.frames:,} frames in {total.parts:,} shards"
        )
        if total.parts < total.parts_in_all:
            text += f" of {total.parts_in_all:,}; the others are for other workers"
        if meter.recordings:
            text += (
                f"\n{name}{meter.recordings:,} in this run, in {describe_duration(meter.elapsed)}, "
                f"{meter.seconds / max(meter.elapsed, 1e-9):.1f} times real time"
            )
        print_message(text)
    for failure in total.failures[:_SHOWN]:
        print_problem("failed", f"{failure.id}: {failure.reason}")
    if len(total.failures) > _SHOWN:
        print_problem("failed", f"and {len(total.failures) - _SHOWN:,} more; --json names all")
    if total.failures:
        raise CommandError(
            f"{len(total.failures):,} of {total.recordings:,} recordings failed; "
            "--retry-failed tries them again"
        )

"""Run the study of quantisers: all missing rows, codebook sizes and seeds.

    python recipes/quantizers/run.py --data PACKED --dev DIR [DIR ...] --out RUNS [--jobs 2]
        [--rows a,b] [--codebook-sizes 1024,8192] [--seeds 0,1,2] [--max-minutes N] [--list]
    python recipes/quantizers/run.py --count 2000000 --data PACKED --out RUNS
    python recipes/quantizers/run.py --benchmark --data PACKED --out RUNS

Each run is a process with one CPU thread. Finished runs are skipped, an interrupted one starts
again. What the page's summary compares comes first (``study/rows.py``), so that a study that was
stopped early is useful. --count counts the codes of finished runs on more speech; --benchmark
measures each row's time and memory, one after the other.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import train_row
from study.results import counted, finished, measured
from study.rows import Run, plan
from study.training import SETTING, configure, read_recordings

from simvq_audio.errors import ConfigError, SimvqAudioError
from simvq_audio.training.script import positive, run_script

# A copy of this process has everything imported and the recordings read: on a CPU, that is a tenth
# of a short run.
_CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("run.py", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="packed speech")
    parser.add_argument("--dev", type=Path, nargs="+", help="folders of recordings to score on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study's runs")
    parser.add_argument("--rows", type=_names, help="names separated by commas; default: all")
    parser.add_argument("--codebook-sizes", type=_numbers, help="separated by commas; default: all")
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2], help="with commas")
    parser.add_argument("--jobs", type=positive, default=2, help="runs at a time")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda")
    parser.add_argument("--setting", type=Path, default=SETTING, help="TOML that runs share")
    parser.add_argument("--max-minutes", type=float, help="start no run after this time")
    parser.add_argument("--count", type=positive, metavar="FRAMES", help="count codes only")
    parser.add_argument("--benchmark", action="store_true", help="measure time and memory")
    parser.add_argument("--list", action="store_true", help="list the runs without running them")
    return run_script(parser, work, arguments)


def work(args: argparse.Namespace) -> None:
    runs = plan(args.rows, args.codebook_sizes, args.seeds)
    done = finished(args.out)
    if args.benchmark:
        runs = [run for run in runs if run.seed == args.seeds[0]]
        there = measured(args.out)
        missing = [run for run in runs if (run.row, run.codebook_size) not in there]
    elif args.count:
        runs = [run for run in runs if run.name in done and run.codebook_size > 1]
        there = counted(args.out, args.count)
        missing = [run for run in runs if run.name not in there]
    else:
        missing = [run for run in runs if run.name not in done]
    print(f"{len(runs)} runs, {len(runs) - len(missing)} of them finished", flush=True)
    if args.list:
        print("\n".join(run.name for run in missing))
        return
    if args.benchmark:
        args.jobs = 1
    task: Callable[[Run], None]
    if args.benchmark or args.count:
        task = _Task(args)
    elif not args.dev:
        raise ConfigError("--dev must name a folder of recordings to score on")
    elif missing:
        task = _Task(args, read_recordings(args.dev, configure(missing[0], args.setting)))
    else:
        return
    # SIGTERM like Ctrl-C, so that no run stays without its parent.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    (args.out / "logs").mkdir(parents=True, exist_ok=True)
    failed, left = _work_off(missing, task, args)
    if left:
        print(f"time is over; {left} runs are left", flush=True)
    if failed:
        raise ConfigError(
            f"{len(failed)} runs failed: {', '.join(failed)}; the reason is in {args.out}/logs"
        )


class _Task:
    """What is done for a run, in a process of its own."""

    def __init__(self, args: argparse.Namespace, recordings: Any = None) -> None:
        self._args, self._recordings = args, recordings

    def __call__(self, run: Run) -> None:
        import torch

        args = self._args
        torch.set_num_threads(1)
        with (
            open(args.out / "logs" / f"{run.name}.log", "a") as log,
            redirect_stdout(log),
            redirect_stderr(log),
        ):
            try:
                if args.benchmark:
                    train_row.benchmark(run, args)
                elif args.count:
                    train_row.count(run, args)
                else:
                    train_row.train(run, args, self._recordings)
            except Exception as error:
                if not isinstance(error, (SimvqAudioError, OSError)):
                    traceback.print_exc()
                print(f"error: {error}")
                sys.exit(1)


def _work_off(
    missing: list[Run], task: Callable[[Run], None], args: argparse.Namespace
) -> tuple[list[str], int]:
    """Do the runs, and print the result of each.

    Returns:
        names of the runs that failed, and the number of runs that there was no time for.
    """
    began = time.monotonic()
    waiting, failed = list(missing), []
    working: dict[Run, BaseProcess] = {}
    try:
        while waiting or working:
            minutes = (time.monotonic() - began) / 60
            if args.max_minutes is not None and minutes > args.max_minutes and not working:
                break
            while waiting and len(working) < args.jobs:
                if args.max_minutes is not None and minutes > args.max_minutes:
                    break
                run = waiting.pop(0)
                working[run] = _CONTEXT.Process(target=task, args=(run,))
                working[run].start()
            wait([process.sentinel for process in working.values()])
            for run in [run for run, process in working.items() if not process.is_alive()]:
                code = working.pop(run).exitcode
                lines = (args.out / "logs" / f"{run.name}.log").read_text().splitlines()
                last = lines[-1] if lines else "it printed nothing"
                if code:
                    failed.append(run.name)
                    last = f"{run.name} failed: {last}"
                print(f"[{(time.monotonic() - began) / 60:.1f} min] {last}", flush=True)
    except BaseException:
        for process in working.values():
            process.terminate()
        raise
    return failed, len(waiting)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[int]:
    names = _names(text)
    if not names or not all(name.isdecimal() for name in names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers")
    return [int(name) for name in names]


if __name__ == "__main__":
    sys.exit(main())

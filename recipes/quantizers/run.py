"""Run the study of quantisers: all missing rows, codebook sizes and seeds.

    python recipes/quantizers/run.py --data PACKED --dev DIR [DIR ...] --out RUNS [--jobs 2]
        [--rows a,b] [--codebook-sizes 1024,8192] [--seeds 0,1,2] [--max-minutes N] [--list]
    python recipes/quantizers/run.py --benchmark --data PACKED --out RUNS

Each run is a process with one CPU thread. Finished runs are skipped, an interrupted one starts
again. Seed 0 of everything comes first, so that a study that was stopped early is useful.
--benchmark measures a step's time and memory of each row instead, one after the other.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from study.results import finished, measured
from study.rows import Run, plan
from study.training import SETTING

from simvq_audio.errors import ConfigError
from simvq_audio.training.script import positive, run_script

_SCRIPT = Path(__file__).with_name("train_row.py")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("run.py", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="packed speech")
    parser.add_argument("--dev", type=Path, nargs="+", help="folders of recordings to score on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study's runs")
    parser.add_argument("--rows", type=_names, help="names separated by commas; default: all")
    parser.add_argument("--codebook-sizes", type=_numbers, help="separated by commas; default: all")
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2], help="with commas")
    parser.add_argument(
        "--late-seeds", type=_numbers, help="of the slowest runs; default: the first of --seeds"
    )
    parser.add_argument("--jobs", type=positive, default=2, help="runs at a time")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda")
    parser.add_argument("--setting", type=Path, default=SETTING, help="TOML that runs share")
    parser.add_argument("--max-minutes", type=float, help="start no run after this time")
    parser.add_argument("--benchmark", action="store_true", help="measure time and memory")
    parser.add_argument("--list", action="store_true", help="list the runs without running them")
    return run_script(parser, work, arguments)


def work(args: argparse.Namespace) -> None:
    runs = plan(args.rows, args.codebook_sizes, args.seeds, late_seeds=args.late_seeds)
    if args.benchmark:
        runs = [run for run in runs if run.seed == args.seeds[0]]
        there = measured(args.out)
        missing = [run for run in runs if (run.row, run.codebook_size) not in there]
    else:
        done = finished(args.out)
        missing = [run for run in runs if run.name not in done]
    print(f"{len(runs)} runs, {len(runs) - len(missing)} of them finished", flush=True)
    if args.list:
        print("\n".join(run.name for run in missing))
        return
    if not args.benchmark and not args.dev:
        raise ConfigError("--dev must name a folder of recordings to score on")
    # SIGTERM like Ctrl-C, so that no run stays without its parent.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    (args.out / "logs").mkdir(parents=True, exist_ok=True)
    queue = Queue(args)
    with ThreadPoolExecutor(1 if args.benchmark else args.jobs) as pool:
        try:
            list(pool.map(queue.work_off, missing))
        except BaseException:
            queue.stop()
            raise
    if queue.left:
        print(f"time is over; {queue.left} runs are left", flush=True)
    if queue.failed:
        raise ConfigError(
            f"{len(queue.failed)} runs failed: {', '.join(queue.failed)}; the reason is in "
            f"{args.out}/logs"
        )


class Queue:
    """Runs, each in a process, until the time is over.

    Attributes:
        failed: names of the runs that failed.
        left: number of runs that there was no time for.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._began = time.monotonic()
        self._working: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self.failed: list[str] = []
        self.left = 0

    def work_off(self, run: Run) -> None:
        """Do one run, and print its result."""
        limit = self._args.max_minutes
        if self._stopped or (limit is not None and self._minutes() > limit):
            self.left += 1
            return
        log = self._args.out / "logs" / f"{run.name}.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(self._command(run), stdout=output, stderr=output)
            self._working.add(process)
            code = process.wait()
            self._working.discard(process)
        lines = log.read_text(errors="replace").splitlines()
        last = lines[-1] if lines else "it printed nothing"
        if code:
            self.failed.append(run.name)
            last = f"{run.name} failed: {last}"
        print(f"[{self._minutes():.1f} min] {last}", flush=True)

    def stop(self) -> None:
        """End the current runs, and start no others."""
        self._stopped = True
        for process in list(self._working):
            process.terminate()

    def _command(self, run: Run) -> list[str]:
        args = self._args
        kind = ["--benchmark"] if args.benchmark else ["--dev", *map(str, args.dev)]
        given = {
            "--data": args.data,
            "--out": args.out,
            "--seed": run.seed,
            "--device": args.device,
            "--setting": args.setting,
            "--codebook-size": run.codebook_size,
        }
        options = [str(part) for pair in given.items() for part in pair]
        return [sys.executable, str(_SCRIPT), *options, *kind, "--", run.row]

    def _minutes(self) -> float:
        return (time.monotonic() - self._began) / 60


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[int]:
    names = _names(text)
    if not names or not all(name.isdecimal() for name in names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers")
    return [int(name) for name in names]


if __name__ == "__main__":
    sys.exit(main())

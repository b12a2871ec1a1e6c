"""Run the study of quantisers: every row, size of codebook and seed that is not there yet.

    python recipes/quantizers/run.py --data PACKED --dev DIR [DIR ...] --out RUNS [--jobs 2]
        [--rows a,b] [--codebook-sizes 1024,8192] [--seeds 0,1,2] [--max-minutes N] [--list]
    python recipes/quantizers/run.py --benchmark --data PACKED --out RUNS

Each run is a process of its own with one CPU thread. Finished ones are skipped, an interrupted one
starts again. Seed 0 of everything comes first, so that a study that was stopped early is of use
already. --benchmark measures a step's time and memory of each row instead, one after the other.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from study.logs import cost_path, log_path
from study.rows import Run, find_row, plan
from study.setting import setting_of
from study.warm_up import warm_up_path

from simvq_audio.errors import ConfigError
from simvq_audio.training.script import positive, run_script

_SCRIPT = Path(__file__).with_name("train_row.py")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("run.py", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="packed speech")
    parser.add_argument("--dev", type=Path, nargs="+", help="folders of recordings to score on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study's runs")
    parser.add_argument("--rows", type=_names, help="names, with commas; all by default")
    parser.add_argument("--codebook-sizes", type=_numbers, help="with commas; all by default")
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2], help="with commas")
    parser.add_argument(
        "--late-seeds", type=_numbers, help="of the slowest runs; the first of --seeds by default"
    )
    parser.add_argument("--jobs", type=positive, default=2, help="runs at a time")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--setting", type=Path, help="JSON with another setting than the default")
    parser.add_argument("--max-minutes", type=float, help="begin no run after so many minutes")
    parser.add_argument("--benchmark", action="store_true", help="measure time and memory")
    parser.add_argument("--list", action="store_true", help="say what would be run")
    return run_script(parser, work, arguments)


def work(args: argparse.Namespace) -> None:
    runs = plan(args.rows, args.codebook_sizes, args.seeds, late_seeds=args.late_seeds)
    if args.benchmark:
        runs = [run for run in runs if run.seed == args.seeds[0]]
        missing = [r for r in runs if not cost_path(args.out, r.row, r.codebook_size).exists()]
    else:
        missing = [run for run in runs if not log_path(args.out, run).exists()]
    print(f"{len(runs)} runs, {len(runs) - len(missing)} of them finished", flush=True)
    if args.list:
        print("\n".join(run.name for run in missing))
        return
    if not args.benchmark and not args.dev:
        raise ConfigError("--dev must name a folder of recordings to score on")
    setting_of(args.out, args.setting)
    # SIGTERM as Ctrl-C, so that no run is left behind without its parent.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    queue = Queue(args)
    queue.work_off(missing)
    if queue.failed:
        raise ConfigError(
            f"{len(queue.failed)} runs failed: {', '.join(queue.failed)}; the reason stands in "
            f"{args.out}/logs"
        )


class Queue:
    """Runs processes, several at a time, until nothing is left or the time is over.

    Attributes:
        failed: names of the runs that failed; the others go on.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._began = time.monotonic()
        self._jobs = 1 if args.benchmark else args.jobs
        self._logs = args.out / "logs"
        self._working: dict[str, subprocess.Popen[bytes]] = {}
        self.failed: list[str] = []

    def work_off(self, runs: list[Run]) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        try:
            for number, run in enumerate(runs):
                if self._over():
                    print(f"time is over; {len(runs) - number} runs are left", flush=True)
                    break
                if not self._args.benchmark:
                    self._prepare(run)
                self._start(run.name, self._command(run))
            self._wait(below=1)
        finally:
            for process in self._working.values():
                process.terminate()
            for process in self._working.values():
                process.wait()

    def _prepare(self, run: Run) -> None:
        """Make the seed's shared steps, once, before two runs could both begin to."""
        if find_row(run.row).cold or warm_up_path(self._args.out, run.seed).exists():
            return
        name = f"warm-up-s{run.seed}"
        if name not in self.failed:
            self._start(name, [*self._common(run.seed), "--warm-up"])
            self._wait(below=1)

    def _command(self, run: Run) -> list[str]:
        kind = (
            ["--benchmark"]
            if self._args.benchmark
            else ["--dev", *(str(path) for path in self._args.dev)]
        )
        size = str(run.codebook_size)
        return [*self._common(run.seed), *kind, "--codebook-size", size, "--", run.row]

    def _common(self, seed: int) -> list[str]:
        args = self._args
        given = {"--data": args.data, "--out": args.out, "--seed": seed, "--device": args.device}
        return [
            sys.executable,
            str(_SCRIPT),
            *(str(part) for pair in given.items() for part in pair),
        ]

    def _start(self, name: str, command: list[str]) -> None:
        self._wait(below=self._jobs)
        with open(self._logs / f"{name}.log", "wb") as log:
            self._working[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def _wait(self, below: int) -> None:
        """Until fewer runs than so many are at work."""
        while len(self._working) >= below:
            for name, process in list(self._working.items()):
                if process.poll() is not None:
                    del self._working[name]
                    self._report(name, process.returncode)
            if len(self._working) >= below:
                time.sleep(0.2)

    def _report(self, name: str, code: int) -> None:
        minutes = (time.monotonic() - self._began) / 60
        lines = (self._logs / f"{name}.log").read_text(errors="replace").splitlines()
        last = lines[-1] if lines else "nothing was said"
        if code:
            self.failed.append(name)
            last = f"{name} failed: {last}"
        print(f"[{minutes:.1f} min] {last}", flush=True)

    def _over(self) -> bool:
        limit = self._args.max_minutes
        return limit is not None and time.monotonic() - self._began > 60 * limit


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[int]:
    names = _names(text)
    if not names or not all(name.isdecimal() for name in names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers")
    return [int(name) for name in names]


if __name__ == "__main__":
    sys.exit(main())

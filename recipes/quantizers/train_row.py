"""Train and score one row of the study of quantisers.

    train_row.py ROW --codebook-size K --seed S --data PACKED --dev DIR [DIR ...] --out RUNS
    train_row.py ROW --codebook-size K --seed S --count FRAMES --data PACKED --out RUNS
    train_row.py ROW --codebook-size K --benchmark --data PACKED --out RUNS

The first writes RUNS/ROW-K-sS, a run folder with result.json and the model; the second counts the
codes of a finished run on more speech; the third measures a step's time and memory. An interrupted
run starts again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from study.results import write_unseen
from study.rows import Run, find_row
from study.training import (
    SETTING,
    configure,
    count_unseen,
    measure,
    read_recordings,
    train_and_score,
)

from simvq_audio.errors import ConfigError
from simvq_audio.training.script import positive, run_script
from simvq_audio.training.validation import ValidationSet


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("train_row.py", description=__doc__.splitlines()[0])
    parser.add_argument("row", help="a name of study/rows.py")
    parser.add_argument("--codebook-size", type=positive, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, required=True, help="packed speech")
    parser.add_argument("--dev", type=Path, nargs="+", help="folders of recordings to score on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study's runs")
    parser.add_argument("--setting", type=Path, default=SETTING, help="TOML that runs share")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=positive, default=1, help="of the CPU")
    parser.add_argument("--benchmark", action="store_true", help="measure time and memory only")
    parser.add_argument("--count", type=positive, metavar="FRAMES", help="count codes only")
    return run_script(parser, work, arguments)


def work(args: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(args.threads)
    run = Run(find_row(args.row).name, args.codebook_size, args.seed)
    if args.benchmark:
        benchmark(run, args)
        return
    if args.count:
        count(run, args)
        return
    if not args.dev:
        raise ConfigError("--dev must name a folder of recordings to score on")
    train(run, args, read_recordings(args.dev, configure(run, args.setting)))


def train(run: Run, args: argparse.Namespace, recordings: ValidationSet) -> None:
    """Train and score a run, and print its result."""
    shutil.rmtree(args.out / run.name, ignore_errors=True)
    log = train_and_score(run, args.data, recordings, args.out, args.setting, args.device)
    print(
        f"{run.name}: mel {log.scores['mel']:.3f}, STOI {log.scores['stoi']:.3f}, "
        f"utilisation {100 * log.use.utilisation:.1f} %, "
        f"perplexity {log.use.perplexity:.0f}, error {log.scores['error']:.3f}, "
        f"{1000 * log.step_seconds:.0f} ms per step, {log.wall_seconds:.0f} s"
    )


def benchmark(run: Run, args: argparse.Namespace) -> None:
    """Measure a row's time and memory."""
    row = find_row(run.row)
    cost = measure(row, run.codebook_size, args.data, args.out, args.setting, args.device)
    print(
        f"{row.name} {run.codebook_size}: {1000 * cost.step_seconds:.0f} ms per step, "
        f"{1000 * cost.quantizer_seconds:.0f} of them the quantiser's, "
        f"{cost.peak_mib:.0f} MiB"
    )


def count(run: Run, args: argparse.Namespace) -> None:
    """Count the codes of a finished run on speech that it was not trained on."""
    use = count_unseen(run, args.data, args.out, args.setting, args.count, args.device)
    write_unseen(args.out, run, use)
    print(
        f"{run.name}: {100 * use.utilisation:.1f} % of the codes in {use.frames} frames, "
        f"at least {100 * use.chao1:.1f} % by Chao1, perplexity {use.corrected_perplexity:.0f}"
    )


if __name__ == "__main__":
    sys.exit(main())

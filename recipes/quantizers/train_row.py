"""Train and score one row of the study of quantisers.

    train_row.py ROW --codebook-size K --seed S --data PACKED --dev DIR [DIR ...] --out RUNS
    train_row.py ROW --codebook-size K --benchmark --data PACKED --out RUNS

The first writes RUNS/ROW-K-sS, a run folder with result.json; --benchmark measures a step's time
and memory instead. An interrupted run starts again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from study.rows import Run, find_row
from study.training import SETTING, configure, measure, read_recordings, train_and_score

from simvq_audio.errors import ConfigError
from simvq_audio.training.script import positive, run_script


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
    return run_script(parser, work, arguments)


def work(args: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(args.threads)
    row, run = find_row(args.row), Run(args.row, args.codebook_size, args.seed)
    if args.benchmark:
        cost = measure(row, run.codebook_size, args.data, args.out, args.setting, args.device)
        print(
            f"{row.name} {run.codebook_size}: {1000 * cost.step_seconds:.0f} ms per step, "
            f"{1000 * cost.quantizer_seconds:.0f} of them the quantiser's, "
            f"{cost.peak_mib:.0f} MiB"
        )
        return
    if not args.dev:
        raise ConfigError("--dev must name a folder of recordings to score on")
    recordings = read_recordings(args.dev, configure(run, args.setting))
    shutil.rmtree(args.out / run.name, ignore_errors=True)
    log = train_and_score(run, args.data, recordings, args.out, args.setting, args.device)
    print(
        f"{run.name}: mel {log.scores['mel']:.3f}, PESQ-wb {log.scores['pesq_wb']:.3f}, "
        f"STOI {log.scores['stoi']:.3f}, utilisation {100 * log.use.utilisation:.1f} %, "
        f"perplexity {log.use.perplexity:.0f}, error {log.scores['error']:.3f}, "
        f"{1000 * log.step_seconds:.0f} ms per step, {log.wall_seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())

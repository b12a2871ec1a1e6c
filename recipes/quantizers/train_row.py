"""Train and score one row of the study of quantisers.

    train_row.py ROW --codebook-size K --seed S --data PACKED --dev DIR [DIR ...] --out RUNS
    train_row.py --warm-up --seed S --data PACKED --out RUNS
    train_row.py ROW --codebook-size K --benchmark --data PACKED --out RUNS

The first writes RUNS/results/ROW-K-sS.json; the unquantised steps of the seed are made if they are
missing, or alone with --warm-up. --benchmark measures a step's time and memory instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from study.execution import execute, write_measurement
from study.rows import Run, find_row
from study.scoring import read_recordings
from study.setting import setting_of
from study.warm_up import make_warm_up

from simvq_audio.device import find_device
from simvq_audio.errors import ConfigError
from simvq_audio.training.script import positive, run_script


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("train_row.py", description=__doc__.splitlines()[0])
    parser.add_argument("row", nargs="?", help="a name of study/rows.py")
    parser.add_argument("--codebook-size", type=positive, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, required=True, help="packed speech")
    parser.add_argument("--dev", type=Path, nargs="+", help="folders of recordings to score on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study's runs")
    parser.add_argument("--setting", type=Path, help="JSON with another setting than the default")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=positive, default=1, help="of the CPU")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--warm-up", action="store_true", help="make the shared steps alone")
    kind.add_argument("--benchmark", action="store_true", help="measure time and memory alone")
    return run_script(parser, work, arguments)


def work(args: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(args.threads)
    setting = setting_of(args.out, args.setting)
    device = find_device(args.device)
    if args.warm_up:
        print(make_warm_up(args.out, setting, args.data, args.seed, device))
        return
    if args.row is None:
        raise ConfigError("which row? see --help")
    row = find_row(args.row)
    if args.benchmark:
        cost = write_measurement(row, args.codebook_size, setting, args.data, args.out, device)
        print(
            f"{row.name} {args.codebook_size}: {1000 * cost.step_seconds:.0f} ms a step, "
            f"{1000 * cost.quantizer_seconds:.0f} of them the quantiser's, "
            f"{cost.peak_mib:.0f} MiB"
        )
        return
    if not args.dev:
        raise ConfigError("--dev must name a folder of recordings to score on")
    recordings = read_recordings(args.dev, setting)
    if not row.cold:
        make_warm_up(args.out, setting, args.data, args.seed, device)
    log = execute(
        Run(row.name, args.codebook_size, args.seed),
        setting,
        args.data,
        recordings,
        args.out,
        device,
    )
    use = log.scores["usage"]
    print(
        f"{log.run.name}: mel {log.scores['mel']:.3f}, PESQ-wb {log.scores['pesq_wb']:.3f}, "
        f"STOI {log.scores['stoi']:.3f}, utilisation {100 * use['utilisation']:.1f} %, "
        f"perplexity {use['perplexity']:.0f}, error {log.scores['error']:.3f}, "
        f"{1000 * log.step_seconds:.0f} ms a step, {log.wall_seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())

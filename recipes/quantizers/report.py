"""Make all tables and pictures of the study of quantisers from its results.

    python recipes/quantizers/report.py RUNS --out docs/quantizers [--tables FOLDER]

RUNS is the output of run.py, or recipes/quantizers/results. Writes results.md and pictures, and,
with --tables, all runs in the few files that the repository keeps.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from study.pictures import draw_all
from study.results import read_results, write_tables
from study.tables import markdown
from study.training import SETTING

from simvq_audio.atomic import atomic_path
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.script import run_script


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("report.py", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of the study's runs")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--tables", type=Path, help="folder to keep the results of all runs in")
    parser.add_argument("--setting", type=Path, default=SETTING, help="TOML that runs share")
    return run_script(parser, work, arguments)


def work(args: argparse.Namespace) -> None:
    results = read_results(args.runs)
    setting = TrainingConfig.load(args.setting)
    args.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.out / "results.md") as temporary:
        text = markdown(results.logs, results.costs, setting)
        temporary.write_text(text, encoding="utf-8")
    pictures = draw_all(results, setting.steps, args.out)
    if args.tables:
        write_tables(results, args.tables)
    print(f"{args.out}: tables of {len(results.logs)} runs and {len(pictures)} pictures")


if __name__ == "__main__":
    sys.exit(main())

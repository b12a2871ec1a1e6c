"""Make all tables and pictures of the study of quantisers, from its logs alone.

    python recipes/quantizers/report.py RUNS --out docs/quantizers

RUNS is what run.py wrote, or recipes/quantizers/results. Written are results.md, runs.csv and
pictures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from study.logs import read_costs, read_logs
from study.pictures import draw_all
from study.tables import csv_table, markdown

from simvq_audio.atomic import atomic_path
from simvq_audio.training.script import run_script


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("report.py", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of the study's runs")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    return run_script(parser, work, arguments)


def work(args: argparse.Namespace) -> None:
    logs = read_logs(args.runs)
    costs = read_costs(args.runs)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, text in (("results.md", markdown(logs, costs)), ("runs.csv", csv_table(logs))):
        with atomic_path(args.out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    pictures = draw_all(args.runs, logs, args.out)
    print(f"{args.out}: tables of {len(logs)} runs and {len(pictures)} pictures")


if __name__ == "__main__":
    sys.exit(main())

"""Make the page, its tables and its pictures from the results of the study of quantisers.

    python recipes/quantizers/report.py RUNS --out docs [--tables FOLDER]

RUNS is the output of run.py, or recipes/quantizers/results. Writes quantizers.md, and results.md
and pictures in quantizers/; with --tables, also the few files that the repository keeps.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from study.page import TEMPLATE, page
from study.pictures import draw_all
from study.results import read_costs, read_results, read_survey, write_tables
from study.tables import markdown
from study.training import SETTING

from simvq_audio.atomic import atomic_path
from simvq_audio.training.config import TrainingConfig
from simvq_audio.training.script import run_script

RESULTS = Path(__file__).with_name("results")
# The size whose learning curves are shown.
_CURVES_OF = 8192


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("report.py", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of the study's runs")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--tables", type=Path, help="folder to keep the results of all runs in")
    parser.add_argument("--page", type=Path, default=TEMPLATE, help="template of the page")
    parser.add_argument("--setting", type=Path, default=SETTING, help="TOML that runs share")
    return run_script(parser, work, arguments)


def work(args: argparse.Namespace) -> None:
    results = read_results(args.runs)
    # Costs are measured once, on a machine at rest.
    costs = {(cost.row, cost.codebook_size): cost for cost in read_costs(RESULTS) + results.costs}
    results = replace(results, costs=list(costs.values()))
    if args.tables:
        write_tables(results, args.tables, _CURVES_OF)
        # The tables round; what is made from them later must be the same.
        results = read_results(args.tables)
    survey = read_survey(RESULTS / "survey.csv")
    details = args.out / "quantizers"
    text = page(results.logs, survey, args.page)
    details.mkdir(parents=True, exist_ok=True)
    for path, content in (
        (args.out / "quantizers.md", text),
        (details / "results.md", markdown(results.logs, survey, results.costs)),
    ):
        with atomic_path(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    steps = TrainingConfig.load(args.setting).steps
    shown = [log for log in results.logs if log.run.codebook_size == _CURVES_OF]
    pictures = draw_all(shown, survey, steps, details)
    print(f"{args.out}: tables of {len(results.logs)} runs and {len(pictures)} pictures")


if __name__ == "__main__":
    sys.exit(main())

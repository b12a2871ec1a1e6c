"""Draw a run's curves from its metrics.jsonl: RUN/curves.png.

python recipes/plot_run.py RUN [RUN ...]

Several runs are drawn into one picture, a panel for each value, in the first run's folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import needs_extra
from simvq_audio.training.script import run_script
from simvq_audio.training.watch import read_metrics

# Not learning curves.
_LEFT_OUT = {"step", "time", "steps_per_second", "audio_seconds_per_second"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("plot_run.py", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    return run_script(parser, lambda args: print(draw(args.runs)), arguments)


def draw(runs: list[Path]) -> Path:
    with needs_extra("train"):
        from matplotlib.figure import Figure
    rows = {run: read_metrics(run) for run in runs}
    names = sorted({name for found in rows.values() for row in found for name in row} - _LEFT_OUT)
    columns = 4
    figure = Figure(figsize=(4 * columns, 2.6 * -(-len(names) // columns)), layout="constrained")
    for index, name in enumerate(names):
        axes = figure.add_subplot(-(-len(names) // columns), columns, index + 1)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.tick_params(labelsize=7)
        for run, found in rows.items():
            points = [(row["step"], row[name]) for row in found if name in row]
            # A single point makes no line.
            marker = "." if len(points) < 20 else ""
            axes.plot(*zip(*points), marker=marker, linewidth=1, label=run.name)
    if len(runs) > 1:
        figure.axes[0].legend(fontsize=7)
    out = runs[0] / "curves.png"
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=100)
    return out


if __name__ == "__main__":
    sys.exit(main())

"""Pictures of a study, made from its logs."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from math import log2
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import needs_extra
from study.results import Results, RunLog
from study.rows import ROWS
from study.tables import group, title

with needs_extra("train"):
    from matplotlib.figure import Figure

_DPI = 80
_GREY, _BLUE, _RED = "#bbbbbb", "#3b6fb6", "#d62728"


def draw_all(results: Results, steps: int, out: Path) -> list[Path]:
    """Write every picture; return the files.

    Args:
        steps: of a run of the usual length.
    """
    logs = results.logs
    sizes = sorted({log.run.codebook_size for log in logs if log.run.codebook_size > 1})
    files = [_quality(logs, out / "quality.png")]
    for size in sizes:
        of_size = [log for log in logs if log.run.codebook_size == size]
        main = [log for log in of_size if _group(log) == "main"]
        variants = [log for log in of_size if _group(log) == "variant"]
        beside = [log for log in main if log.run.row.startswith("simvq")]
        if main:
            files.append(_curves(main, steps, size, out / f"curves-{size}.png"))
            files.append(_histograms(main, size, out / f"usage-{size}.png"))
        if variants:
            files.append(
                _curves(beside + variants, steps, size, out / f"curves-variants-{size}.png")
            )
        drawn = _projections(results, of_size, size, out / f"projection-{size}.png")
        files += [] if drawn is None else [drawn]
    return files


def _group(log: RunLog) -> str:
    return ROWS[log.run.row].group if log.run.row in ROWS else "main"


def _quality(logs: Sequence[RunLog], out: Path) -> Path:
    """Each score against the codebook's size, a line per row."""
    panels: tuple[tuple[str, Callable[[RunLog], float]], ...] = (
        ("used on unseen speech, %", lambda log: 100 * log.use.utilisation),
        ("entropy, bits per frame", lambda log: log.use.entropy),
        ("quantisation error", lambda log: log.scores["error"]),
        ("mel distance", lambda log: log.scores["mel"]),
        ("PESQ-wb", lambda log: log.scores["pesq_wb"]),
        ("STOI", lambda log: log.scores["stoi"]),
    )
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    axes = figure.subplots(2, 3).flatten()
    grouped = group([log for log in logs if _group(log) == "main"])
    for panel, (label, read) in zip(axes, panels):
        panel.set_title(label, fontsize=10)
        panel.set_xscale("log", base=2)
        for name in _names(grouped):
            found = [(size, values) for (row, size), values in grouped.items() if row == name]
            found.sort(key=lambda item: item[0])
            numbers = [[read(log) for log in values] for _, values in found]
            panel.errorbar(
                [size for size, _ in found],
                [mean(values) for values in numbers],
                [stdev(values) if len(values) > 1 else 0.0 for values in numbers],
                label=title(name),
                color=_colour(name),
                marker="o",
                markersize=4,
                linewidth=1.3,
                capsize=2,
            )
        panel.set_xlabel("codebook size", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
    # Dotted: even use of the codebook, limited by the number of frames.
    even = {
        log.run.codebook_size: log.use.even_utilisation for log in logs if log.run.codebook_size > 1
    }
    limits = sorted(even.items())
    axes[0].plot(*zip(*((size, 100 * share) for size, share in limits)), "k:")
    axes[1].plot(*zip(*((size, log2(size * share)) for size, share in limits)), "k:")
    # Dotted: without a quantiser.
    reference = [log for log in logs if _group(log) == "reference"]
    if reference:
        for panel, (_, read) in zip(axes[3:], panels[3:]):
            panel.axhline(mean(read(log) for log in reference), color="black", linestyle=":")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    return _save(figure, out)


def _curves(logs: Sequence[RunLog], steps: int, size: int, out: Path) -> Path:
    """Curves of training, a thin line per seed; main rows are dashed beside variants."""
    mixed = len({_group(log) for log in logs}) > 1
    panels = (
        ("mel loss", lambda point: point.mel, "linear"),
        ("quantisation error", lambda point: point.error, "log"),
        ("used in the last steps, %", lambda point: _percent(point.utilisation), "linear"),
        ("perplexity in the last steps", lambda point: point.perplexity, "log"),
    )
    figure = Figure(figsize=(13, 7), layout="constrained")
    axes = figure.subplots(2, 2).flatten()
    for panel, (label, read, scale) in zip(axes, panels):
        panel.set_title(f"{label}, K = {size}", fontsize=10)
        panel.set_yscale(scale)
        for name in _names(group(logs)):
            for number, log in enumerate(log for log in logs if log.run.row == name):
                # Longer runs are compressed to the length of the others.
                stretch = steps / log.curve[-1].step
                points = [(p.step * stretch, read(p)) for p in log.curve if read(p) is not None]
                panel.plot(
                    *zip(*points),
                    color=_colour(name),
                    linestyle="--" if mixed and _group(log) == "main" else "-",
                    linewidth=1,
                    alpha=0.8,
                    label=title(name) if number == 0 else None,
                )
        panel.set_xlabel("step", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    return _save(figure, out)


def _histograms(logs: Sequence[RunLog], size: int, out: Path) -> Path:
    """How often each code occurs, most frequent first."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    panel = figure.subplots()
    seen: set[str] = set()
    for log in logs:
        ranks, counts = zip(*log.use.histogram)
        panel.plot(
            ranks,
            [count / log.use.frames for count in counts],
            color=_colour(log.run.row),
            linewidth=1.2,
            alpha=0.8,
            label=None if log.run.row in seen else title(log.run.row),
        )
        seen.add(log.run.row)
    panel.axhline(1 / size, color="black", linestyle=":", linewidth=1)
    panel.axvline(size, color="black", linestyle=":", linewidth=1)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_title(f"Share of the frames of each code on unseen speech, K = {size}", fontsize=10)
    panel.set_xlabel("rank of the code; dotted: even use", fontsize=9)
    panel.legend(fontsize=7)
    return _save(figure, out)


def _projections(results: Results, logs: Sequence[RunLog], size: int, out: Path) -> Path | None:
    """Latents and entries on the first principal axes of the last latents, a row per quantiser."""
    found = []
    for log in sorted(logs, key=lambda log: list(ROWS).index(log.run.row)):
        points = results.points_of(log.run)
        if points is not None:
            found.append((log, points))
    if not found:
        return None
    columns = max(len(points["steps"]) for _, points in found)
    figure = Figure(figsize=(2.4 * columns, 2.0 * len(found)), layout="constrained")
    grid = figure.subplots(len(found), columns, squeeze=False)
    for row, (log, points) in zip(grid, found):
        for number, panel in enumerate(row):
            panel.set_xticks([])
            panel.set_yticks([])
            if number >= len(points["steps"]):
                panel.axis("off")
                continue
            _scatter(panel, points, number)
            panel.set_title(f"step {points['steps'][number]}", fontsize=8)
        row[0].set_ylabel(textwrap.fill(title(log.run.row), 24), fontsize=7)
    figure.suptitle(
        f"K = {size}: latents (grey), some of the codebook (blue), nearest to a latent (red)",
        fontsize=10,
    )
    # Thousands of points: at full resolution the file would exceed a megabyte.
    return _save(figure, out, _DPI * 5 // 8)


def _scatter(panel: Any, points: dict[str, Any], number: int) -> None:
    """One step; the axes follow the latents, which may be far from the codebook."""
    latents, entries = points[f"latents-{number}"], points[f"entries-{number}"]
    hit = points[f"hit-{number}"]
    for chosen, colour, side in ((entries, _BLUE, 2), (latents, _GREY, 4), (hit, _RED, 3)):
        values = chosen.astype("float64")
        panel.scatter(values[:, 0], values[:, 1], s=side, color=colour, linewidths=0)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _names(grouped: Iterable[tuple[str, int]]) -> list[str]:
    """Rows without repetition, in order."""
    return list(dict.fromkeys(name for name, _ in grouped))


def _colour(name: str) -> Any:
    """One of ten, by the place of a row in its group."""
    from matplotlib import colormaps

    kind = ROWS[name].group if name in ROWS else "main"
    names = [row.name for row in ROWS.values() if row.group == kind]
    return colormaps["tab10"]((names.index(name) if name in names else 0) % 10)


def _save(figure: Figure, out: Path, dpi: int = _DPI) -> Path:
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=dpi)
    return out

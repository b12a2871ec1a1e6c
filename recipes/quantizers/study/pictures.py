"""Pictures of a study, made from its logs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import log2
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from simvq_audio.atomic import atomic_path
from simvq_audio.errors import needs_extra
from study.results import RunLog
from study.rows import ROWS
from study.tables import BASE, group, title

with needs_extra("train"):
    from matplotlib.figure import Figure

_DPI = 80


def draw_all(logs: Sequence[RunLog], survey: Sequence[RunLog], steps: int, out: Path) -> list[Path]:
    """Write every picture; return the files.

    Args:
        steps: of a run of the usual length.
    """
    files = [_quality(survey, out / "quality.png")] if survey else []
    for size in sorted({log.run.codebook_size for log in logs if log.curve}):
        of_size = [log for log in logs if log.run.codebook_size == size and log.curve]
        main = [log for log in of_size if _group(log) == "main"]
        variants = [log for log in of_size if _group(log) == "variant"]
        beside = [log for log in main if log.run.row == BASE]
        if main and size > 1:
            files.append(_curves(main, steps, size, out / f"curves-{size}.png"))
            files.append(_spectra(of_size, size, out / f"spectrum-{size}.png"))
        if variants:
            files.append(
                _curves(beside + variants, steps, size, out / f"curves-variants-{size}.png")
            )
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


def _spectra(logs: Sequence[RunLog], size: int, out: Path) -> Path:
    """Singular values of W and live dimensions: medians over seeds."""
    panels = (
        ("largest (solid), median and smallest singular value of W", "log"),
        ("live dimensions: latents (solid), codebook (dashed)", "linear"),
    )
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    axes = figure.subplots(1, 2)
    for panel, (label, scale) in zip(axes, panels):
        panel.set_title(f"{label}, K = {size}", fontsize=10)
        panel.set_yscale(scale)
        panel.set_xlabel("step", fontsize=8)
        panel.grid(alpha=0.3)
    shown = [log for log in logs if log.run.row.startswith(("simvq", "vq-cold"))]
    for name in _names(group(shown)):
        curves = [log.curve for log in shown if log.run.row == name]
        for panel, field, style in (
            (axes[0], "w_largest", "-"),
            (axes[0], "w_median", "--"),
            (axes[0], "w_smallest", ":"),
            (axes[1], "live_latent", "-"),
            (axes[1], "live_codebook", "--"),
        ):
            points: dict[int, list[float]] = {}
            for point in (point for curve in curves for point in curve):
                value = getattr(point, field)
                if value is not None:
                    points.setdefault(point.step, []).append(value)
            if points:
                panel.plot(
                    list(points),
                    [median(values) for values in points.values()],
                    style,
                    color=_colour(name),
                    linewidth=1.2,
                    label=title(name) if field == "live_latent" else None,
                )
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    return _save(figure, out)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _names(grouped: Iterable[tuple[str, int]]) -> list[str]:
    """Rows without repetition, in order."""
    return list(dict.fromkeys(name for name, _ in grouped))


def _colour(name: str) -> Any:
    """One of twenty, by the place of a row among all."""
    from matplotlib import colormaps

    names = list(ROWS)
    return colormaps["tab20"]((names.index(name) if name in names else 0) % 20)


def _save(figure: Figure, out: Path, dpi: int = _DPI) -> Path:
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=dpi)
    return out

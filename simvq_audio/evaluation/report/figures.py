"""Pictures of results, with matplotlib's object interface.

Names are drawn literally: no formulas, and no legends, which omit names that begin with an
underscore.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from simvq_audio.errors import needs_extra
from simvq_audio.evaluation.metric import MetricInfo
from simvq_audio.evaluation.results import CodebookUse
from simvq_audio.evaluation.statistics import Mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Lines and letters; the page replaces it by the colour of its text.
INK = "#010203"
# Readable on white and black, and by most colour-blind people.
SERIES = ("#3182ce", "#d9752b", "#2f9e6e", "#b35fc4", "#a98307", "#d1497b", "#1d9aaa", "#7d8590")
MARKERS = "osD^vPX*"
_WIDTH = 4.8
_BINS = 24
# Larger ratios of bit rates get a logarithmic axis.
_LOG_SPAN = 6.0


@dataclass(frozen=True)
class RatePoint:
    """A system in the rate-distortion plot: its bit rate in kbit/s and its mean score."""

    name: str
    kbps: float
    mean: Mean


def new_figure(width: float, height: float) -> Figure:
    """An empty figure with a transparent background.

    Args:
        width, height: inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with needs_extra("eval"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    return figure


def label(metric: MetricInfo) -> str:
    """Label of a metric's axis: title, unit, direction."""
    better = {True: "higher is better", False: "lower is better", None: ""}
    notes = ", ".join(filter(None, (metric.unit, better[metric.higher_is_better])))
    return f"{metric.title} ({notes})" if notes else metric.title


def rate_distortion(points: Sequence[RatePoint], metric: MetricInfo) -> Figure:
    """Mean score against bit rate, with a name and a 95 % interval for each system.

    Args:
        points: at least one.
    """
    figure = new_figure(_WIDTH, 3.3)
    axes = _axes(figure)
    rates = [point.kbps for point in points]
    for index, point in enumerate(points):
        mean = point.mean
        if mean.low is not None and mean.high is not None:
            axes.vlines(point.kbps, mean.low, mean.high, colors=_colour(index), linewidth=1.5)
        axes.plot(
            point.kbps,
            mean.value,
            MARKERS[index % len(MARKERS)],
            color=_colour(index),
            markersize=8,
        )
    low, high = min(rates), max(rates)
    if low > 0 and high / low > _LOG_SPAN:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.4, high * 1.4)
        axes.xaxis.set_major_locator(_ticker().LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(_ticker().FormatStrFormatter("%g"))
        axes.xaxis.set_minor_locator(_ticker().NullLocator())
    else:
        margin = 0.12 * (high - low) or 0.25 * high or 1.0
        axes.set_xlim(low - margin, high + margin)
    axes.margins(y=0.15)
    _name_points(axes, points)
    axes.set_xlabel("bit rate, kbit/s")
    axes.set_ylabel(label(metric))
    return _finished(figure)


def _name_points(axes: Axes, points: Sequence[RatePoint]) -> None:
    """Write names beside their points, towards the middle, without overlaps."""
    bottom, top = axes.get_ylim()
    line = 0.07 * (top - bottom)
    middle = axes.transAxes.transform((0.5, 0))[0]
    taken: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for index, point in sorted(enumerate(points), key=lambda item: item[1].mean.value):
        x = axes.transData.transform((point.kbps, point.mean.value))[0]
        on_right = bool(x <= middle)
        height = point.mean.value
        for other_x, other_height in taken[on_right]:
            if abs(other_x - x) < 0.35 * axes.bbox.width:
                height = max(height, other_height + line)
        taken[on_right].append((x, height))
        axes.annotate(
            point.name,
            (point.kbps, height),
            xytext=(9 if on_right else -9, 0),
            textcoords="offset points",
            ha="left" if on_right else "right",
            va="center",
            color=_colour(index),
            fontsize=9,
            # Long names do not shrink the axes.
            in_layout=False,
            annotation_clip=False,
        )


def distributions(
    scores: Mapping[str, Sequence[float]], means: Mapping[str, Mean], metric: MetricInfo
) -> Figure:
    """Histograms of a metric's scores, a row per system.

    Args:
        scores: by system, at least one score each.
        means: by system; drawn as a line with a band for the interval.
    """
    figure = new_figure(_WIDTH, max(2.2, 0.9 + 0.85 * len(scores)))
    every = np.concatenate([np.asarray(values, float) for values in scores.values()])
    low, high = float(every.min()), float(every.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    first = None
    for index, (name, values) in enumerate(scores.items()):
        axes = _axes(figure, (len(scores), 1, index + 1), sharex=first)
        first = first or axes
        axes.hist(values, bins=edges.tolist(), color=_colour(index), alpha=0.75)
        mean = means[name]
        if mean.low is not None and mean.high is not None:
            axes.axvspan(mean.low, mean.high, color=INK, alpha=0.15, linewidth=0)
        axes.axvline(mean.value, color=INK, linewidth=1.2)
        axes.set_title(name, loc="left", fontsize=9, color=_colour(index), pad=3)
        axes.yaxis.set_major_locator(_ticker().MaxNLocator(2, integer=True))
        axes.tick_params(labelbottom=index == len(scores) - 1)
        axes.set_xlim(low, high)
    figure.axes[-1].set_xlabel(label(metric))
    figure.supylabel("recordings", fontsize=9, color=INK)
    return _finished(figure)


def codebook_usage(uses: Mapping[str, CodebookUse]) -> Figure:
    """Frequencies of codes, most frequent first, a line per system, on logarithmic axes.

    The dashed line is even use of all entries.

    Args:
        uses: by system, at least one.
    """
    figure = new_figure(_WIDTH, 3.3)
    axes = _axes(figure)
    for index, (name, use) in enumerate(uses.items()):
        shares = 100 * np.asarray(use.counts, float) / max(1, use.frames)
        ranks = np.arange(1, len(shares) + 1)
        axes.step(ranks, shares, where="mid", color=_colour(index), linewidth=1.8)
        axes.hlines(
            100 / use.codebook_size,
            1,
            use.codebook_size,
            colors=_colour(index),
            linestyles="dashed",
            linewidth=1,
        )
        # At the upper right, where there are no lines.
        axes.annotate(
            name,
            (0.98, 0.97 - 0.08 * index),
            xycoords="axes fraction",
            ha="right",
            va="top",
            color=_colour(index),
            fontsize=9,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_ticker().FormatStrFormatter("%g"))
        axis.set_minor_formatter(_ticker().NullFormatter())
    axes.set_xlabel("code, by rank of frequency")
    axes.set_ylabel("share of all frames, %")
    return _finished(figure)


def svg(figure: Figure, salt: str) -> str:
    """A figure as an SVG element for an HTML page, with letters as text.

    Args:
        salt: distinguishes the ids in it from those of other figures on the page.
    """
    import matplotlib

    buffer = io.BytesIO()
    fixed = {"svg.fonttype": "none", "svg.hashsalt": salt}
    with matplotlib.rc_context(fixed), any_letters():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    space = "{http://www.w3.org/2000/svg}"
    ElementTree.register_namespace("", space[1:-1])
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(buffer.getvalue())
    for metadata in root.findall(f"{space}metadata"):
        root.remove(metadata)
    for group in root.iter(f"{space}g"):
        # The same ids in every figure; nothing refers to them.
        group.attrib.pop("id", None)
    # The viewBox is enough; without these the page sets the size.
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    # The page has the description.
    root.set("aria-hidden", "true")
    return ElementTree.tostring(root, encoding="unicode")


@contextmanager
def any_letters() -> Iterator[None]:
    """Suppress warnings about letters that matplotlib's font lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _axes(figure: Figure, place: tuple[int, int, int] = (1, 1, 1), **options: Any) -> Axes:
    axes = figure.add_subplot(*place, **options)
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, which="both", labelsize=9)
    axes.xaxis.label.set(color=INK, fontsize=9)
    axes.yaxis.label.set(color=INK, fontsize=9)
    axes.grid(color=INK, alpha=0.12, linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _finished(figure: Figure) -> Figure:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        # A name such as "a$b$" is not a formula.
        text.set_parse_math(False)
    return figure


def _colour(index: int) -> str:
    return SERIES[index % len(SERIES)]


def _ticker():
    from matplotlib import ticker

    return ticker
